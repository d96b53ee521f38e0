"""Hand-computed losses of a stub model with known outputs."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.core.batch import Layout
from synermedgen_jax.training import objectives
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.token_losses import token_losses

pytestmark = pytest.mark.usefixtures('quick_compiles')

TASKS = ('cts', 'mi', 'tia')
CTS, MI = TASKS.index('cts'), TASKS.index('mi')


class Stub:
  """A model without layers: what it embeds, it answers.

  Its parameters are `und`, the hidden states of text; `latents`, the clean
  ones of a row; `lm_head`, whose kernel makes logits of
  hidden states.
  """

  config = types.SimpleNamespace(latent_stride=2, generation='flow', detail=0)

  def __init__(self):
    self.embedded = None

  def apply(self, variables, *arguments, method):
    return getattr(self, method.__name__)(variables['params'], *arguments)

  def bind(self, variables):
    names = ('velocity', 'row_latents', 'embed_batch', 'backbone')
    names += ('moments', 'decode_raw')
    return types.SimpleNamespace(
      **{
        name: functools.partial(getattr(self, name), variables['params'])
        for name in names
      }
    )

  def logits(self, params, hidden):
    return hidden @ params['lm_head']['kernel']

  def velocity(self, params, hidden):
    return hidden

  def row_latents(self, params, batch):
    return params['latents']

  def embed_batch(self, params, batch, latents, t):
    self.embedded = latents, t
    streams = {'und': params['und']}
    return streams if latents is None else streams | {'gen': latents}

  def backbone(self, params, streams, detach_und):
    return streams, None

  def moments(self, params, images):
    grid = jnp.ones((len(images), 2, 2, 1))
    return 2.0 * grid, jnp.log(4.0) * grid

  def decode_raw(self, params, z):
    return jnp.full((len(z), 4, 4, 1), 0.5)


def layout(example_ids) -> Layout:
  return Layout(*[jnp.zeros_like(example_ids)] * 4, example_ids=example_ids)


def batch(**fields):
  """A packed batch with the fields that losses read alone."""
  return types.SimpleNamespace(**fields)


def text_fields(labels, weights, tasks, examples=None):
  if examples is None:
    examples = np.ones_like(labels)
  return {
    'und': layout(jnp.asarray(examples)),
    'labels': jnp.asarray(labels),
    'ntp_weight': jnp.asarray(weights, jnp.float32),
    'task_ids': jnp.asarray(tasks),
  }


NO_TEXT = text_fields([[0]], [[0]], [[0]])
# Two words: scores (0, log 3) are probabilities 1/4 and 3/4.
SURE, EVEN = [0.0, np.log(3)], [0.0, 0.0]
HEAD = {'lm_head': {'kernel': jnp.eye(2)}}


def test_answers_are_summed_and_counted_by_task():
  params = HEAD | {'und': jnp.asarray([[SURE, SURE, EVEN, SURE]])}
  fields = text_fields([[1, 0, 1, 1]], [[1, 1, 2, 0]], [[CTS, CTS, MI, MI]])
  sums = objectives.flow_and_text_sums(
    Stub(), params, batch(**fields), None, None, None, TASKS
  )
  expected = {
    'ntp/cts': (np.log(4 / 3) + np.log(4), 2),
    'token_accuracy/cts': (1, 2),
    'ntp/mi': (2 * np.log(2), 2),
    'token_accuracy/mi': (0, 2),  # a tie goes to the first word
    'ntp/tia': (0, 0),
    'token_accuracy/tia': (0, 0),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(sums[name], value, atol=1e-6)
  assert 'flow' not in sums


def test_an_answer_is_right_where_all_of_its_tokens_are():
  # Three examples and padding; then one whose question alone is wrong.
  params = HEAD | {
    'und': jnp.asarray([[SURE, SURE, SURE, SURE, SURE, EVEN], [SURE] * 6])
  }
  fields = text_fields(
    labels=[[1, 1, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0]],
    weights=[[1, 1, 1, 1, 1, 0], [0, 0, 1, 2, 0, 0]],
    tasks=[[CTS, CTS, MI, MI, MI, 0], [0, MI, MI, MI, 0, 0]],
    examples=[[1, 1, 2, 2, 3, 0], [1, 1, 1, 1, 0, 0]],
  )
  sums = objectives.flow_and_text_sums(
    Stub(), params, batch(**fields), None, None, None, TASKS
  )
  np.testing.assert_array_equal(sums['answer_accuracy/cts'], (1, 1))
  np.testing.assert_array_equal(sums['answer_accuracy/mi'], (2, 3))
  np.testing.assert_array_equal(sums['answer_accuracy/tia'], (0, 0))


def test_a_chunk_at_a_time_is_the_same_loss():
  rng = np.random.default_rng(0)
  hidden = jnp.asarray(rng.standard_normal((2, 7, 3)), jnp.float32)
  head = jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)
  labels = jnp.asarray(rng.integers(0, 5, (2, 7)))
  weight = jnp.asarray(rng.standard_normal((2, 7)), jnp.float32)
  wanted = jnp.asarray([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0]]) > 0

  def loss(hidden, head, chunk):
    losses, right = token_losses(
      Stub(), {'lm_head': {'kernel': head}}, hidden, labels, wanted, chunk=chunk
    )
    return (losses * weight).sum(), (losses, right)

  def value_and_grad(chunk):
    grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
    return jax.jit(grad, static_argnums=2)(hidden, head, chunk)

  whole = value_and_grad(7)
  assert whole[1][0].shape == (2, 7)
  scores = np.asarray(hidden) @ np.asarray(head)
  picked = np.take_along_axis(scores, np.asarray(labels)[..., None], -1)
  expected = np.log(np.exp(scores).sum(-1)) - picked[..., 0]
  expected = np.where(wanted, expected, 0)
  np.testing.assert_allclose(whole[1][0], expected, atol=1e-5)
  right = (scores.argmax(-1) == np.asarray(labels)) & np.asarray(wanted)
  np.testing.assert_array_equal(whole[1][1], right)
  for chunk in (1, 3, 100):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
      value_and_grad(chunk),
      whole,
    )


def test_the_flow_loss_by_hand():
  latents = jnp.asarray([[[1.0, 3.0], [5.0, 5.0], [2.0, 0.0]]])
  noise = jnp.asarray([[[0.0, 1.0], [9.0, 9.0], [1.0, 1.0]]])
  t = jnp.asarray([[0.25, 0.0, 0.5]])
  fields = NO_TEXT | {'noise_ids': jnp.asarray([[1, 0, 2]])}
  params = HEAD | {'und': jnp.zeros((1, 1, 2))}
  sums = objectives.flow_and_text_sums(
    Stub(), params, batch(**fields), latents, noise, t, TASKS
  )
  # The stub's velocity is the noised latent (0.75, 2.5), where noise - data
  # is (-1, -2); then (1.5, 0.5), where it is (-1, 1). The clean one is out.
  first = (1.75**2 + 4.5**2) / 2
  third = (2.5**2 + 0.5**2) / 2
  np.testing.assert_allclose(sums['flow'], (first + third, 2), rtol=1e-6)


def drawn_row():
  """A row of two noised images about a clean one, through the objective."""
  noise_ids = jnp.asarray([[1, 1, 0, 0, 2, 2]])
  fields = NO_TEXT | {'noise_ids': noise_ids, 'latent_index': noise_ids}
  rng = np.random.default_rng(0)
  params = HEAD | {
    'und': jnp.zeros((1, 1, 2)),
    'latents': jnp.asarray(rng.standard_normal((1, 6, 2)), jnp.float32),
  }
  return batch(**fields), params


def test_clean_latents_reach_the_model_unnoised():
  row, params = drawn_row()
  model = Stub()
  sums = objectives.multimodal_sums(
    model, params, row, jax.random.key(0), ObjectiveConfig(), TASKS
  )
  noised, t = model.embedded
  np.testing.assert_array_equal(t[0, 2:4], 0)
  np.testing.assert_array_equal(noised[0, 2:4], params['latents'][0, 2:4])
  assert t[0, 0] == t[0, 1] != t[0, 4] == t[0, 5]
  assert np.abs(noised - params['latents'])[0, [0, 1, 4, 5]].min() > 1e-3
  assert float(sums['flow'][1]) == 4


def test_latents_are_constants_of_the_step():
  row, params = drawn_row()

  def loss(latents):
    sums = objectives.multimodal_sums(
      Stub(),
      params | {'latents': latents},
      row,
      jax.random.key(0),
      ObjectiveConfig(),
      TASKS,
    )
    return sums['flow'][0]

  assert not jax.grad(loss)(params['latents']).any()


def test_a_row_without_latents_has_no_flow():
  fields = text_fields([[1]], [[1]], [[MI]])
  row = batch(latent_index=jnp.zeros((1, 0), int), **fields)
  params = HEAD | {'und': jnp.asarray([[SURE]])}
  sums = objectives.multimodal_sums(
    Stub(), params, row, jax.random.key(0), ObjectiveConfig(), TASKS
  )
  assert 'flow' not in sums
  np.testing.assert_allclose(sums['ntp/mi'], (np.log(4 / 3), 1), rtol=1e-6)


def test_padded_canvases_count_for_nothing():
  images = np.zeros((2, 3, 4, 4, 1), np.float32)
  images[0, 0] = -0.5
  images[0, 1, :, :2] = 1.0
  # Canvases of 2 x 2 latent tokens; row 1 and the third canvas are padding.
  row = batch(
    gen=layout(jnp.asarray([[1, 1, 2, 0], [0, 0, 0, 0]])),
    latent_index=jnp.asarray([[0, 3, 4, 0], [0, 0, 0, 0]]),
    vae_images=jnp.asarray(images),
  )
  sums = objectives.autoencoder_sums(
    Stub(), {}, row, jax.random.key(0), ObjectiveConfig(), TASKS
  )
  # The stub decodes 0.5 everywhere: errors 1, and the mean of 0.5 and 0.5.
  np.testing.assert_allclose(sums['l1'], (1.0 + 0.5, 2), rtol=1e-6)
  # Of a normal of mean 2 and variance 4 against the unit one.
  kl = 0.5 * (4 + 4 - 1 - np.log(4))
  np.testing.assert_allclose(sums['kl'], (2 * kl, 2), rtol=1e-6)


def test_the_total_adds_the_means_of_the_tasks():
  sums = {
    'ntp/cts': (6.0, 3.0),  # a mean of 2
    'ntp/mi': (10.0, 2.0),  # 5
    'ntp/tia': (0.0, 0.0),  # no such example here
    'token_accuracy/cts': (3.0, 3.0),  # no loss
    'flow': (8.0, 2.0),  # 4
  }
  sums = {k: (jnp.asarray(v), jnp.asarray(n)) for k, (v, n) in sums.items()}
  config = ObjectiveConfig(ntp_weight=1.0, flow_weight=1.0)
  assert float(objectives.total(sums, config, ('ntp', 'flow'))) == 2 + 5 + 4
  config = ObjectiveConfig(ntp_weight=0.5, flow_weight=10.0)
  assert float(objectives.total(sums, config, ('ntp', 'flow'))) == 0.5 * 7 + 40


def test_the_autoencoders_total_weighs_its_divergence():
  sums = {'l1': (jnp.asarray(3.0), 2.0), 'kl': (jnp.asarray(8.0), 2.0)}
  total = objectives.total(sums, ObjectiveConfig(kl_weight=0.25), ('l1', 'kl'))
  assert float(total) == 1.5 + 1.0


def shown(**fields):
  """Two rows of six patches: two images and padding; then padding alone."""
  return batch(
    vit_visible_from=jnp.asarray([[0, 0, 0, 3, 3, 0], [0] * 6]),
    vit_visible_to=jnp.asarray([[3, 3, 3, 5, 5, 0], [0] * 6]),
    **fields,
  )


def test_images_of_the_vit_are_counted_without_padding():
  row = shown(latent_index=jnp.zeros((2, 0), int))
  assert float(objectives.images_in(row, stride=2)) == 2


def test_images_of_the_autoencoder_are_counted_beside_those_of_the_vit():
  # Canvases of 2 x 2 latent tokens. Row 0 uses the first and the third of
  # three; row 1 the second, whose tokens are not all there.
  row = shown(
    gen=layout(jnp.asarray([[1, 1, 2, 0], [1, 0, 0, 0]])),
    latent_index=jnp.asarray([[0, 3, 8, 0], [5, 0, 0, 0]]),
    vae_images=jnp.zeros((2, 3, 4, 4, 1)),
  )
  assert float(objectives.images_in(row, stride=2)) == 2 + 3


def test_all_images_of_one_patch_in_a_full_buffer_are_counted():
  row = batch(
    vit_visible_from=jnp.asarray([[0, 1, 2]]),
    vit_visible_to=jnp.asarray([[1, 2, 3]]),
    latent_index=jnp.zeros((1, 0), int),
  )
  assert float(objectives.images_in(row, stride=2)) == 3


def test_tokens_without_a_label_cost_no_logits():
  """Other chunks than the first are not computed: they would be NaN."""
  hidden = jnp.full((1, 6, 2), jnp.nan).at[0, 1].set(0.0).at[0, 4].set(1.0)
  wanted = jnp.asarray([[0, 1, 0, 0, 1, 0]]) > 0

  def loss(hidden):
    losses, right = token_losses(
      Stub(), HEAD, hidden, jnp.zeros((1, 6), int), wanted, chunk=2
    )
    return losses.sum(), (losses, right)

  grads, (losses, right) = jax.jit(jax.grad(loss, has_aux=True))(hidden)
  np.testing.assert_allclose(losses, [np.log(2) * wanted[0]], rtol=1e-6)
  np.testing.assert_array_equal(right, wanted)
  assert np.isfinite(grads).all()
  assert (np.asarray(grads)[0, [0, 2, 3, 5]] == 0).all()


def test_stage_two_has_no_lm_head():
  """Nothing of the head is traced where no task has a text with loss."""
  row = batch(**NO_TEXT)
  params = {'und': jnp.zeros((1, 1, 2))}  # without a head
  sums = objectives.flow_and_text_sums(
    Stub(), params, row, None, None, None, ('editing', 'synthesis')
  )
  assert sums == {}
  with pytest.raises(KeyError, match='lm_head'):
    objectives.flow_and_text_sums(
      Stub(), params, row, None, None, None, ('mi', 'synthesis')
    )


def test_an_example_without_an_answer_counts_for_no_task():
  params = HEAD | {'und': jnp.asarray([[SURE, SURE]])}
  fields = text_fields([[1, 0]], [[0, 0]], [[CTS, CTS]])
  sums = objectives.flow_and_text_sums(
    Stub(), params, batch(**fields), None, None, None, TASKS
  )
  np.testing.assert_array_equal(sums['answer_accuracy/cts'], (0, 0))
  np.testing.assert_array_equal(sums['ntp/cts'], (0, 0))


def test_a_term_of_a_registered_objective_weighs_one_unless_it_is_set():
  sums = {
    'near': (jnp.asarray(3.0), 1.0),
    'far': (jnp.asarray(5.0), 1.0),
    'hits': (jnp.asarray(1.0), 1.0),
  }
  config = ObjectiveConfig(term_weights={'far': 0.5})
  assert float(objectives.total(sums, config, ('near', 'far'))) == 3.0 + 2.5


def test_the_weight_of_a_term_takes_the_place_of_the_others():
  config = ObjectiveConfig(
    ntp_weight=3.0,
    flow_weight=5.0,
    task_weights={'cts': 7.0, 'mi': 11.0},
    term_weights={'ntp/cts': 0.5, 'flow': 0.25},
  )
  terms = ('ntp/cts', 'ntp/mi', 'ntp/tia', 'flow')
  assert [config.weight(term) for term in terms] == [0.5, 33.0, 3.0, 0.25]


def test_a_stage_is_registered_once(monkeypatch):
  monkeypatch.setattr(objectives, 'OBJECTIVES', {})
  objectives.register_objective('toy', lambda *_: {}, ('l1',))
  assert objectives.OBJECTIVES['toy'].terms == ('l1',)
  with pytest.raises(ValueError, match="Stage 'toy' is registered already"):
    objectives.register_objective('toy', lambda *_: {}, ())
