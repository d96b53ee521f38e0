"""The printed tables of a plan."""

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.planning.collectives import Collective
from synermedgen_jax.planning.plan import Plan
from synermedgen_jax.planning.tables import describe, in_bytes

PLAN = Plan(
  topology='v5p-8',
  stage='ucg',
  model='bagel_7b',
  remat='full',
  devices=4,
  mesh={'data': 1, 'fsdp': 4, 'tensor': 1},
  rows=4,
  capacity=Capacity(und=100, gen=1000, vit=90, images=2),
  fill={'und': 0.5, 'gen': 0.8, 'vit': 1.0},
  images=8.0,
  state_bytes={
    'trainable': 2**30,
    'frozen': 2**29,
    'opt_state': 2**31,
    'ema': 2**30,
  },
  batch_bytes=2**20,
  temporary_bytes=3 * 2**30,
  peak_bytes=7 * 2**30,
  limit_bytes=95 * 2**30,
  flops={'attention': 1e12, 'other': 9e12},
  active_blocks={'mot': 0.25, 'vit': 0.1},
  collectives=[Collective('all-gather', ('fsdp',), 'gen', 56, 2**31)],
  step_seconds=0.5,
  compile_seconds=61.2,
)


def test_every_kind_of_memory_has_a_line():
  lines = [line.split() for line in describe(PLAN).splitlines()]
  sizes = {' '.join(line[:-2]): line[-2:] for line in lines if len(line) > 2}
  assert sizes['trainable parameters, float32'] == ['1.00', 'GB']
  assert sizes['frozen parameters'] == ['512.00', 'MB']
  assert sizes['temporaries of the step'] == ['3.00', 'GB']
  assert sizes['available'] == ['95.00', 'GB']


def test_columns_line_up():
  lines = describe(PLAN).splitlines()
  memory = lines[lines.index('Memory per device') + 1 :][:8]
  assert {len(line) for line in memory} == {len(memory[0])}


def test_speed_counts_what_is_not_padding():
  # Four rows of 50 und and 800 gen tokens in half a second.
  assert PLAN.tokens == 3400
  assert describe(PLAN).endswith(
    '0.50 s per step, 6,800 tokens/s, 16 images/s.'
  )


def test_messages_name_kind_axis_and_part():
  (line,) = [x for x in describe(PLAN).splitlines() if 'all-gather' in x]
  assert line.split() == (
    ['all-gather', 'over', 'fsdp', 'gen', '2.00', 'GB', 'in', '56', 'messages']
  )


def test_sizes_as_people_say_them():
  assert [in_bytes(n) for n in (512, 3 * 2**20, 2**31)] == [
    '0.50 kB',
    '3.00 MB',
    '2.00 GB',
  ]
