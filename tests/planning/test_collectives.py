"""Messages read from lines of HLO, with hand-counted bytes."""

import types

import numpy as np
import pytest

from synermedgen_jax.planning.collectives import (
  Collective,
  collectives,
  replica_groups,
)

# A mesh of eight is enough: nothing is placed on it.
MESH = types.SimpleNamespace(
  shape={'data': 2, 'fsdp': 2, 'tensor': 2},
  axis_names=('data', 'fsdp', 'tensor'),
  size=8,
)


def program(line: str, *others: str) -> str:
  return '\n'.join(
    [
      'HloModule jit_step, entry_computation_layout={()->()}',
      *others,
      'ENTRY %main (x: f32[4]) -> f32[4] {',
      f'  {line}',
      '}',
    ]
  )


@pytest.mark.parametrize(
  ('text', 'groups'),
  [
    ('replica_groups={{0,2},{4,6},{1,3},{5,7}}, use', [[0, 2], [4, 6], [1, 3]]),
    ('replica_groups={}, use', [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ('replica_groups=[4,2]<=[8], dim', [[0, 1], [2, 3], [4, 5]]),
    ('replica_groups=[4,2]<=[2,4]T(1,0), dim', [[0, 4], [1, 5], [2, 6]]),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}, dim", [[0, 1], [2, 3], [4, 5]]),
    (
      "replica_groups=mesh['a'=4,'b'=2] {'a'}, dim",
      [[0, 2, 4, 6], [1, 3, 5, 7]],
    ),
    (
      "replica_groups=mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2)) {'a'}, d",
      [[0, 2], [1, 3], [4, 6], [5, 7]],
    ),
  ],
)
def test_groups_in_every_spelling(text, groups):
  parsed = replica_groups(text, 8)
  assert parsed.size == 8
  np.testing.assert_array_equal(parsed[: len(groups)], groups)


def test_a_spelling_that_is_not_known_is_an_error():
  with pytest.raises(ValueError, match=r"mesh\['a'=8\] \{'a':\(2\)4\}"):
    replica_groups("replica_groups=mesh['a'=8] {'a':(2)4}, dimensions", 8)


FSDP = 'replica_groups={{0,2},{1,3},{4,6},{5,7}}'
DATA_AND_FSDP = 'replica_groups={{0,2,4,6},{1,3,5,7}}'


@pytest.mark.parametrize(
  ('line', 'kind', 'axes', 'size'),
  [
    # Half of what comes out was here before.
    (
      f'%a = f32[4,8]{{1,0}} all-gather(%x), {FSDP}, dimensions={{0}}',
      'all-gather',
      ('fsdp',),
      64,
    ),
    (
      '%a = (f32[2,8]{1,0}, f32[4,8]{1,0}) all-gather-start(%x), '
      f'{FSDP}, dimensions={{0}}',
      'all-gather',
      ('fsdp',),
      64,
    ),
    # Scattered and gathered: three quarters, twice.
    (
      f'%a = bf16[16]{{0}} all-reduce(%x), {DATA_AND_FSDP}, to_apply=%add',
      'all-reduce',
      ('data', 'fsdp'),
      48,
    ),
    (
      f'%a = (f32[2]{{0}}, f32[6]{{0}}) all-reduce(%x, %y), {FSDP}',
      'all-reduce',
      ('fsdp',),
      32,
    ),
    # One share of four comes out; three came from others.
    (
      f'%a = f32[4]{{0}} reduce-scatter(%x), {DATA_AND_FSDP}, dimensions={{0}}',
      'reduce-scatter',
      ('data', 'fsdp'),
      48,
    ),
    (
      '%a = (bf16[8]{0:T(8,128)}, bf16[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) '
      'collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}',
      'collective-permute',
      ('tensor',),
      16,
    ),
  ],
)
def test_bytes_and_axes_of_one_message(line, kind, axes, size):
  assert collectives(program(line), MESH) == [
    Collective(kind, axes, 'other', 1, size)
  ]


def test_operations_without_partners_move_nothing():
  line = '%a = f32[8]{0} all-reduce(%x), replica_groups=[8,1]<=[8]'
  assert collectives(program(line), MESH) == []


def test_the_end_of_a_message_is_not_another_one():
  line = '%a = f32[4,8]{1,0} all-gather-done(%start), metadata={}'
  assert collectives(program(line), MESH) == []


def test_a_message_belongs_to_the_part_that_its_scope_names():
  name = 'jit(step)/jvp(Bagel.backbone)/mot/while/body/layers/gen.project/dot'
  line = (
    f'%a = f32[4]{{0}} all-reduce(%x), {FSDP}, metadata={{op_name="{name}"}}'
  )
  assert [c.part for c in collectives(program(line), MESH)] == ['gen']
  line = line.replace('gen.project', 'gender')
  assert [c.part for c in collectives(program(line), MESH)] == ['other']


BODY = (
  '%body (p: f32[4]) -> f32[4] {',
  f'  %a = f32[4]{{0}} all-reduce(%p), {FSDP}, to_apply=%add',
  '}',
)
CONDITION = (
  '%condition (p: f32[4]) -> pred[] {',
  '  %limit = s32[]{:T(128)} constant(28)',
  '  ROOT %c = pred[] compare(%i, %limit), direction=LT',
  '}',
)


@pytest.mark.parametrize(
  ('stated', 'turns'), [('"known_trip_count":{"n":"6"}', 6), ('', 28)]
)
def test_a_loop_sends_at_every_turn(stated, turns):
  line = (
    '%w = (f32[4]) while(%t), condition=%condition, body=%body, '
    f'backend_config={{{stated}}}'
  )
  (collective,) = collectives(program(line, *BODY, *CONDITION), MESH)
  assert (collective.count, collective.bytes) == (turns, turns * 16)


def test_a_ring_of_two_steps_an_iteration_turns_half_as_often():
  """The counter is the loop's second value; the body adds one to it twice."""
  line = '%w = (f32[4], u32[]) while(%t), condition=%until, body=%ring'
  until = (
    '%until (p: (f32[4], u32[])) -> pred[] {',
    '  %n = u32[]{:T(128)} constant(15)',
    '  %i = u32[]{:T(128)} get-tuple-element(%p), index=1',
    '  ROOT %less = pred[] compare(%i, %n), direction=LT',
    '}',
  )
  ring = (
    '%ring (p: (f32[4], u32[])) -> (f32[4], u32[]) {',
    '  %one = u32[]{:T(128)} constant(1)',
    '  %i = u32[]{:T(128)} get-tuple-element(%p), index=1',
    '  %x = f32[4] get-tuple-element(%p), index=0',
    '  %sent = f32[4] collective-permute(%x), '
    'source_target_pairs={{0,1},{1,0}}',
    '  %j = u32[]{:T(128)} add(%i, %one)',
    '  %k = u32[]{:T(128)} add(%one, %j)',
    '  ROOT %out = (f32[4], u32[]) tuple(%sent, /*index=1*/%k), metadata={}',
    '}',
  )
  (collective,) = collectives(program(line, *until, *ring), MESH)
  assert (collective.count, collective.bytes) == (8, 8 * 16)


def test_a_computation_that_nobody_calls_sends_nothing():
  assert collectives(program('%a = f32[] constant(0)', *BODY), MESH) == []
