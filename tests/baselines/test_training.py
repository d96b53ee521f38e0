"""Systems are trained by the loop of all runs: checkpoints and checks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import assert_refused, run
from etils.epath import Path
from store_fakes import CANVAS
from test_pair_data import two_subjects

from synermedgen_jax.baselines.adversarial import penalty
from synermedgen_jax.config.defaults import system_config
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.evaluation.measure import (
  MeasureError,
  MeasureSettings,
  measure,
)
from synermedgen_jax.inference.trained_system import (
  TrainedPairs,
  TrainedSystem,
  load_system,
)
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import flops, loop
from synermedgen_jax.training.build import build
from synermedgen_jax.training.introduction import introduce

pytestmark = pytest.mark.usefixtures('quick_compiles')
BOTH = ('brain_mr_to_ct', 'brain_ct_to_mr')


def config(stage, store, **values):
  config = system_config()
  config.stage = stage
  config.model = 'small'
  config.store = str(store)
  config.size = (24, 24)
  config.rows = 2
  config.learning_rate = 1e-3
  config.steps = config.checkpoint_every = config.log_every = 2
  config.val_every = 0
  config.routes = BOTH if stage == 'cyclegan' else BOTH[:1]
  config.scope = 'pair' if stage == 'cyclegan' else 'route'
  config.update(values)
  return config


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return two_subjects(tmp_path_factory.mktemp('pairs')).path


def train(config, workdir):
  return loop.train(build(config), Path(workdir))


def test_a_resumed_run_equals_one_that_was_not_interrupted(store, tmp_path):
  """Parameters, moments and the pool of earlier images."""
  whole = train(config('cyclegan', store, steps=4), tmp_path / 'whole')
  train(config('cyclegan', store, steps=2), tmp_path / 'halves')
  halves = train(config('cyclegan', store, steps=4), tmp_path / 'halves')
  assert int(halves.memory['first']['count']) == 8
  jax.tree.map(np.testing.assert_array_equal, halves, whole)


def test_a_workdir_synthesises_and_names_its_routes(store, tmp_path):
  state = train(config('unet', store), tmp_path / 'unet')
  trained = load_system(tmp_path / 'unet')
  assert isinstance(trained, TrainedSystem)
  assert trained.routes == BOTH[:1]
  assert trained.slices.canvas == (CANVAS, CANVAS)  # of the store
  slices = np.linspace(-1, 1, 3 * CANVAS**2, dtype=np.float32)
  slices = slices.reshape(3, CANVAS, CANVAS)
  route = route_named(BOTH[0])
  made = trained.synthesiser(batch_size=2).synthesise(route, slices[None])
  assert made.shape == slices.shape
  # The batch size changes nothing.
  other = trained.synthesiser(batch_size=4).synthesise(route, slices[None])
  np.testing.assert_allclose(made, other, atol=1e-5)
  saved = flatten(trained.params)
  assert saved.keys() == flatten(state.params).keys()
  for name, value in saved.items():
    np.testing.assert_array_equal(value, flatten(state.params)[name])


def test_a_folder_of_pairs_is_one_system(store, tmp_path):
  train(config('cyclegan', store), tmp_path / 'gan' / BOTH[0])
  trained = load_system(tmp_path / 'gan')
  assert isinstance(trained, TrainedPairs)
  assert trained.routes == tuple(sorted(BOTH))
  slices = np.zeros((1, CANVAS, CANVAS), np.float32)
  there, back = (
    trained.synthesiser().synthesise(route_named(name), slices[None])
    for name in BOTH
  )
  assert np.abs(there - back).max() > 1e-4


def test_a_system_translates_from_one_source(store_path, store, tmp_path):
  route = 'brats_t1+t2_to_flair'
  with pytest.raises(
    ConfigError,
    match=r'config\.routes: unet translates from one source, and '
    r'brats_t1\+t2_to_flair has 2; name routes with one source\.',
  ):
    build(config('unet', store_path, routes=(route,)))
  train(config('unet', store), tmp_path / 'unet')
  trained = load_system(tmp_path / 'unet')
  with pytest.raises(UserError, match=r'brats_t1\+t2_to_flair has 2 sources'):
    trained.synthesiser().synthesise(
      route_named(route), np.zeros((1, 1, CANVAS, CANVAS), np.float32)
    )
  slices = SliceStore.open(str(store))
  with pytest.raises(MeasureError, match=r'not trained on brats_t1\+t2_to_fl'):
    measure(
      trained, slices, slices.split('train'), MeasureSettings(routes=(route,))
    )


def test_a_folder_without_a_system_is_none(tmp_path):
  assert load_system(tmp_path / 'nowhere') is None
  (tmp_path / 'config.json').write_text(
    json.dumps({'config': {'stage': 'ucg'}})
  )
  assert load_system(tmp_path) is None


def test_a_folder_of_several_systems_is_refused(store, tmp_path):
  for stage in ('unet', 'resvit'):
    record = {'config': {'stage': stage, 'scope': 'route'}}
    (tmp_path / stage).mkdir()
    (tmp_path / stage / 'config.json').write_text(json.dumps(record))
  with pytest.raises(WorkdirError, match='several systems; name one of resvit'):
    load_system(tmp_path)


def test_a_system_is_measured_on_its_own_routes_alone(store, tmp_path):
  train(config('unet', store), tmp_path / 'unet')
  trained, slices = load_system(tmp_path / 'unet'), SliceStore.open(str(store))
  for settings, message in (
    (MeasureSettings(routes=BOTH), 'routes: unet was not trained on brain_ct'),
    (MeasureSettings(parts=('understanding',)), 'unet answers no questions'),
  ):
    with pytest.raises(MeasureError, match=message):
      measure(trained, slices, slices.split('train'), settings)
  asked = run('evaluate', f'--workdir={tmp_path / "unet"}', '--questions=2')
  assert_refused(asked, '--questions: has no effect')


@pytest.mark.parametrize('flag', ['--points=3', '--describe_first'])
def test_a_flag_of_sampling_is_refused_for_a_system(store, tmp_path, flag):
  workdir = tmp_path / 'unet'
  train(config('unet', store), workdir)
  why = f'{flag.partition("=")[0]}: has no effect, since U-Net regression'
  assert_refused(run('evaluate', f'--workdir={workdir}', flag), why)
  assert not (workdir / 'evaluation').exists()
  translated = run(
    'predict',
    f'--workdir={workdir}',
    '--input=mr.nii.gz',
    '--source=mr',
    '--target=ct',
    '--region=brain',
    f'--output={tmp_path}/ct.nii.gz',
    flag,
  )
  assert_refused(translated, why)


def test_a_system_answers_no_questions_of_a_file(store, tmp_path):
  workdir, file = tmp_path / 'unet', tmp_path / 'questions.jsonl'
  train(config('unet', store), workdir)
  turns = [{'from': 'human', 'value': '?'}, {'from': 'gpt', 'value': 'A'}]
  file.write_text(
    json.dumps({'image': [file.name] * 5, 'conversations': turns})
  )
  assert_refused(
    run('evaluate', f'--workdir={workdir}', f'--questions_file={file}'),
    '--questions_file: U-Net regression',
    'answers no questions',
  )


def test_a_penalty_counts_with_its_share_of_the_steps():
  x = jnp.ones((2, 8, 8, 8))
  plain = flops.count(jax.make_jaxpr(lambda x: x @ x)(x))['other']

  def squares(image):
    return (image @ image).sum((1, 2, 3))

  jaxpr = jax.make_jaxpr(lambda x, key: penalty(squares, x, key))
  inside = flops.count(jaxpr(x, jax.random.key(0)))['other']
  # A product forward and two backward, in a tenth of the steps.
  assert inside == pytest.approx(0.1 * 3 * plain)


def test_a_later_stage_starts_from_the_parameters_of_an_earlier_one(
  store, tmp_path
):
  size = {'size': (32, 32)}
  first = train(
    config('resvit', store, model='small_cnn', **size), tmp_path / 'cnn'
  )
  run = build(config('resvit', store, init_from=str(tmp_path / 'cnn'), **size))
  start = flatten(run.create().params)
  known = flatten(first.params)
  assert known.keys() < start.keys()
  for name, value in known.items():
    np.testing.assert_array_equal(start[name], value)


@pytest.mark.parametrize(
  ('stage', 'values', 'message'),
  [
    ('unet', {'scope': 'pair'}, "scope 'pair': unet is trained per route or"),
    ('cyclegan', {'scope': 'all'}, "scope 'all': cyclegan is trained per pair"),
    ('unet', {'routes': BOTH}, "scope 'route' needs the name of one route"),
    ('cyclegan', {'routes': BOTH[:1]}, "'pair' needs the two directions"),
    (
      'unet',
      {'model': 'huge'},
      r"config\.model: unknown preset 'huge' of unet",
    ),
    ('unet', {'rows': 0}, r'config\.rows 0: must be at least 1'),
    ('unet', {'decay': 'sudden'}, r"Unknown config\.decay 'sudden'"),
    ('unet', {'routes': ('pelvis_mr_to_ct',)}, r'config\.routes: no subject'),
    ('bbdm', {}, r"config\.model: 'small' of bbdm works in latents: name the"),
    ('unet', {'size': (24, 20)}, r'config\.size: images of 24 x 20 pixels'),
  ],
)
def test_a_wrong_config_is_refused_in_a_line_that_names_the_key(
  store, stage, values, message
):
  with pytest.raises(ConfigError, match=message):
    build(config(stage, store, **values))


def test_an_introduction_names_the_system_and_its_departures(store):
  text = introduce(build(config('pix2pix', store)))
  assert 'pix2pix, preset small' in text
  assert 'departures all networks are updated at once' in text
  assert '2 pairs of 24 pixels' in text
