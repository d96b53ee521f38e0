"""Reads the communication between devices from the HLO of a program."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np
from jax.sharding import Mesh

_KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_BYTES = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  's16': 2,
  'u16': 2,
  'bf16': 2,
  'f16': 2,
  's32': 4,
  'u32': 4,
  'f32': 4,
  's64': 8,
  'u64': 8,
  'f64': 8,
}
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
_COLLECTIVE = re.compile(
  rf'= (.*?) ({"|".join(_KINDS)})(-start)?\((.*)$', re.MULTILINE
)
_CALLED = re.compile(
  r'(?:calls|to_apply|body|condition|true_computation|false_computation)='
  r'%?([\w.\-]+)'
)
_IOTA = r'\[([\d,]+)\](?:T\(([\d,]+)\))?'
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')


@dataclasses.dataclass(frozen=True)
class Collective:
  """All messages of one kind over the same axes, for one part of the model.

  Attributes:
    kind: 'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all' or
      'collective-permute'.
    axes: mesh axes along which the devices of a group differ.
    part: 'gen', 'und', 'vit', 'autoencoder' or 'other'.
    count: messages per step.
    bytes: bytes that a device receives per step, with ring algorithms: an
      all-reduce is a reduce-scatter and an all-gather.
  """

  kind: str
  axes: tuple[str, ...]
  part: str
  count: int
  bytes: float


def collectives(hlo: str, mesh: Mesh) -> list[Collective]:
  """Returns the collectives of a program, sorted by bytes, largest first.

  Args:
    hlo: HLO text of a step, from `compiled.as_text()`.
    mesh: the mesh that the step was compiled for.

  Raises:
    ValueError: a collective has replica groups in an unknown format.
  """
  bodies = _computations(hlo)
  times = _times_run(bodies)
  totals = collections.defaultdict(lambda: [0, 0.0])
  for name, lines in bodies.items():
    for line in lines if times[name] else ():
      match = _COLLECTIVE.search(line)
      if not match:
        continue
      shape, kind, _, rest = match.groups()
      axes, group = _axes(kind, rest, mesh)
      if group == 1:
        continue
      entry = totals[kind, axes, _part(line)]
      entry[0] += times[name]
      entry[1] += times[name] * _received(kind, shape, group, bool(match[3]))
  rows = [Collective(*key, *value) for key, value in totals.items()]
  return sorted(rows, key=lambda c: -c.bytes)


def _computations(hlo: str) -> dict[str, list[str]]:
  """Computation -> its lines; the key of the entry computation is ''."""
  bodies, current = {}, None
  for line in hlo.splitlines():
    head = _HEAD.match(line)
    if head and not line.startswith('HloModule'):
      current = bodies.setdefault('' if head[1] else head[2], [])
    elif current is not None:
      current.append(line)
  return bodies


def _times_run(bodies: Mapping[str, list[str]]) -> collections.Counter:
  """Counts how often each computation runs in one call of the program."""
  calls = {}
  for name, lines in bodies.items():
    calls[name] = []
    for line in lines:
      called = _CALLED.findall(line)
      for branches in _BRANCHES.findall(line):
        called += [b.strip().lstrip('%') for b in branches.split(',')]
      trips = _trip_count(line, bodies) if ' while(' in line else 1
      calls[name] += [(c, trips) for c in called if c in bodies]
  times = collections.Counter()

  def visit(name, count):
    times[name] += count
    for called, trips in calls[name]:
      visit(called, count * trips)

  visit('', 1)
  return times


def _trip_count(line: str, bodies: Mapping[str, list[str]]) -> int:
  """Trip count of a loop, from its annotation or from its condition."""
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
  if known:
    return int(known[1])
  condition, body = (
    bodies[re.search(rf'{key}=%?([\w.\-]+)', line)[1]]
    for key in ('condition', 'body')
  )
  bounds = re.findall(
    r'= [su]32\[\]\S* constant\((\d+)\)', '\n'.join(condition)
  )
  # A loop with a bound that depends on data, as in a sort, has no collectives.
  if len(bounds) != 1:
    return 1
  return math.ceil(int(bounds[0]) / _increment(condition, body))


def _increment(condition: list[str], body: list[str]) -> int:
  """What an iteration adds to the counter that the condition compares.

  It is 2 in rings that overlap a product with permutations of an operand
  (windowed einsum), where an iteration makes two steps. 1 if the body does not
  say it.
  """
  compared = re.search(
    r'get-tuple-element\([^)]*\), index=(\d+)', '\n'.join(condition)
  )
  made = {}
  for line in body:
    match = re.match(r'\s*(ROOT )?%?([\w.\-]+) = (.*)', line)
    if match:
      made['ROOT' if match[1] else match[2]] = match[3]
  results = re.search(r' tuple\((.*?)\)', made.get('ROOT', ''))
  if not compared or not results:
    return 1

  def names(text: str) -> list[str]:
    return re.findall(r'%([\w.\-]+)', text)

  def added(name: str) -> int:
    value = made.get(name, '')
    constant = re.search(r' constant\((\d+)\)', value)
    if constant:
      return int(constant[1])
    terms = re.search(r' add\((.*?)\)', value)
    return sum(map(added, names(terms[1]))) if terms else 0

  return added(names(results[1])[int(compared[1])]) or 1


def _received(kind: str, shape: str, group: int, start: bool) -> float:
  """Bytes that a device receives in one message."""
  sizes = [
    _BYTES.get(dtype, 0) * math.prod(int(n) for n in dims.split(',') if n)
    for dtype, dims in re.findall(r'(\w+)\[([\d,]*)\]', shape)
  ]
  if start and kind == 'all-gather':
    size = sum(sizes) - sum(sizes) / (group + 1)  # (inputs, outputs)
  elif start and kind == 'collective-permute':
    size = sizes[0]  # (input, output, counters)
  else:
    size = sum(sizes)
  if kind == 'collective-permute':
    return size
  if kind == 'reduce-scatter':
    return size * (group - 1)  # `size` is that of the output, one shard
  share = (group - 1) / group
  return (2 if kind == 'all-reduce' else 1) * size * share


def _axes(kind: str, rest: str, mesh: Mesh) -> tuple[tuple[str, ...], int]:
  """Returns the mesh axes of a message and the size of its groups."""
  if kind == 'collective-permute':
    pairs = _numbers(re.search(r'source_target_pairs=(\{\{.*?\}\})', rest)[1])
    groups, size = pairs, 2
  else:
    groups = replica_groups(rest, mesh.size)
    size = groups.shape[1]
  coordinates = np.unravel_index(groups, tuple(mesh.shape.values()))
  axes = tuple(
    axis
    for axis, coordinate in zip(mesh.axis_names, coordinates, strict=True)
    if (coordinate != coordinate[:, :1]).any()
  )
  return axes, size


def _numbers(text: str) -> np.ndarray:
  rows = re.findall(r'\{([\d,]+)\}', text)
  return np.array([[int(n) for n in row.split(',')] for row in rows])


def replica_groups(text: str, devices: int) -> np.ndarray:
  """Parses the replica groups of a collective.

  Args:
    text: attributes of the collective; groups may be explicit lists, an iota
      or mesh axes. An empty list is one group of all devices.
    devices: number of devices.

  Returns:
    Device numbers, (groups, members).

  Raises:
    ValueError: the format of the groups is unknown.
  """
  everyone = re.search(r'replica_groups=\{\}', text)
  if everyone:
    return np.arange(devices)[None]
  explicit = re.search(r'replica_groups=(\{\{.*?\}\})', text)
  if explicit:
    return _numbers(explicit[1])
  iota = re.search(rf'replica_groups=\[([\d,]+)\]<={_IOTA}', text)
  if iota:
    shape = [int(n) for n in iota[1].split(',')]
    return _iota(*iota.groups()[1:]).reshape(shape)
  named = re.search(
    rf'replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_IOTA}\))?'
    r'\s*\{([^}:]*)\}',
    text,
  )
  if named:
    sizes = {
      name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])
    }
    members = re.findall(r"'(\w+)'", named[4])
    ids = np.arange(math.prod(sizes.values()))
    if named[2]:
      ids = _iota(named[2], named[3])
    axes = list(sizes)
    inner = [axes.index(name) for name in members]
    outer = [i for i in range(len(axes)) if i not in inner]
    size = math.prod(sizes[name] for name in members)
    ids = ids.reshape(list(sizes.values()))
    return ids.transpose(*outer, *inner).reshape(-1, size)
  groups = re.search(r'replica_groups=\S*.{0,60}', text)
  raise ValueError(
    'Cannot parse the replica groups of a collective: '
    f'{groups[0] if groups else text}.'
  )


def _iota(dims: str, order: str | None) -> np.ndarray:
  """arange in shape `dims`, transposed by `order`."""
  shape = [int(n) for n in dims.split(',')]
  ids = np.arange(math.prod(shape)).reshape(shape)
  return ids.transpose([int(n) for n in order.split(',')]) if order else ids


def _part(line: str) -> str:
  """The part of the model in the scope of an HLO line."""
  name = re.search(r'op_name="([^"]*)"', line)
  for part in ('gen', 'und', 'vit', 'autoencoder'):
    if name and re.search(rf'[/.(]{part}[/.)]', name[1]):
      return part
  return 'other'
