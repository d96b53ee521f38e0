"""The page of results: claims decided by the rule of the plan, and all numbers.

Reads RUNS/REGIME/SEED/ARM/evaluation and writes the page and a plot beside it.
Cells that are not finished are left out and listed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from projects.ablations.how_to_read import LIMITS, RULE
from projects.ablations.plan import ARMS, CLAIMS, REGIMES, Claim
from synermedgen_jax.core import files
from synermedgen_jax.evaluation.comparison import (
  Comparison,
  ComparisonError,
  Estimate,
  Runs,
  compare,
  read_runs,
)
from synermedgen_jax.evaluation.lines import Line, comparison_lines
from synermedgen_jax.evaluation.subjects import FILE, Subjects
from synermedgen_jax.reporting import pictures
from synermedgen_jax.reporting.comparison_table import (
  markdown_rows,
  with_interval,
)

SEEDS = 3  # that a decision needs
REFERENCE = 'full'
_BASELINES = {'copy_source': 'the unchanged source'}
# Line -> heading of its column.
_COLUMNS = {
  'ssim_22': 'SSIM',
  'drift/nearest_offset': 'drift, slices',
  'drift/in_plane': 'drift, mm',
  'control/classified': 'control',
  'control/read': 'control, own MI',
  'direction/turn': 'turn',
  'direction/reversed': 'nearer to the source',
  'direction/inverted': 'inverted',
  'use/words': 'use of words',
  'use/vit': 'of ViT tokens',
  'use/latents': 'of latents',
  'cts': 'CTS',
  'mi': 'MI',
  'tia': 'TIA',
}
_TICKS = (1, 2, 5, 10, 20, 50, 100)
_COLORS = {
  'borne out': pictures.BLUE,
  'refuted': pictures.ORANGE,
  'not decided': pictures.GREY,
}


@dataclasses.dataclass(frozen=True)
class Decision:
  """A claim in one regime.

  Attributes:
    claim: the claim.
    regime: name of the regime.
    difference: with the sign of the claim; None = not run.
    value: of the arm that the claim favours.
    seeds: the difference of each seed that both arms have.
  """

  claim: Claim
  regime: str
  difference: Estimate | None = None
  value: float = math.nan
  seeds: Sequence[float] = ()

  @property
  def verdict(self) -> str:
    """By the rule of the plan; 'not run' without a difference."""
    if self.difference is None:
      return 'not run'
    if len(self.seeds) < SEEDS:
      return 'not decided'
    least = self.claim.least
    if self.difference.high < least and max(self.seeds) < least:
      return 'refuted'
    if self.difference.low > 0 and min(self.seeds) > 0:
      return 'borne out'
    return 'not decided'


def decide(claim: Claim, regime: str, runs: Runs) -> Decision:
  """Decides a claim in a regime.

  Args:
    claim: the claim.
    regime: name of the regime.
    runs: arm -> seed -> evaluation, of the regime.
  """
  runs = {**runs, **_as_arms(runs.get(claim.better, {}))}
  if claim.better not in runs or claim.worse not in runs:
    return Decision(claim, regime)
  pair = {name: runs[name] for name in (claim.better, claim.worse)}
  shared = set.intersection(*(set(seeds) for seeds in pair.values()))
  pair = {
    name: {seed: run for seed, run in seeds.items() if seed in shared}
    for name, seeds in pair.items()
  }
  if not shared:
    return Decision(claim, regime)
  compared = compare(
    pair, [*pair], reference=claim.better, lines=(_lines()[claim.line],)
  )
  results = compared.results.get(claim.line, {})
  if claim.worse not in results:
    return Decision(claim, regime)
  # `compare` subtracts the reference, which is the better arm.
  worse = results[claim.worse].difference
  ends = sorted(-claim.sign * x for x in (worse.low, worse.high))
  seeds = [
    claim.sign
    * (results[claim.better].seeds[s] - results[claim.worse].seeds[s])
    for s in sorted(shared)
  ]
  difference = Estimate(-claim.sign * worse.value, *ends)
  value = results[claim.better].estimate.value
  return Decision(claim, regime, difference, value, seeds)


def _as_arms(evaluations: Mapping[str, Subjects]) -> Runs:
  """Baselines of evaluations as arms of their own."""
  return {
    name: {
      seed: dataclasses.replace(
        run,
        synthesis={
          route: {
            subject: {**entry['baselines'][name], 'baselines': {}}
            for subject, entry in scores.items()
          }
          for route, scores in run.synthesis.items()
        },
      )
      for seed, run in evaluations.items()
    }
    for name in (_BASELINES if evaluations else ())
  }


def _lines() -> dict[str, Line]:
  return {line.name: line for line in comparison_lines()}


def write_results(
  root: Path, page: Path, regimes: Mapping[str, Sequence[str]]
) -> str:
  """Writes the page and its plot; returns the table of claims.

  Args:
    root: folder of the runs.
    page: Markdown file to write.
    regimes: name -> names of the arms that were planned.

  Raises:
    ComparisonError: no cell has been evaluated, or cells of a regime cannot be
      compared.
    ResultError: a file is malformed.
  """
  runs = {name: _read(root / name, arms) for name, arms in regimes.items()}
  if not any(runs.values()):
    raise ComparisonError(
      f'{root}: has no REGIME/SEED/ARM/{FILE}; run launch/ablations.sh.'
    )
  decisions = [
    decide(claim, regime, runs[regime])
    for claim in CLAIMS
    for regime in claim.regimes
    if regime in runs
  ]
  claims = markdown_rows([*_claims(decisions)])
  plot = page.with_suffix('.png')
  files.write_bytes(plot, pictures.to_png(chart(decisions)))
  parts = [
    '# What understanding is worth: results\n',
    'Written by `bash launch/ablations.sh`. The data are digital phantoms, and '
    'the models have two million parameters: the numbers say what holds there, '
    'and nothing about patients or about models of other sizes. Arms, regimes '
    'and claims: `plan.py`. Definitions: `docs/adherence.md`.\n',
    '## Claims of the paper\n',
    *(f'* {line}' for line in _sentences(decisions)),
    '\n## How they were decided\n',
    f'{RULE}\n',
    claims,
    f'![Differences with 95 % intervals, by claim and regime]({plot.name})\n',
    '## Limits\n',
    f'{LIMITS}\n',
  ]
  for name, of_regime in runs.items():
    parts += _regime(name, of_regime, regimes[name])
  files.write_text(page, '\n'.join(parts))
  return claims


def _read(folder: Path, arms: Sequence[str]) -> Runs:
  try:
    return read_runs(folder, arms)
  except ComparisonError:
    return {}


def _sentences(decisions: Sequence[Decision]) -> Iterator[str]:
  """A line per claim, decided in the first of its regimes."""
  first = {(d.claim, d.regime): d for d in decisions}
  for claim in CLAIMS:
    decision = first.get((claim, claim.regimes[0]))
    if decision is None:
      continue
    line, difference = _lines()[claim.line], decision.difference
    verdict = decision.verdict
    if verdict == 'not decided' and len(decision.seeds) >= SEEDS:
      verdict += ' at this size'
    text = f'{claim.text} **{verdict.capitalize()}**'
    if difference:
      interval = with_interval(difference, _decimals(line), '+')
      text += (
        f': {interval} {_unit(line)}, of interest from {claim.least:g} '
        f'({_COLUMNS[line.name]}, {REGIMES[decision.regime].title})'
      )
    yield f'{text}.{_elsewhere(claim, decisions)}'


def _elsewhere(claim: Claim, decisions: Sequence[Decision]) -> str:
  """The verdicts of a claim in its other regimes; '' without any."""
  regimes: dict[str, list[str]] = {}
  for d in decisions:
    if d.claim is claim and d.regime != claim.regimes[0] and d.difference:
      regimes.setdefault(d.verdict, []).append(REGIMES[d.regime].title)
  verdicts = [f'{v} with {_and(t)}' for v, t in regimes.items()]
  return f' Elsewhere: {"; ".join(verdicts)}.' if verdicts else ''


def _and(words: Sequence[str]) -> str:
  *first, last = words
  return f'{", ".join(first)} and {last}' if first else last


def _unit(line: Line) -> str:
  return 'points' if line.scale == 100 else line.unit


def _claims(decisions: Sequence[Decision]) -> Iterator[list[str]]:
  yield [
    *('claim', 'arms', 'number', 'regime', 'first arm', 'difference [95 %]'),
    *('seeds', 'of interest from', 'verdict'),
  ]
  before = None
  for decision in decisions:
    claim, line = decision.claim, _lines()[decision.claim.line]
    difference = decision.difference
    stated = [
      claim.text,
      f'{_title(claim.better)} – {_title(claim.worse)}',
      _COLUMNS[line.name],
    ]
    yield [
      *(stated if claim is not before else [''] * len(stated)),
      REGIMES[decision.regime].title,
      f'{decision.value:.{_decimals(line)}f}' if difference else '–',
      with_interval(difference, _decimals(line), '+') if difference else '–',
      ', '.join(_signed(s, line) for s in decision.seeds),
      f'{claim.least:g}',
      decision.verdict,
    ]
    before = claim


def _signed(value: float, line: Line) -> str:
  decimals = _decimals(line)
  value = round(value, decimals) + 0.0  # no −0.0
  return f'{value:+.{decimals}f}'.replace('-', '−')


def _title(arm: str) -> str:
  return _BASELINES.get(arm) or ARMS[arm].title


def _decimals(line: Line) -> int:
  return max(line.decimals, 1)


def _regime(name: str, runs: Runs, arms: Sequence[str]) -> Iterator[str]:
  """The heading, the text and the table of a regime."""
  regime = REGIMES[name]
  # `capitalize` would write 'vit'.
  yield f'## {regime.title[0].upper()}{regime.title[1:]}\n'
  yield f'{regime.about}\n'
  missing = [ARMS[arm].title for arm in arms if arm not in runs]
  if missing:
    yield f'Not run: {", ".join(missing)}.\n'
  if REFERENCE not in runs:
    return
  lines = [_lines()[line] for line in _COLUMNS]
  compared = compare(runs, arms, reference=REFERENCE, lines=lines)
  # `compare` leaves out what the reference lacks.
  yield markdown_rows([*_rows(compared, runs, arms, lines)])


def _rows(
  compared: Comparison, runs: Runs, arms: Sequence[str], lines: Sequence[Line]
) -> Iterator[list[str]]:
  lines = [line for line in lines if line.name in compared.results]
  yield ['arm', *(_COLUMNS[line.name] for line in lines), 'seeds']
  for arm in arms:
    if arm not in runs:
      continue
    cells = []
    for line in lines:
      result = compared.results[line.name].get(arm)
      cells.append(
        with_interval(result.estimate, _decimals(line)) if result else '–'
      )
    yield [ARMS[arm].title, *cells, str(len(runs[arm]))]


@mpl.rc_context(pictures.STYLE)
def chart(decisions: Sequence[Decision]) -> Figure:
  """A row per claim and regime: the difference over the least of interest."""
  shown = [d for d in decisions if d.difference is not None]
  figure = Figure(figsize=(9, 0.28 * len(shown) + 1.2), layout='constrained')
  axis = figure.subplots()
  labels = []
  for row, decision in enumerate(shown):
    least, color = decision.claim.least, _COLORS[decision.verdict]
    value = decision.difference
    axis.plot(
      [value.low / least, value.high / least], [row, row], color=color, lw=2
    )
    axis.plot(
      [s / least for s in decision.seeds],
      [row] * len(decision.seeds),
      '.',
      color=color,
      ms=4,
      alpha=0.6,
    )
    axis.plot(value.value / least, row, 'o', color=color, ms=5)
    labels.append(
      f'{_title(decision.claim.better)} – {_title(decision.claim.worse)}; '
      f'{_COLUMNS[decision.claim.line]}; {REGIMES[decision.regime].title}'
    )
  axis.axvline(0, color=pictures.GREY, lw=0.8)
  axis.axvline(1, color=pictures.GREY, lw=0.8, ls=':')
  axis.set_yticks(range(len(labels)), labels, fontsize=7)
  axis.set_ylim(len(labels) - 0.4, -0.6)
  axis.set_xscale('symlog', linthresh=2)
  most = 1.2 * max(*map(abs, axis.dataLim.intervalx), 2.0)
  axis.set_xlim(-most, most)
  ticks = [t for t in _TICKS if t < most]
  axis.set_xticks(
    [*(-t for t in ticks[::-1]), 0, *ticks],
    [*(f'−{t}' for t in ticks[::-1]), '0', *map(str, ticks)],
  )
  axis.minorticks_off()
  axis.set_xlabel(
    'difference with the sign of the claim, in units of the smallest '
    'difference of interest (dotted)'
  )
  for verdict, color in _COLORS.items():
    axis.plot([], [], color=color, lw=2, label=verdict)
  figure.legend(loc='outside upper center', ncols=3, fontsize=8)
  return figure
