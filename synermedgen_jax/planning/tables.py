"""Formats a plan as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from synermedgen_jax.planning.plan import UTILISATION, Plan

_STATE = {
  'trainable': 'trainable parameters, float32',
  'opt_state': 'optimiser state',
  'ema': 'moving average of parameters',
  'frozen': 'frozen parameters',
}


def describe(plan: Plan) -> str:
  """Formats memory, operations, communication and speed as aligned lines."""
  mesh = ' x '.join(f'{axis} {size}' for axis, size in plan.mesh.items())
  fill = ', '.join(f'{n} {100 * f:.0f} %' for n, f in plan.fill.items())
  active = ', '.join(
    f'{n} {100 * f:.1f} %' for n, f in plan.active_blocks.items()
  )
  parts = [
    f'{plan.stage} of {plan.model} on {plan.topology}: {plan.devices} devices, '
    f'mesh {mesh}, {plan.rows} rows per step.',
    f'A row: {plan.capacity}; filled: {fill}.',
    f'Recomputation: {plan.remat}. Compiled in {plan.compile_seconds:.0f} s.',
    '',
    'Memory per device',
    *[f'  {label:<34} {in_bytes(n):>12}' for label, n in _memory(plan)],
    '',
    'Floating-point operations per step, without recomputation',
    *[f'  {name:<34} {n / 1e12:>8.3f} T' for name, n in plan.flops.items()],
    f'  Attention counts active blocks only: {active}.',
    '',
    'Received per device and step',
    *_messages(plan),
  ]
  if plan.step_seconds:
    parts += [
      '',
      f'At {100 * UTILISATION:.0f} % of the peak rate: '
      f'{plan.step_seconds:.2f} s per step, '
      f'{plan.tokens / plan.step_seconds:,.0f} tokens/s, '
      f'{plan.images / plan.step_seconds:,.0f} images/s.',
    ]
  return '\n'.join(parts)


def _memory(plan: Plan) -> Iterable[tuple[str, int]]:
  for name, label in _STATE.items():
    yield label, plan.state_bytes[name]
  yield 'batch', plan.batch_bytes
  yield 'temporaries of the step', plan.temporary_bytes
  yield 'peak', plan.peak_bytes
  if plan.limit_bytes:
    yield 'available', plan.limit_bytes


def in_bytes(count: float) -> str:
  """Formats a number of bytes with its unit, in powers of 1024."""
  for unit, size in (('GB', 2**30), ('MB', 2**20)):
    if count >= size:
      return f'{count / size:.2f} {unit}'
  return f'{count / 1024:.2f} kB'


def _messages(plan: Plan) -> Sequence[str]:
  if not plan.collectives:
    return ['  nothing']
  return [
    f'  {c.kind:<18} over {"+".join(c.axes):<12} {c.part:<12} '
    f'{in_bytes(c.bytes):>10}  in {c.count} messages'
    for c in plan.collectives
  ]
