"""The page of results of the ablations, from hand-made evaluations."""

import re
import sys
from pathlib import Path

import commands
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'evaluation'))
import subject_files

from projects.ablations.plan import ARMS
from projects.ablations.results import write_results
from synermedgen_jax.evaluation.comparison import ComparisonError


def with_drift(content, offset):
  for of_route in content['synthesis'].values():
    for entry in of_route.values():
      entry['drift/nearest_offset'] = offset
  return content


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  root = tmp_path_factory.mktemp('runs')
  for seed in range(3):
    for arm, gain, offset in (
      ('full', 0.05, 0.2),
      ('only', 0.0, 0.2),
      ('no_cts', 0.05, 1.2),
      ('stage1', -0.1, 0.3),
    ):
      values = subject_files.record(
        brain=(0.5 + gain, 0.7 + gain),
        brats=(0.2 + gain, 0.4 + gain, 0.6 + gain),
      )
      subject_files.write_record(
        root / 'dropout', arm, with_drift(values, offset), seed
      )
  page = root / 'RESULTS.md'
  result = commands.run(
    'projects.ablations.run',
    f'--output={root}',
    '--regimes=dropout',
    '--results_only',
  )
  assert result[0] == 0, result[2]
  assert result[1].splitlines()[-1] == str(page)
  assert page.with_suffix('.png').read_bytes()[:4] == b'\x89PNG'
  return page.read_text()


def rows(text):
  table = text.partition('## How they were decided')[2].partition('\n## ')[0]
  cells = re.findall(r'^\| (.*) \|$', table, re.MULTILINE)
  return [row.split(' | ') for row in cells]


def row(text, arms, number):
  (found,) = [r for r in rows(text) if r[1:3] == [arms, number]]
  return found


def test_a_difference_of_every_subject_is_borne_out(text):
  found = row(text, f'Stage I + II – {ARMS["only"].title}', 'SSIM')
  assert found[4:] == [
    '55.0',
    '+5.0 [+5.0, +5.0]',
    '+5.0, +5.0, +5.0',
    '1',
    'borne out',
  ]


def test_the_first_regime_of_a_claim_decides_it_in_a_sentence(text):
  (sentence,) = re.findall(r'^\* (Understanding .*)$', text, re.MULTILINE)
  assert sentence.endswith(
    '**Borne out**: +5.0 [+5.0, +5.0] points, of interest from 1 (SSIM, '
    'condition dropout).'
  )
  (missing,) = re.findall(r'^\* (Two stages .*)$', text, re.MULTILINE)
  assert missing.endswith('**Not run**.')


def test_the_sentence_names_the_verdicts_of_other_regimes(tmp_path):
  for seed in range(3):
    for regime, gain in (('dropout', 0.05), ('plain', 0.001), ('coarse', 0.0)):
      for arm in ('full', 'only'):
        better = gain * (arm == 'full')
        values = subject_files.record(
          brain=(0.5 + better, 0.7 + better),
          brats=(0.2 + better, 0.4 + better, 0.6 + better),
        )
        subject_files.write_record(tmp_path / regime, arm, values, seed)
  page = tmp_path / 'RESULTS.md'
  regimes = dict.fromkeys(('dropout', 'plain', 'coarse'), ('full', 'only'))
  write_results(tmp_path, page, regimes)
  (sentence,) = re.findall(r'^\* (Understanding .*)$', page.read_text(), re.M)
  assert '**Borne out**: +5.0' in sentence
  assert sentence.endswith(
    'Elsewhere: refuted with no dropout and four ViT tokens.'
  )


def test_a_regime_that_does_not_decide_a_claim_has_no_sentence(tmp_path):
  for arm in ('full', 'only'):
    subject_files.write_record(
      tmp_path / 'plain', arm, subject_files.record(), 0
    )
  page = tmp_path / 'RESULTS.md'
  claims = write_results(tmp_path, page, {'plain': ('full', 'only')})
  assert 'no dropout' in claims
  assert '**Not' not in page.read_text()
  claims = page.read_text().partition('## How')[0]
  assert not re.findall(r'^\* ', claims, re.MULTILINE)


def test_a_folder_without_results_is_refused(tmp_path):
  page = tmp_path / 'RESULTS.md'
  with pytest.raises(ComparisonError, match='has no REGIME/SEED/ARM'):
    write_results(tmp_path, page, {'plain': ('full', 'only')})
  assert not page.exists()


def test_less_drift_supports_a_claim_about_drift(text):
  found = row(text, 'Stage I + II – without CTS', 'drift, slices')
  assert found[5].startswith('+1.00 [+1.00')
  assert found[7:] == ['0.1', 'borne out']


def test_a_baseline_is_compared_as_an_arm(text):
  # SSIM 0.5 and 0.3 against 0.25 of the unchanged source.
  found = row(text, 'Stage I, zero-shot – the unchanged source', 'SSIM')
  assert found[5].startswith('+15.0 [')


def test_what_was_not_run_is_said(text):
  found = row(text, 'Stage I + II – joint', 'SSIM')
  assert found[4:] == ['–', '–', '', '1', 'not run']
  (missing,) = re.findall(r'^Not run: (.*)\.$', text, re.MULTILINE)
  assert 'joint' in missing
  assert 'without CTS' not in missing


def test_a_regime_has_the_numbers_of_its_arms(text):
  table = text.partition('## Condition dropout')[2]
  assert re.search(r'^\| Stage I \+ II \| 55\.0 \[.*\| 0\.20 \[', table, re.M)
