"""Files without content, to lay out a dataset."""


def lay_out(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return root
