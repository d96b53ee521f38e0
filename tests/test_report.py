import base64
import re
from html.parser import HTMLParser

import commands
import numpy as np
import pytest
from commands import assert_refused
from report_fakes import (
  NASTY,
  SHAPE,
  route_scores,
  write_evaluation,
  write_panel,
  write_questions,
  write_stage,
  write_volumes,
)

from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.evaluation.subjects import ResultError
from synermedgen_jax.reporting.results import read_evaluation
from synermedgen_jax.reporting.run_report import report

NAMES = [route.name for route in ROUTES]


@pytest.mark.parametrize(
  ('name', 'lead'),
  [(NAMES[0], ()), (NAMES[0], (1,)), ('brats_t1+t2_to_flair', (2,))],
  ids=['without an axis of sources', 'one source', 'two sources'],
)
def test_a_panel_has_as_many_sources_as_its_route(tmp_path, name, lead):
  source = np.random.default_rng(1).uniform(-1, 1, (*lead, 1, 12, 12))
  windows = np.broadcast_to(np.float32([0, 900]), (*lead, 2))
  folder = write_evaluation(tmp_path, [name])
  path = folder / 'panels' / f'{name}.npz'
  write_panel(path, source=source, source_window=windows)
  panel = read_evaluation(tmp_path).panels[name]
  assert panel.route.name == name
  count = len(panel.route.sources)
  assert panel.sources.shape == (count, 1, 12, 12)
  assert panel.source_windows == ((0, 900),) * count


@pytest.mark.parametrize('lead', [(), (1,), (3,)])
def test_a_panel_with_too_few_or_many_sources_is_named(tmp_path, lead):
  name = 'brats_t1+t2_to_flair'
  folder = write_evaluation(tmp_path, [name])
  write_panel(
    folder / 'panels' / f'{name}.npz',
    source=np.zeros((*lead, 1, 12, 12)),
    source_window=np.broadcast_to(np.float32([0, 900]), (*lead, 2)),
  )
  with pytest.raises(ResultError, match=r'not 2 source\(s\) are shown'):
    read_evaluation(tmp_path)


RECORDS = [
  {'task': 'cts', 'answer': 'A', 'prediction': 'A'},
  {
    'task': 'mi',
    'answer': 'A CT B PET C CT D MRI',
    'prediction': 'A CT B PET C CT D CT',
  },
]


class Page(HTMLParser):
  """The tags, attributes and text of a page."""

  def __init__(self, path):
    super().__init__()
    self.tags, self.attributes, self.words, self.open = [], [], [], []
    self.source = path.read_text()
    self.feed(self.source)
    assert not self.open, f'not closed: {self.open}'
    self.text = ' '.join(' '.join(self.words).split())
    self.drawings = self.source.count('class="drawing"')

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in ('meta', 'input'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('style', 'script'):
      self.words.append(data)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of three stages with everything there is to show."""
  root = tmp_path_factory.mktemp('run')
  first = write_stage(root / 'autoencoder', 'autoencoder')
  second = write_stage(root / 'stage1', 'gau', first)
  third = write_stage(root / 'stage2', 'ucg', second, note=NASTY)
  evaluation = write_evaluation(
    third, NAMES, RECORDS, subjects=('1', '2'), store=f'runs/{NASTY}'
  )
  for name in NAMES:
    write_volumes(evaluation, name)
  written = report(third, third / 'report')
  return third / 'report', written, Page(third / 'report' / 'index.html')


def test_a_whole_run_has_a_page_and_every_picture(whole):
  output, written, _ = whole
  names = [
    'loss_curves',
    'route_bars',
    'understanding',
    'confusion_mi',
    'overview',
  ]
  names += [f'panels/{name}' for name in NAMES]
  pictures = {output / f'{name}.png' for name in names}
  assert set(written) == {
    *pictures,
    output / 'subjects.csv',
    output / 'index.html',
  }
  assert {p for p in output.rglob('*') if p.is_file()} == set(written)
  for path in pictures:
    assert path.read_bytes().startswith(b'\x89PNG')


def test_the_page_has_every_route_with_its_picture(whole):
  page = whole[2]
  for route in ROUTES:
    assert route.name in page.text
    title = f'{route.region.label} {route.source.label} → {route.target.label}'
    assert title in page.text
  assert page.drawings == 5  # the viewer has the slices of every route
  assert page.text.count('✓ win') == len(NAMES)


def test_the_page_has_the_numbers(whole):
  text = whole[2].text
  assert (
    'mean SSIM 0.575 copy source, the better trivial baseline: 0.500' in text
  )
  assert 'routes won 22 of 22' in text
  assert 'ceiling, mean SSIM 0.900' in text
  assert 'CTS accuracy 1.000 chance 0.250, 1 questions' in text
  assert 'MI accuracy 0.750 chance 0.500, 4 panels' in text
  assert 'ssim.mask the body mask' in text
  assert 'sampling.points 50' in text
  assert 'version of jax 0.10.2' in text


def test_the_page_stands_alone(whole):
  page = whole[2]
  assert not {'link', 'iframe', 'img'} & set(page.tags)
  for name, value in page.attributes:
    if name in ('src', 'href', 'xlink:href'):
      assert value.startswith(('#', 'data:'))
  assert not re.search(r'https?:|url\((?!#)|@import', page.source)


def test_every_entry_of_the_contents_is_a_section(whole):
  page = whole[2]
  targets = {v for name, v in page.attributes if name == 'href'}
  identifiers = {f'#{v}' for name, v in page.attributes if name == 'id'}
  assert {t for t in targets if t[0] == '#'} <= identifiers
  assert {'#worst', '#viewer-section', '#settings'} <= targets


def test_the_worst_case_comes_first_and_the_csv_has_every_subject(whole):
  output, _, page = whole
  _, _, after = page.text.partition('Worst cases subject route SSIM')
  # The subjects have 0.6 and 0.55.
  assert '0.550 0.575 20.0 30 HU' in after[:200]
  rows = (output / 'subjects.csv').read_text().splitlines()
  assert len(rows) == 1 + 2 * len(NAMES)
  head = rows[0].split(',')
  assert head[:6] == ['route', 'subject', 'dataset', 'ssim', 'psnr', 'mae']
  assert head[6:9] == [f'copy_source/{n}' for n in ('ssim', 'psnr', 'mae')]
  (link,) = (v for _, v in page.attributes if v and v.startswith('data:text'))
  content = base64.b64decode(link.partition('base64,')[2]).decode()
  assert content.splitlines() == rows


def test_text_from_the_run_is_escaped(whole):
  page = whole[2]
  assert NASTY not in page.source
  assert page.text.count(NASTY) >= 2  # the note in the config, the store
  assert not any('<b' in value for _, value in page.attributes if value)


def test_stages_come_first_to_last(whole):
  text = whole[2].text
  order = [text.index(name) for name in ('Stage 0', 'Stage I,', 'Training')]
  assert order[2] < order[0] < order[1]


def test_nothing_is_missing_from_a_whole_run(whole):
  assert ('class', 'note') not in whole[2].attributes


def page_of(workdir):
  report(workdir, workdir / 'report')
  return Page(workdir / 'report' / 'index.html')


def test_a_stage_1_has_no_synthesis_and_says_what_trains_it(tmp_path):
  workdir = write_stage(tmp_path / 'stage 1', 'gau')
  write_evaluation(workdir, records=RECORDS)
  page = page_of(workdir)
  assert 'configs/stage2.py' in page.text
  assert f"--config.init_from='{workdir}'" in page.text
  assert 'MI accuracy 0.750' in page.text
  assert 'SSIM per route' not in page.source


def test_a_run_that_was_not_measured_has_curves_and_the_command(tmp_path):
  workdir = write_stage(tmp_path / 'stage2', 'ucg')
  page = page_of(workdir)
  command = f'python -m synermedgen_jax.evaluate --workdir={workdir}'
  assert command in page.text
  assert page.drawings == 1


def test_an_autoencoder_has_curves_alone(tmp_path):
  page = page_of(write_stage(tmp_path, 'autoencoder'))
  assert 'report on a later stage' in page.text
  assert 'synermedgen_jax.evaluate' not in page.text


def test_a_run_without_steps_says_so(tmp_path):
  page = page_of(write_stage(tmp_path, 'gau', rows=[]))
  assert 'the curves of Stage I' in page.text
  assert page.drawings == 0


def test_a_missing_earlier_stage_is_left_out_with_a_line(tmp_path):
  workdir = write_stage(tmp_path / 'stage1', 'gau', tmp_path / 'gone')
  page = page_of(workdir)
  assert f'started from {tmp_path / "gone"}' in page.text
  assert page.drawings == 1


def test_an_earlier_stage_is_found_from_the_current_folder(
  tmp_path, monkeypatch
):
  write_stage(tmp_path / 'runs' / 'autoencoder', 'autoencoder')
  workdir = write_stage(tmp_path / 'runs' / 's1', 'gau', 'runs/autoencoder')
  monkeypatch.chdir(tmp_path)
  assert 'Stage 0, autoencoder' in page_of(workdir).text


def test_some_routes_without_pictures_and_ceiling(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  names = NAMES[:3]
  scores = route_scores(names, ceiling=False)
  write_evaluation(workdir, names, panels=NAMES[1:2], **scores)
  # Left by an earlier evaluation: not among those measured.
  write_panel(workdir / 'evaluation' / 'panels' / f'{NAMES[9]}.npz')
  page = page_of(workdir)
  assert f'No pictures of {NAMES[0]}, {NAMES[2]}.' in page.text
  assert 'Understanding has not been measured' in page.text
  assert 'routes won 3 of 3' in page.text
  assert '19 of 22 not scored' in page.text
  assert NAMES[9] not in page.text
  assert 'ceiling, mean SSIM' not in page.text


def test_scores_of_a_challenge_have_a_table(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  values = {'mae': 61.25, 'psnr': 28.5, 'ssim': 0.87654}
  scores = {'synthrad2023': {'brain_mr_to_ct': values}}
  write_evaluation(workdir, ['brain_mr_to_ct'], **scores)
  text = page_of(workdir).text
  _, _, after = text.partition('Scores of SynthRAD2023')
  numbers = [after.index(number) for number in ('61.2', '28.5', '0.8765')]
  assert numbers == sorted(numbers)
  assert 'SynthRAD2025' not in text


def test_scores_have_headings_with_units_subjects_and_definitions(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  values = {'bone_bias': -310.25, 'bone_dice': 0.4912, 'count': 6}
  write_evaluation(
    workdir,
    ['brain_mr_to_ct'],
    tissue={'brain_mr_to_ct': values},
    definition={'tissue': {'bone': 'at least 250 HU'}, 'win': {}},
  )
  text = page_of(workdir).text
  _, _, after = text.partition('Scores of tissues')
  assert 'bone bias (HU) bone Dice bone HD95 (mm)' in after
  # A number that a route does not have is a dash.
  assert 'brain MRI → CT 6 – – – – – −310.2 0.4912 –' in after
  assert 'definitions bone at least 250 HU' in after


def test_intervals_stand_beside_their_means(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  name = 'brain_mr_to_ct'
  metrics = route_scores([name])
  metrics['synthesis'][name] |= {
    'interval': [0.51, 0.72],
    'difference': [0.1, -0.02, 0.21],
  }
  write_evaluation(workdir, [name], **metrics)
  text = page_of(workdir).text
  assert '0.510–0.720 0.500 0.400 0.900 +0.100 −0.020 to +0.210' in text


def test_a_run_without_volumes_names_the_command_that_writes_them(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  write_evaluation(workdir, NAMES[:1], RECORDS)
  page = page_of(workdir)
  assert f'evaluate --workdir={workdir} --volumes' in page.text
  assert 'NVImage' not in page.source
  assert 'id="viewer"' not in page.source


def test_the_page_stays_below_its_limit_and_says_what_it_left_out(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  evaluation = write_evaluation(workdir, NAMES[:1], RECORDS)
  rng = np.random.default_rng(0)
  for kind in ('worst', 'median', 'best'):
    noise = rng.integers(0, 256, SHAPE, np.uint8)
    write_volumes(evaluation, NAMES[0], kinds=(kind,), truth=noise)
  report(workdir, tmp_path / 'all')
  size = (tmp_path / 'all' / 'index.html').stat().st_size
  report(workdir, tmp_path / 'less', megabytes=(size - 500) / 1e6)
  less = tmp_path / 'less' / 'index.html'
  assert less.stat().st_size <= size - 500
  text = Page(less).text
  assert '1 of 3 cases are not in the viewer' in text
  assert f'report --workdir={workdir} --megabytes=' in text


def test_volumes_of_routes_that_were_not_measured_are_not_shown(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  evaluation = write_evaluation(workdir, NAMES[:1], RECORDS)
  write_volumes(evaluation, NAMES[0], kinds=('worst',))
  write_volumes(evaluation, NAMES[4], kinds=('worst',))
  page = page_of(workdir)
  assert page.source.count('"group": ') == 1


def test_a_panel_has_the_ssim_of_its_own_subject(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  write_evaluation(workdir, NAMES[:1], subjects=('2', '1'))
  # The panel shows subject 1, the second: 0.6 − 0.05; the mean is 0.575.
  assert 'Subject 1: SSIM 0.550' in page_of(workdir).text


def test_a_line_that_is_being_written_is_not_read(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  before = page_of(workdir)
  log = workdir / 'metrics.jsonl'
  whole = log.read_text()
  log.write_text(whole + '{"step": 15, "lo')
  assert page_of(workdir).source == before.source
  log.write_text(whole + '{"step": 15, "loss": 0.5}\n')
  assert page_of(workdir).source != before.source


def evaluated(tmp_path):
  workdir = write_stage(tmp_path, 'ucg')
  return workdir, write_evaluation(workdir, NAMES[:1], RECORDS)


def replace(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


BAD = {
  'no config': (
    lambda w, e: (w / 'config.json').unlink(),
    'no config.json; train',
  ),
  'config': (
    lambda w, e: (w / 'config.json').write_text('{'),
    'config.json: is not JSON',
  ),
  'stage': (
    lambda w, e: replace(w / 'config.json', '"stage"', '"phase"'),
    'config.json: config.stage: expected text, got nothing; train',
  ),
  'loop': (
    lambda w, e: write_stage(w, 'ucg', w),
    'config.json: init_from leads back',
  ),
  'row': (
    lambda w, e: replace(w / 'metrics.jsonl', '{"step": 5', '{"step": "x"'),
    'metrics.jsonl: line 1 is not a row',
  ),
  'metrics': (
    lambda w, e: (e / 'metrics.json').write_text('[]'),
    'metrics.json: content: expected an object',
  ),
  'route': (
    lambda w, e: replace(e / 'metrics.json', NAMES[0], 'brain_ct_to_pet'),
    "metrics.json: synthesis has an unknown 'brain_ct_to_pet'",
  ),
  'number': (
    lambda w, e: replace(e / 'metrics.json', '"win": true', '"win": "yes"'),
    'win: expected true or false',
  ),
  'summary': (
    lambda w, e: replace(e / 'metrics.json', '"summary"', '"summery"'),
    'metrics.json: summary: expected an object, got nothing',
  ),
  'npz': (
    lambda w, e: (e / 'panels' / f'{NAMES[0]}.npz').write_bytes(b'PK\x03\x04'),
    f'{NAMES[0]}.npz: cannot be read',
  ),
  'pickle': (
    lambda w, e: write_panel(
      e / 'panels' / f'{NAMES[0]}.npz', subject=np.array([{}])
    ),
    f'{NAMES[0]}.npz: cannot be read',
  ),
  'shapes': (
    lambda w, e: write_panel(
      e / 'panels' / f'{NAMES[0]}.npz', mask=np.ones((2, 2), bool)
    ),
    f'{NAMES[0]}.npz: source, synthesis, truth and mask differ',
  ),
  'plane': (
    lambda w, e: write_panel(
      e / 'panels' / f'{NAMES[0]}.npz', plane=np.array('oblique')
    ),
    'unknown plane oblique',
  ),
  'window': (
    lambda w, e: write_panel(
      e / 'panels' / f'{NAMES[0]}.npz', target_window=np.float32([1000, 1000])
    ),
    'a window must be two values, the lower one first',
  ),
  'difference': (
    lambda w, e: replace(
      e / 'metrics.json', '"difference": [', '"difference": [1,'
    ),
    'difference: expected 3 numbers or null',
  ),
  'volumes': (
    lambda w, e: write_volumes(e, NAMES[0], mask=np.ones((2, 2, 2), bool)),
    'worst.npz: volumes differ in shape',
  ),
  'subjects': (
    lambda w, e: (e / 'subjects.json').write_text('{'),
    'subjects.json: cannot be read',
  ),
  'images': (
    lambda w, e: write_questions(e, images=[0, 1, 2, 3, 9]),
    'understanding.json: [0] names images',
  ),
  'letters': (
    lambda w, e: write_questions(e, letters=['A']),
    'understanding.json: [0] is not a question',
  ),
  'no images': (
    lambda w, e: (e / 'understanding.npz').unlink(),
    'understanding.npz: cannot be read',
  ),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_file_is_named_in_one_line_and_nothing_is_written(kind, tmp_path):
  spoil, message = BAD[kind]
  workdir, evaluation = evaluated(tmp_path)
  spoil(workdir, evaluation)
  with pytest.raises(ResultError) as error:
    report(workdir, tmp_path / 'report')
  assert message in str(error.value)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'report').exists()


def test_the_command_prints_what_it_wrote(tmp_path):
  workdir = write_stage(tmp_path / 'run', 'gau')
  code, out, _ = commands.run(
    'report', f'--workdir={workdir}', f'--output={tmp_path / "out"}'
  )
  assert code == 0
  assert out.splitlines() == [
    'Pictures: 1',
    str(tmp_path / 'out' / 'index.html'),
  ]


def test_the_command_prints_the_route_table_before_the_page(tmp_path):
  names = ['brain_mr_to_ct', 'brats_t1_to_t2']
  workdir = write_stage(tmp_path, 'ucg')
  write_evaluation(workdir, names, RECORDS)
  code, out, _ = commands.run('report', f'--workdir={workdir}')
  assert code == 0
  lines = out.splitlines()
  (first,) = (i for i, line in enumerate(lines) if line.startswith(names[0]))
  assert '0.575' in lines[first]
  assert lines[first + 1].startswith(names[1])
  assert lines[-1] == str(workdir / 'report' / 'index.html')
  assert (workdir / 'report' / 'route_bars.png').is_file()


def test_the_command_ends_with_one_line_and_exit_code_1(tmp_path):
  assert_refused(
    commands.run('report', f'--workdir={tmp_path}'),
    f'Error: {tmp_path}: has no config.json; train a stage in it with '
    'python -m synermedgen_jax.main.',
  )
