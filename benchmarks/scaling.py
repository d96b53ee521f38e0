"""Writes docs/scaling.md: the stages of the 7B model on TPU slices.

  python -m benchmarks.scaling

Compiles every case with `python -m synermedgen_jax.compile` in a process of its
own, about two minutes each. Cases that --results contains are not compiled
again.
"""

import json
import subprocess
import sys
from pathlib import Path

from absl import app, flags

from benchmarks.tables import table
from synermedgen_jax.core.progress import each
from synermedgen_jax.planning.topologies import SLICES

_ROOT = Path(__file__).parents[1]
_RESULTS = flags.DEFINE_string(
  'results',
  str(_ROOT / 'docs' / 'scaling.json'),
  'JSON file of the plans, by case.',
)
_PAGE = flags.DEFINE_string(
  'page', str(_ROOT / 'docs' / 'scaling.md'), 'Page to write.'
)

# Topology -> mesh (data, fsdp, tensor); one row per chip.
_MESHES = {'v5p-64': (1, 32, 1), 'v5p-128': (2, 32, 1), 'v6e-64': (2, 32, 1)}
# Capacity of long rows, three times that of the configs.
_LONG = {
  'stage1': {'und': 32768, 'gen': 0, 'vit': 38 * 784, 'images': 0},
  'stage2': {'und': 11 * 864, 'gen': 22528, 'vit': 11 * 784, 'images': 22},
}
_TITLES = {'stage1': 'I', 'stage2': 'II'}
_HEAD = """# The 7B model on TPU slices

Written by `python -m benchmarks.scaling` on a machine with two CPU cores and no
TPU. It compiles the training step of `main` ahead of time with the TPU compiler
(`python -m synermedgen_jax.compile --help`). Memory and messages are from the
compiler. **No step has been run on a TPU**: times assume 40 % utilisation of
the peak bfloat16 rate.

The model is BAGEL-7B-MoT, with two experts of 7 B parameters each, AdamW and an
averaged copy in float32, and frozen weights in bfloat16. Rows are packed from
the tasks of the stage, with condition dropout in Stage II: slices of 392 x 392
for the ViT (784 tokens) and of 512 x 512 for the autoencoder (1,024).

"""


def _case(stage: str, topology: str, long: bool) -> tuple[str, list[str]]:
  """The case's name and the command that compiles it."""
  mesh = _MESHES[topology]
  chips = mesh[0] * mesh[1] * mesh[2]
  command = [
    '-m',
    'synermedgen_jax.compile',
    f'--config=configs/{stage}.py:bagel_7b',
    f'--topology={topology}',
    f'--config.mesh={mesh}',
    f'--config.rows={chips}',
  ]
  if long:
    command.append('--config.compute.remat=full')
    command += [f'--config.capacity.{k}={n}' for k, n in _LONG[stage].items()]
  return f'{stage} {topology} {"long" if long else "config"}', command


def _compile_all(results: Path) -> dict[str, dict]:
  plans = json.loads(results.read_text()) if results.is_file() else {}
  cases = [
    _case(stage, topology, long)
    for long in (False, True)
    for stage in _TITLES
    for topology in _MESHES
  ]
  left = [c for c in cases if c[0] not in plans]
  for name, command in each(left, 'compile', len(left), 'plan'):
    done = subprocess.run(
      [sys.executable, *command, '--json'],
      cwd=_ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      sys.exit(f'{name}: {done.stderr}')
    plans[name] = json.loads(done.stdout.splitlines()[-1])
    results.write_text(json.dumps(plans, indent=1) + '\n')
  return {name: plans[name] for name, _ in cases}


def _memory(plans: dict[str, dict]) -> str:
  rows = []
  for name, p in plans.items():
    stage, topology, _ = name.split()
    capacity = p['capacity']
    state = sum(p['state_bytes'].values())
    rows.append(
      [
        _TITLES[stage],
        topology,
        ' x '.join(str(n) for n in p['mesh'].values()),
        f'{capacity["und"]:,} + {capacity["gen"]:,}',
        p['remat'],
        f'{state / 2**30:.1f}',
        f'{p["temporary_bytes"] / 2**30:.1f}',
        f'{p["peak_bytes"] / 2**30:.1f}',
        f'{p["limit_bytes"] / 2**30:.0f}',
        f'{p["compile_seconds"]:.0f}',
      ]
    )
  head = 'stage|slice|mesh|tokens per row, und + gen|remat|state|temporaries'
  head += '|peak|limit|compile s'
  return table(head.split('|'), rows)


def _speed(plans: dict[str, dict]) -> str:
  rows = []
  for name, p in plans.items():
    stage, topology, _ = name.split()
    capacity, fill = p['capacity'], p['fill']
    seconds = p['step_seconds']
    shares = [f'{n} {100 * fill[n]:.0f}' for n in ('und', 'gen') if n in fill]
    rows.append(
      [
        _TITLES[stage],
        topology,
        f'{capacity["und"] + capacity["gen"]:,} x {p["rows"]}',
        ', '.join(shares),
        f'{100 * p["active_blocks"]["mot"]:.0f}',
        f'{p["flops"]["attention"] / 1e15:.2f} + '
        f'{p["flops"]["other"] / 1e15:.2f}',
        f'{seconds:.2f}',
        f'{p["tokens"] / seconds:,.0f}',
        f'{p["images"] / seconds:,.0f}',
      ]
    )
  head = 'stage|slice|tokens per row x rows|fill %|active blocks %'
  head += '|PFLOP, attention + rest|s per step|tokens/s|images/s'
  return table(head.split('|'), rows)


def _messages(plans: dict[str, dict]) -> str:
  kinds = sorted(
    {
      (c['kind'], '+'.join(c['axes']))
      for p in plans.values()
      for c in p['collectives']
    }
  )
  rows = []
  for name, p in plans.items():
    stage, topology, _ = name.split()
    moved = dict.fromkeys(kinds, 0.0)
    parts = dict.fromkeys(('gen', 'und'), 0.0)
    for c in p['collectives']:
      moved[c['kind'], '+'.join(c['axes'])] += c['bytes']
      if c['part'] in parts:
        parts[c['part']] += c['bytes']
    rows.append(
      [
        _TITLES[stage],
        topology,
        f'{p["capacity"]["und"] + p["capacity"]["gen"]:,}',
        *(f'{moved[k] / 2**30:.2f}' for k in kinds),
        *(f'{parts[k] / 2**30:.1f}' for k in ('und', 'gen')),
      ]
    )
  head = ['stage', 'slice', 'tokens per row', *(f'{k}, {a}' for k, a in kinds)]
  return table([*head, 'for und', 'for gen'], rows)


def main(_) -> None:
  plans = _compile_all(Path(_RESULTS.value))
  chips = ', '.join(
    f'{name}: {SLICES[name][0].memory_gb:.0f} GB and '
    f'{SLICES[name][0].tflops:.0f} TFLOP/s per chip'
    for name in _MESHES
  )
  page = (
    _HEAD
    + '## Memory per chip, GiB\n\n'
    + _memory(plans)
    + '\n\n*State* is parameters, optimiser and averaged copy; *peak* is the '
    + 'most memory in use at one time. *Remat* is `config.compute.remat`: '
    + '`full` recomputes every layer in the backward pass, `dots` keeps matrix '
    + 'products.\n\n## Work and speed\n\n'
    + _speed(plans)
    + f'\n\n{chips}. Operations are those of the whole step without '
    + 'recomputation; attention counts active blocks of 512 x 512. Images are '
    + 'slices for the ViT in Stage I, sources and targets in Stage II.\n\n'
    + '## Data received per chip and step, GiB\n\n'
    + _messages(plans)
    + '\n\nThe columns of the experts contain messages that the compiler '
    + 'attributes to one. In Stage I, `gen` is frozen and does not run, so it '
    + 'causes no messages. In Stage II, `und` is frozen and runs: its weights '
    + 'are gathered, but no gradients are exchanged for them.\n'
  )
  Path(_PAGE.value).write_text(page)
  print(page)


if __name__ == '__main__':
  app.run(main)
