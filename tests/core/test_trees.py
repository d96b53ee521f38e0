from synermedgen_jax.core import trees


def test_flat_names_and_trees_are_two_forms_of_one():
  tree = {'a': {'b': {'c': 1}, 'd': 2}, 'e': 3}
  flat = trees.flatten(tree)
  assert flat == {'a/b/c': 1, 'a/d': 2, 'e': 3}
  assert trees.unflatten(flat) == tree
