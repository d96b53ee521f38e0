"""The evaluate command on stages that were trained for two steps."""

import json
import re
import shutil

import commands
import numpy as np
import pytest
from commands import ROOT, assert_refused
from store_fakes import CANVAS, USABLE, slice_of

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.evaluation import modality_classifier
from synermedgen_jax.evaluation.adherence import ADHERENCE
from synermedgen_jax.evaluation.synthesisers import SYNTHESISERS
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.interop.image_files import encode_png
from synermedgen_jax.slices.store import Case, SliceStore, StoreWriter
from synermedgen_jax.slices.windows import Window

pytestmark = pytest.mark.usefixtures('quick_compiles')
# What the fake store's subjects of each split serve.
ROUTES = {
  'test': {
    'brain_mr_to_ct': 'case5',
    'brain_ct_to_mr': 'case5',
    'pelvis_cbct_to_ct': 'case6',
    'pelvis_ct_to_cbct': 'case6',
  },
  'val': {'brain_mr_to_ct': 'case3', 'brain_ct_to_mr': 'case3'},
}
METHODS = {'copy_source', 'mean_target', 'ceiling'}
ACROSS_SLICES = {'roughness_z', 'ssim_3d'}
NO_METRICS = {
  *('count', 'unit', 'interval', 'better_baseline', 'difference', 'win'),
  *('full_frame', 'baselines'),
}
_ERRORS = ('mae', 'bias')
QUESTIONS = 6  # as many as there are pictures of


def evaluate(workdir, *flags):
  return commands.run('evaluate', f'--workdir={workdir}', *flags)


@pytest.fixture(scope='module')
def workdir(nano_runs, tmp_path_factory, quick_compiles):
  """Stage II, measured on the test subjects."""
  copy = tmp_path_factory.mktemp('measured') / 'stage2'
  shutil.copytree(nano_runs / 'stage2', copy)
  code, out, err = evaluate(copy, f'--questions={QUESTIONS}')
  assert code == 0, err
  (copy / 'out.txt').write_text(out)
  return copy


def metrics_of(workdir):
  return json.loads((workdir / 'evaluation' / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def metrics(workdir):
  return metrics_of(workdir)


def npz(path):
  with np.load(path) as arrays:
    return dict(arrays)


def shown(images):
  """The slices that these pictures are of."""
  return {slice_of(image[0, 0]) for image in images}


def test_understanding_has_accuracy_chance_and_count(metrics):
  result = metrics['understanding']
  assert result.keys() == {'cts', 'mi', 'tia'}
  for task, count in (('cts', 6), ('mi', 4 * 6), ('tia', 6)):
    assert 0 <= result[task]['accuracy'] <= 1
    assert result[task]['count'] == count
  assert result['cts']['chance'] == result['tia']['chance'] == 0.25


def test_modalities_asked_are_those_of_test_subjects(metrics):
  # The training subjects have the BraTS contrasts, too.
  assert metrics['understanding']['mi']['confusion']['truth'] == [
    'CT',
    'CBCT',
    'MRI',
  ]


def test_every_route_has_three_metrics_beside_its_baselines(metrics):
  assert metrics['synthesis'].keys() == ROUTES['test'].keys()
  for score in metrics['synthesis'].values():
    assert score['count'] == 1
    assert score['baselines'].keys() == METHODS
    for values in (score, *score['baselines'].values()):
      for part in (values, values['full_frame']):
        assert -1 <= part['ssim'] <= 1
        assert np.isfinite(part['psnr'])
        assert 0 <= part['mae'] <= 1  # the window is from 0 to 1


# A slice of the fake store is one grey level; a modality later is 8 levels
# more, a case later 64.
LEVEL = 1 / 65535


@pytest.mark.parametrize(
  ('route', 'levels'),
  [('pelvis_cbct_to_ct', 8), ('brain_mr_to_ct', 7 * 8), ('brain_ct_to_mr', 56)],
)
def test_the_copy_is_as_far_off_as_its_modality(metrics, route, levels):
  copy = metrics['synthesis'][route]['baselines']['copy_source']
  assert copy['mae'] == pytest.approx(levels * LEVEL, rel=1e-3)
  assert copy['full_frame']['mae'] == pytest.approx(levels * LEVEL, rel=1e-3)


@pytest.mark.parametrize('route', ROUTES['test'])
def test_the_mean_target_is_of_the_training_subjects(metrics, route):
  # The only one of each cohort comes five cases before that of the test.
  mean = metrics['synthesis'][route]['baselines']['mean_target']
  assert mean['mae'] == pytest.approx(5 * 64 * LEVEL, rel=1e-3)


def test_every_route_is_scored_across_slices_too(metrics, workdir):
  table = (workdir / 'out.txt').read_text()
  assert all(name in table for name in ACROSS_SLICES)
  assert 'Left out' not in table
  for score in metrics['synthesis'].values():
    for values in (score, *score['baselines'].values()):
      for part in (values, values['full_frame']):
        assert -1 <= part['ssim_3d'] <= 1
        assert part['roughness_z'] >= 0
    # In every modality of the fake store, a slice is one level above the last.
    copy = score['baselines']['copy_source']
    assert copy['roughness_z'] == pytest.approx(1, rel=1e-3)


def test_the_file_says_what_its_numbers_are(metrics, nano_runs):
  assert metrics['split'] == 'test'
  assert metrics['subjects'] == ['case5', 'case6']
  assert metrics['store'] == str(nano_runs / 'store')
  assert metrics['slices'] == 'all usable'
  assert metrics['sampling']['points'] == 2
  definition = metrics['definition']
  assert definition['understanding'].keys() == {'cts', 'mi', 'tia'}
  in_every_slice = {'ssim', 'psnr', 'mae', 'roughness'}
  assert definition['synthesis'].keys() == in_every_slice | ACROSS_SLICES
  assert metrics['left_out'] == {}
  for what in ('range', 'mask', 'full_frame', 'dimension', 'unit'):
    assert definition['synthesis']['ssim'][what]


def test_all_questions_are_about_test_subjects(workdir):
  folder = workdir / 'evaluation'
  images = npz(folder / 'understanding.npz')['images']
  asked = json.loads((folder / 'understanding.json').read_text())
  # Five pictures a question of CTS, four of MI, two and more of TIA.
  assert [q['task'] for q in asked] == ['cts'] * 6 + ['mi'] * 6 + ['tia'] * 6
  assert len(images) == sum(len(q['images']) for q in asked) >= 6 * (5 + 4 + 2)
  for question in asked:
    labels = {'cts': ['', *'ABCD'], 'mi': [*'ABCD'], 'tia': ['first', 'second']}
    assert question['letters'] == labels[question['task']]
    options = [line[-2:] for line in question['question'].splitlines()[1:]]
    letters = [' A', ' B', ' C', ' D'] if question['task'] == 'tia' else []
    assert options == letters
  slices = shown(images)
  assert {ref.case for ref in slices} == {'case5', 'case6'}
  assert {ref.index for ref in slices} <= set(USABLE)


def test_the_accuracy_is_that_of_the_answers_kept(workdir, metrics):
  path = workdir / 'evaluation' / 'understanding.json'
  for task in ('cts', 'tia'):
    right = [
      question['prediction'].strip()[:1] == question['answer']
      for question in json.loads(path.read_text())
      if question['task'] == task
    ]
    result = metrics['understanding'][task]['accuracy']
    assert result == sum(right) / QUESTIONS


@pytest.fixture(scope='module')
def by_subject(workdir):
  return json.loads((workdir / 'evaluation' / 'subjects.json').read_text())


def test_the_means_are_those_of_the_subjects(by_subject, metrics):
  for route, score in metrics['synthesis'].items():
    (entry,) = by_subject['synthesis'][route].values()
    for metric in ('ssim', 'psnr', 'mae'):
      assert entry[metric] == pytest.approx(score[metric])
      for name in METHODS:
        mean = score['baselines'][name][metric]
        assert entry['baselines'][name][metric] == pytest.approx(mean)


def test_the_accuracies_are_those_of_the_subjects(by_subject, metrics):
  assert by_subject['understanding'].keys() == {'cts', 'mi', 'tia'}
  for task, result in by_subject['understanding'].items():
    right, asked = (
      sum(answer[key] for answer in result['answers'])
      for key in ('right', 'asked')
    )
    score = metrics['understanding'][task]
    assert asked == score['count']
    assert right / asked == pytest.approx(score['accuracy'])
    assert result['chance'] == score['chance']


def test_subjects_are_named_with_what_they_were_asked(by_subject, nano_runs):
  assert by_subject['subjects'] == {
    'fake.subject5': 'fake',
    'fake.subject6': 'fake',
  }
  assert by_subject['settings'] == {
    'split': 'test',
    'slices': 0,
    'questions': QUESTIONS,
    'seed': 0,
    'neighbours': 3,
    'steps': [2],
    'store': SliceStore.open(nano_runs / 'store').fingerprint,
  }
  assert by_subject['sampling']['points'] == 2
  for result in by_subject['understanding'].values():
    asked = {answer['subject'] for answer in result['answers']}
    assert asked <= by_subject['subjects'].keys()


def test_stage_1_synthesises_when_it_is_asked_to(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  earlier = workdir / 'evaluation' / 'volumes' / 'brain_mr_to_ct'
  earlier.mkdir(parents=True)
  code, _, err = evaluate(workdir, '--parts=synthesis', '--slices=1')
  assert code == 0, err
  assert not earlier.exists()  # of other slices than these
  assert metrics_of(workdir)['synthesis'].keys() == ROUTES['test'].keys()
  assert metrics_of(workdir)['sampling']['points'] == 2


def weights_flags(nano_runs):
  return (
    f'--config={ROOT}/projects/ablations/configs/stage2.py',
    '--config.model=init_from',
    f'--config.init_from={nano_runs}/stage2',
    f'--config.store={nano_runs}/store',
    '--config.image.vit_size=16,16',
    '--config.image.vae_size=16,16',
  )


def test_weights_without_a_run_score_as_the_run(workdir, nano_runs, tmp_path):
  out = tmp_path / 'base'
  flags = weights_flags(nano_runs)
  code, _, err = evaluate(out, f'--questions={QUESTIONS}', *flags)
  assert code == 0, err
  assert metrics_of(out) == metrics_of(workdir)


def test_a_config_without_weights_is_refused(nano_runs, tmp_path):
  flags = weights_flags(nano_runs)
  assert_refused(
    evaluate(tmp_path, *flags, '--config.init_from='),
    'config.init_from is empty; set it',
  )


@pytest.mark.parametrize('route', ROUTES['test'])
def test_panels_show_slices_of_a_test_subject(workdir, route):
  panel = npz(workdir / 'evaluation' / 'panels' / f'{route}.npz')
  _, source, _, target = route.split('_')
  assert str(panel['case']) == ROUTES['test'][route]
  (shown,) = panel['source']
  for slices, modality in ((shown, source), (panel['truth'], target)):
    refs = [slice_of(image[0, 0]) for image in slices]
    assert [ref.index for ref in refs] == panel['indices'].tolist()
    assert {(r.case, r.modality) for r in refs} == {
      (ROUTES['test'][route], modality)
    }
  assert panel['synthesis'].shape == panel['truth'].shape
  assert np.abs(panel['synthesis']).max() <= 1


@pytest.mark.parametrize('route', ROUTES['test'])
def test_the_volume_of_the_only_subject_is_kept(workdir, route):
  (path,) = (workdir / 'evaluation' / 'volumes' / route).iterdir()
  assert path.name == 'median.npz'
  volumes = npz(path)
  assert volumes['synthesis'].shape == (len(USABLE), CANVAS, CANVAS)
  subjects = json.loads((workdir / 'evaluation' / 'subjects.json').read_text())[
    'synthesis'
  ][route]
  assert subjects[str(volumes['subject'])]['ssim'] == volumes['ssim']


def test_the_tables_are_printed(workdir):
  out = (workdir / 'out.txt').read_text()
  for name in ('CTS', 'MI', 'TIA', *ROUTES['test'], 'mean'):
    assert any(line.startswith(name) for line in out.splitlines())
  assert out.endswith(
    f'\nReport: synermedgen report --workdir={workdir}\n'
    f'{workdir}/evaluation/metrics.json\n'
  )


def test_a_second_run_finds_the_same_and_writes_it_to_another_folder(
  workdir, nano_runs, tmp_path
):
  again = tmp_path / 'again'
  code, out, err = evaluate(
    nano_runs / 'stage2', f'--questions={QUESTIONS}', f'--output={again}'
  )
  assert code == 0, err
  assert 'Report: ' not in out  # which reads a workdir
  assert out.endswith(f'\n{again}/evaluation/metrics.json\n')
  assert not (nano_runs / 'stage2' / 'evaluation').exists()
  files = [p for p in (workdir / 'evaluation').rglob('*') if p.is_file()]
  assert len(files) == 4 + 2 * len(ROUTES['test'])
  for path in files:
    assert (again / path.relative_to(workdir)).read_bytes() == path.read_bytes()


def test_nothing_but_progress_is_on_stderr(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  code, _, err = evaluate(workdir, '--questions=1')
  assert code == 0
  lines = err.replace('\r', '\n').split('\n')
  assert {' '.join(line.split()[:2]) for line in lines if line} == {
    'ask cts:',
    'ask mi:',
    'ask tia:',
  }


def test_stage_1_is_asked_and_does_not_synthesise(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  assert evaluate(workdir, '--questions=2')[0] == 0
  result = metrics_of(workdir)
  assert result['understanding']['cts']['count'] == 2
  assert result['definition'].keys() == {'understanding'}
  assert 'synthesis' not in result
  assert not (workdir / 'evaluation' / 'panels').exists()


def test_a_synthetic_ct_has_scores_of_volumes(nano_runs, tmp_path):
  store = tmp_path / 'store'
  writer = StoreWriter(str(store), {'canvas': CANVAS})
  windows = {Modality.CT: Window(-1000, 1000), Modality.MR: Window(0, 1)}
  shape = (10, CANVAS, CANVAS)
  rng = np.random.default_rng(0)
  for split in ('train', 'test'):
    case = Case(
      id=split,
      dataset='fake',
      subject=split,
      region=Region.BRAIN,
      modalities=windows,
      sources=dict.fromkeys(windows, ''),
      shape=shape,
      affine=tuple(map(tuple, np.eye(4).tolist())),
      plane='axial',
      usable=range(10),
    )
    volumes = {m: rng.uniform(-1, 1, shape).astype('f4') for m in windows}
    writer.write_case(case, volumes, np.ones(shape, bool))
  writer.finish({'train': 'train', 'test': 'test'})
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  names = 'synthrad2023,synthrad2025,tissue'
  flags = ('--parts=synthesis', f'--store={store}', f'--score={names}')
  code, out, err = evaluate(workdir, *flags)
  assert code == 0, err
  result = metrics_of(workdir)
  # The same voxels and unit as the MAE within the mask.
  mae = result['synthesis']['brain_mr_to_ct']['mae']
  for year, high in (('2023', 3000), ('2025', 3071)):
    scores = result[f'synthrad{year}']
    assert scores.keys() == {'brain_mr_to_ct'}
    assert scores['brain_mr_to_ct']['mae'] == pytest.approx(mae, rel=1e-4)
    assert scores['brain_mr_to_ct']['count'] == 1
    assert f'brain_mr_to_ct, SynthRAD{year}: MAE' in out
    stated = result['definition'][f'synthrad{year}']['range']
    assert f'[-1024, {high}]' in stated
  scores = result['tissue']['brain_mr_to_ct']
  assert scores.keys() == {
    *(f'{name}_{of}' for name in ('air', 'soft', 'bone') for of in _ERRORS),
    *('bone_dice', 'bone_hd95', 'count'),
  }
  (of_subject,) = json.loads(
    (workdir / 'evaluation' / 'subjects.json').read_text()
  )['synthesis']['brain_mr_to_ct'].values()
  assert of_subject['tissue/bone_mae'] == scores['bone_mae']
  (line,) = re.findall('^brain_mr_to_ct, tissues: .*', out, re.MULTILINE)
  assert f'bone MAE {scores["bone_mae"]:.1f} HU, bone bias' in line
  assert f'bone HD95 {scores["bone_hd95"]:.1f} mm' in line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ['--parts=synthesis', '--score=synthrad2023', '--slices=2'],
      '--score: scores of volumes need all slices',
    ),
    (
      ['--parts=synthesis', '--score=synthrad2023'],
      'has no body voxel at least 3 voxels from every face',
    ),
    (
      ['--parts=synthesis', '--score=brasyn', '--routes=brain_mr_to_ct'],
      'brasyn: no route has one of its targets',
    ),
    (
      ['--parts=understanding', '--score=brasyn'],
      'score: scores of volumes need synthesis',
    ),
    (['--score=synthrad'], '--score: unknown synthrad; expected some of'),
  ],
)
def test_scores_of_volumes_that_do_not_apply_are_refused(
  nano_runs, tmp_path, flags, message
):
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  assert_refused(evaluate(workdir, *flags), message)


def test_the_split_routes_slices_and_points_are_those_asked(
  nano_runs, tmp_path
):
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  code, out, err = evaluate(
    workdir,
    '--split=val',
    '--parts=synthesis',
    '--routes=brain_mr_to_ct',
    '--slices=2',
    '--points=3',
    '--volumes',
  )
  assert code == 0, err
  assert 'Left out: roughness_z, ssim_3d.' in out
  result = metrics_of(workdir)
  assert result['split'] == 'val'
  assert result['subjects'] == ['case3', 'case4']
  assert result['synthesis'].keys() == {'brain_mr_to_ct'}
  assert result['sampling']['points'] == 3
  assert result['slices'] == 2
  assert 'understanding' not in result
  panel = npz(workdir / 'evaluation' / 'panels' / 'brain_mr_to_ct.npz')
  assert str(panel['case']) == 'case3'
  # The middles of the two halves of slices 1 to 6, which are no neighbours.
  assert panel['indices'].tolist() == [2, 5]
  # All slices of the subject, and the same ones there.
  folder = workdir / 'evaluation' / 'volumes' / 'brain_mr_to_ct'
  volumes = npz(folder / 'median.npz')
  assert len(volumes['synthesis']) == len(USABLE)
  rows = [i - USABLE.start for i in (2, 5)]
  assert (
    abs((panel['truth'] + 1) * 127.5 - volumes['truth'][rows]).max() <= 0.501
  )
  assert result['left_out'] == dict.fromkeys(sorted(ACROSS_SLICES), 'case3')
  of_subjects = json.loads(
    (workdir / 'evaluation' / 'subjects.json').read_text()
  )
  (entry,) = of_subjects['synthesis']['brain_mr_to_ct'].values()
  score = result['synthesis']['brain_mr_to_ct']
  for values in (entry, score, score['full_frame']):
    for part in (values, *values.get('baselines', {}).values()):
      assert not ACROSS_SLICES & part.keys()
  assert result['definition']['synthesis'].keys() == score.keys() - NO_METRICS
  # Case 3 is three cases after the one to train on.
  mean = result['synthesis']['brain_mr_to_ct']['baselines']['mean_target']
  assert mean['mae'] == pytest.approx(3 * 64 * LEVEL, rel=1e-3)


def test_a_model_may_describe_the_source_first(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  flags = '--parts=synthesis', '--routes=brain_mr_to_ct', '--slices=1'
  scores = []
  for more in ([], ['--describe_first', '--describe_tokens=5']):
    code, _, err = evaluate(workdir, *flags, *more)
    assert code == 0, err
    result = metrics_of(workdir)
    scores.append(result['synthesis']['brain_mr_to_ct']['mae'])
    assert result['sampling']['describe_tokens'] == (5 if more else 0)
  assert np.isfinite(scores).all()
  assert scores[0] != scores[1]


IDLE = {
  'no synthesis': (['--parts=understanding'], 'since no slice is synthesised'),
  'another model': (
    ['--parts=synthesis', '--synthesiser=copies_of_a_test'],
    'since copies_of_a_test synthesises in its own way',
  ),
}


@pytest.mark.parametrize('kind', IDLE)
def test_a_flag_of_sampling_without_effect_is_refused(
  nano_runs, tmp_path, monkeypatch, kind
):
  monkeypatch.setitem(SYNTHESISERS, 'copies_of_a_test', None)
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  flags, why = IDLE[kind]
  result = evaluate(workdir, *flags, '--shift=2')
  assert_refused(result, f'--shift: has no effect, {why}; leave it out.')
  assert not (workdir / 'evaluation').exists()


def questions_file(folder, count=3):
  """Questions about pictures, whose right letters are A, B, C, ..."""
  (folder / 'pictures').mkdir(parents=True)
  rng = np.random.default_rng(0)
  names = [f'pictures/{i}.png' for i in range(5)]
  for name in names:
    (folder / name).write_bytes(encode_png(rng.uniform(-1, 1, (20, 24))))
  lines = []
  for number, letter in enumerate('ABCD'[:count]):
    turns = [
      {'from': 'human', 'value': '<image> Which one? [A,B,C,D]'},
      {'from': 'gpt', 'value': letter},
    ]
    row = {'image': names, 'conversations': turns, 'id': number}
    if number:
      row['pair'] = {'src': 't1', 'tgt': 't2'}
    lines.append(json.dumps(row) + '\n')
  path = folder / 'questions.jsonl'
  path.write_text(''.join(lines))
  return path


def test_questions_of_a_file_are_scored_without_a_store(
  nano_runs, tmp_path, monkeypatch
):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  monkeypatch.setattr(SliceStore, 'open', None)
  asked = []

  def answer(self, examples, *, progress):
    asked.extend(examples)
    return ['Option B.', 'B', 'no idea']

  monkeypatch.setattr(Answerer, 'answer', answer)
  path = questions_file(tmp_path / 'data')
  code, out, err = evaluate(workdir, f'--questions_file={path}')
  assert code == 0, err
  assert [len(example.prompt.spans) for example in asked] == [6] * 3
  folder = workdir / 'evaluation' / 'questions'
  metrics = json.loads((folder / 'metrics.json').read_text())
  assert metrics['file'] == str(path)
  assert metrics['questions']['accuracy'] == pytest.approx(1 / 3)
  assert metrics['questions']['confusion'] == {
    'truth': ['A', 'B', 'C'],
    'given': ['A', 'B', 'C', 'unread'],
    'counts': [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
  }
  assert metrics['pairs']['t1->t2'] == {
    'accuracy': 0.5,
    'chance': 0.25,
    'count': 2,
  }
  assert 'accuracy' in metrics['definition']
  answers = json.loads((folder / 'answers.json').read_text())
  assert answers[0] == {
    'line': 1,
    'id': 0,
    'pair': 'not stated',
    'answer': 'A',
    'given': 'B',
    'prediction': 'Option B.',
  }
  assert re.search(r'^t1->t2 +0\.500 +0\.250 +2$', out, re.MULTILINE)
  assert re.search(r'^all +0\.333 +0\.250 +3$', out, re.MULTILINE)
  assert not (workdir / 'evaluation' / 'metrics.json').exists()


def test_a_model_answers_the_questions_of_a_file(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  path = questions_file(tmp_path / 'data').rename(tmp_path / 'moved.jsonl')
  code, _, err = evaluate(
    workdir,
    f'--questions_file={path}',
    f'--images={tmp_path / "data"}',
    '--batch_size=2',
  )
  assert code == 0, err
  folder = workdir / 'evaluation' / 'questions'
  answers = json.loads((folder / 'answers.json').read_text())
  assert [answer['answer'] for answer in answers] == ['A', 'B', 'C']
  assert all(isinstance(answer['prediction'], str) for answer in answers)


def test_a_missing_picture_is_refused_before_the_model_is_loaded(
  nano_runs, tmp_path, monkeypatch
):
  path = questions_file(tmp_path / 'data')
  (tmp_path / 'data' / 'pictures' / '3.png').unlink()
  monkeypatch.setattr(Trained, 'load', None)
  assert_refused(
    evaluate(nano_runs / 'stage1', f'--questions_file={path}'),
    f'Error: {path}: line 1: no such picture ',
    'pictures/3.png',
  )


IDLE_WITH_FILE = {
  'points': (['--points=3'], '--points: has no effect, since --questions_file'),
  'of a store': (
    ['--split=val', '--questions=5'],
    '--split, --questions: not for --questions_file',
  ),
}


@pytest.mark.parametrize('kind', IDLE_WITH_FILE)
def test_a_flag_without_effect_on_a_file_is_refused(nano_runs, tmp_path, kind):
  flags, message = IDLE_WITH_FILE[kind]
  path = questions_file(tmp_path / 'data')
  assert_refused(
    evaluate(nano_runs / 'stage1', f'--questions_file={path}', *flags), message
  )


def test_a_folder_of_images_needs_a_file_of_questions(nano_runs, tmp_path):
  assert_refused(
    evaluate(nano_runs / 'stage1', f'--images={tmp_path}'),
    '--images: has no effect without --questions_file',
  )


def without(store, split, path):
  """A copy of the store in which nobody is in that split."""
  shutil.copytree(store, path)
  manifest = path / 'manifest.jsonl'
  text = manifest.read_text()
  assert f'"split": "{split}"' in text
  manifest.write_text(text.replace(f'"split": "{split}"', '"split": "holdout"'))
  return path


REFUSED = {
  'autoencoder': (
    [],
    'stage: autoencoder trains neither understanding nor synthesis',
  ),
  'route': (
    ['--routes=brain_ct_to_pet'],
    "--routes: Unknown route 'brain_ct_to_pet'",
  ),
  'part': (['--parts=answers'], '--parts: unknown answers; expected'),
  'store': (['--store=nowhere'], 'nowhere: holds no slice store'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_what_cannot_be_measured_is_refused(nano_runs, tmp_path, kind):
  flags, message = REFUSED[kind]
  stage = 'autoencoder' if kind == 'autoencoder' else 'stage2'
  workdir = shutil.copytree(nano_runs / stage, tmp_path / stage)
  assert_refused(evaluate(workdir, *flags), message)
  assert not (workdir / 'evaluation').exists()


def test_volumes_without_synthesis_are_refused(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  assert_refused(
    evaluate(workdir, '--slices=1', '--volumes'),
    '--volumes: has no effect, since no slice is synthesised',
  )


def test_a_split_without_subjects_is_refused(nano_runs, tmp_path):
  store = without(nano_runs / 'store', 'test', tmp_path / 'store')
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  assert_refused(
    evaluate(workdir, f'--store={store}'),
    f"{store}: has no subject in split 'test'; choose another --split.",
  )


def test_a_store_without_training_subjects_has_no_mean_target(
  nano_runs, tmp_path
):
  store = without(nano_runs / 'store', 'train', tmp_path / 'store')
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  flags = f'--store={store}', '--parts=synthesis', '--slices=1'
  code, out, err = evaluate(workdir, *flags)
  assert code == 0, err
  result = metrics_of(workdir)
  for score in result['synthesis'].values():
    assert score['baselines'].keys() == {'copy_source', 'ceiling'}
    assert score['better_baseline'] == 'copy_source'
  assert result['summary']['better_baseline'] == 'copy_source'
  # Copy, mean and ceiling.
  assert re.search(r'^mean +0\.\d+ +[0-9.]+ +- +0\.\d+', out, re.MULTILINE)
  assert commands.run('report', f'--workdir={workdir}')[0] == 0


def test_a_folder_that_holds_no_stage_is_refused(tmp_path):
  assert_refused(evaluate(tmp_path), f'{tmp_path}: has no config.json; train')


def test_a_stage_without_a_checkpoint_is_refused(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  shutil.rmtree(workdir / 'checkpoints' / '2')
  assert_refused(
    evaluate(workdir), f'{workdir}/checkpoints: has no complete checkpoint.'
  )


@pytest.fixture(scope='module')
def adherence(nano_runs, tmp_path_factory, quick_compiles):
  """Stage II with all scores of adherence; the classifier learns nothing."""
  copy = tmp_path_factory.mktemp('adherence') / 'stage2'
  shutil.copytree(nano_runs / 'stage2', copy)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(modality_classifier, '_STEPS', 1)
    code, out, err = evaluate(
      copy,
      '--parts=synthesis',
      '--slices=2',
      '--routes=brain_mr_to_ct,pelvis_ct_to_cbct',
      f'--adherence={",".join(ADHERENCE)}',
    )
  assert code == 0, err
  return copy, out


def test_adherence_is_measured_where_it_is_asked_for(adherence):
  workdir, out = adherence
  result = metrics_of(workdir)
  subjects = json.loads((workdir / 'evaluation/subjects.json').read_text())
  for name, score in ADHERENCE.items():
    assert result['definition'][name] == score.definition
    assert result[name].keys() == {'brain_mr_to_ct', 'pelvis_ct_to_cbct'}
    (entry,) = subjects['synthesis']['brain_mr_to_ct'].values()
    for number in score.numbers:
      value = result[name]['brain_mr_to_ct'][number]
      assert entry[f'{name}/{number}'] == value
    assert f'mean of 2 routes, {score.title}: ' in out


def test_the_report_has_a_table_of_each_score_of_adherence(adherence):
  workdir, _ = adherence
  code, _, err = commands.run('report', f'--workdir={workdir}')
  assert code == 0, err
  page = (workdir / 'report' / 'index.html').read_text()
  for score in ADHERENCE.values():
    assert score.title in page


def test_adherence_needs_synthesis(nano_runs):
  result = evaluate(
    nano_runs / 'stage2', '--parts=understanding', '--adherence=drift'
  )
  assert_refused(result, 'adherence: needs synthesis; add it to the parts.')
