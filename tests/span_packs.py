"""Random packs of spans: with their intervals and BAGEL's mask."""

import numpy as np
from hypothesis import strategies as st

# A pack is a list of examples, an example a list of (mode, length).
packs = st.lists(
  st.lists(
    st.tuples(st.sampled_from(['causal', 'full', 'noise']), st.integers(1, 4)),
    min_size=1,
    max_size=4,
  ),
  min_size=1,
  max_size=3,
)


def bagel_mask(pack) -> np.ndarray:
  """(causal or same full/noise span) and not (a noise span other than the
  query's) and same example; (queries, keys)."""
  tokens = [
    (example, span, mode)
    for example, spans in enumerate(pack)
    for span, (mode, length) in enumerate(spans)
    for _ in range(length)
  ]
  n = len(tokens)
  mask = np.zeros((n, n), bool)
  for q in range(n):
    for k in range(n):
      same_span = tokens[q][:2] == tokens[k][:2]
      both_ways = same_span and tokens[q][2] in ('full', 'noise')
      other_noise = tokens[k][2] == 'noise' and not same_span
      same_example = tokens[q][0] == tokens[k][0]
      mask[q, k] = (k <= q or both_ways) and not other_noise and same_example
  return mask


def intervals(pack) -> tuple[np.ndarray, np.ndarray]:
  """(visible_from, visible_to) of the tokens in packing order."""
  rows = []
  start = 0
  for spans in pack:
    end = start + sum(length for _, length in spans)
    for mode, length in spans:
      stop = start + length
      for k in range(start, stop):
        first = k if mode == 'causal' else start
        rows.append((first, stop if mode == 'noise' else end))
      start = stop
  visible_from, visible_to = np.asarray(rows, np.int32).T
  return visible_from, visible_to


def order_of(pack) -> np.ndarray:
  return np.arange(sum(n for spans in pack for _, n in spans), dtype=np.int32)
