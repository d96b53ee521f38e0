"""Checks of a config, made before anything compiles."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.modalities import Route, all_routes, routes_named
from synermedgen_jax.core.sharding import batch_sharding, rows_here
from synermedgen_jax.input.streams import streams_of
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.interval_attention import IMPLEMENTATIONS
from synermedgen_jax.models.layers import REMAT_POLICIES
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.pairs import routes_in
from synermedgen_jax.tasks.prompts import PROMPTS
from synermedgen_jax.tasks.registry import TASKS
from synermedgen_jax.training.objectives import OBJECTIVES, ObjectiveConfig

_AT_LEAST = {
  **dict.fromkeys(
    (
      'rows',
      'slab',
      'streams',
      'packing_bins',
      'max_sources',
      'reader_threads',
      'steps',
      'log_every',
      'checkpoint_every',
      'keep',
      'compute.unroll',
    ),
    1,
  ),
  **dict.fromkeys(
    (
      'seed',
      'warmup',
      'max_bad_steps',
      'val_every',
      'keep_every',
      'profile.start',
      'profile.steps',
      'augment.noise',
    ),
    0,
  ),
}
_SHARES = (
  'ema',
  'subjects',
  'dropout.text',
  'dropout.vae',
  'dropout.vit',
  'augment.mirror',
  'augment.warp',
)


# Parameters before the gen expert, for `objective.freeze_und`.
_UND = re.compile(
  r'(mot/(layers/und|und_norm)|vit|connector|embed_tokens|lm_head)/.*|'
  r'vit_pos_embed'
).fullmatch

_DTYPES = ('bfloat16', 'float32')


def check_start(config: ConfigDict) -> None:
  """Refuses a stage that continues from weights and starts from none.

  Raises:
    ConfigError: one line naming the key.
  """
  stage = OBJECTIVES.get(config.stage)
  continues = stage is not None and (
    {'ntp', 'flow'} & set(stage.terms) or config.stage == 'quantiser'
  )
  if continues and not (config.init_from or config.from_scratch):
    raise ConfigError(
      f'config.init_from is empty and stage {config.stage!r} continues from '
      'trained weights: name a workdir or a weights folder, or set '
      'config.from_scratch=True to train from random weights.'
    )


def check(
  config: ConfigDict, model: BagelConfig, tokenizer: Tokenizer, mesh: Mesh
) -> None:
  """Refuses contradictions of the config with itself and with the devices.

  Args:
    config: with rows and streams resolved.
    model: the shape that it names.
    tokenizer: the one that it names.
    mesh: the devices.

  Raises:
    ConfigError: one line naming the key.
  """
  if config.stage not in OBJECTIVES:
    raise ConfigError(
      f'config.stage {config.stage!r}: expected one of {", ".join(OBJECTIVES)}.'
    )
  _check_generation(config)
  _check_detail(config)
  _check_ranges(config)
  _check_tasks(config)
  _check_names(config)
  _check_loss_weights(config)
  _check_route_weights(config)
  _check_checkpoints(config)
  with key_errors('sampling'):
    SamplingConfig.from_config(config.to_dict()).check(model)
  platform = mesh.devices.flat[0].platform
  name = config.compute.attention
  attention = IMPLEMENTATIONS.get(name)
  if attention and attention.platform not in (None, platform):
    raise ConfigError(
      f'config.compute.attention {name!r}: runs on {attention.platform}, and '
      f"the devices are {platform}; '' chooses by device."
    )
  if tokenizer.vocab_size > model.llm.vocab:
    raise ConfigError(
      f'config.tokenizer has {tokenizer.vocab_size} tokens, the model '
      f'{config.model!r} embeds {model.llm.vocab}.'
    )
  devices = mesh.shape['data'] * mesh.shape['fsdp']
  if config.rows % devices:
    raise ConfigError(
      f'config.rows {config.rows} is not divisible by the {devices} devices '
      f'of the data and fsdp axes of config.mesh {tuple(config.mesh)}.'
    )


def _check_generation(config: ConfigDict) -> None:
  """Refuses a stage whose loss lacks what `config.generation` predicts."""
  terms = OBJECTIVES[config.stage].terms
  if config.generation == 'flow':
    if config.stage == 'quantiser':
      raise ConfigError(
        "config.generation 'flow': has no quantiser to train; set 'masked' or "
        "'autoregressive'."
      )
  elif 'flow' in terms and 'codes' not in terms:
    raise ConfigError(
      f'config.generation {config.generation!r}: the loss of stage '
      f"{config.stage!r} lacks the term 'codes'; register it with the term."
    )


def _check_detail(config: ConfigDict) -> None:
  """Refuses images that may be smaller than their canvas."""
  if config.detail and config.tasks.get('editing'):
    raise ConfigError(
      f'config.detail {config.detail}: reads images that fill their canvas, '
      'and those of the task editing may not; set config.tasks.editing or '
      'config.detail to 0.'
    )


def check_system(config: ConfigDict, routes: Sequence[Route]) -> None:
  """Refuses contradictions of the config of a system of the arena.

  Args:
    config: with rows and streams resolved.
    routes: the routes that it trains.

  Raises:
    ConfigError: one line naming the key.
  """
  system = SYSTEMS[config.stage]
  for route in routes:
    if len(route.sources) > 1:
      raise ConfigError(
        f'config.routes: {config.stage} translates from one source, and '
        f'{route.name} has {len(route.sources)}; name routes with one source.'
      )
  scopes = ('pair',) if system.pair else ('route', 'all')
  if config.scope not in scopes:
    raise ConfigError(
      f'config.scope {config.scope!r}: {config.stage} is trained per '
      f'{" or ".join(scopes)}.'
    )
  if config.scope == 'route' and len(routes) != 1:
    raise ConfigError(
      f"config.routes: config.scope 'route' needs the name of one route, got "
      f'{len(routes)}.'
    )
  if config.scope == 'pair' and (
    len(routes) != 2 or routes[0] != routes[1].reverse
  ):
    raise ConfigError(
      f"config.routes: config.scope 'pair' needs the two directions of a pair, "
      f'got {", ".join(r.name for r in routes) or "none"}.'
    )
  _check_ranges(config)
  _check_names(config)
  _check_route_weights(config)
  _check_checkpoints(config)


def _check_ranges(config: ConfigDict) -> None:
  for key, least in _AT_LEAST.items():
    if not _has(config, key):
      continue
    value = _value(config, key)
    if value < least:
      raise ConfigError(f'config.{key} {value}: must be at least {least}.')
  if not config.learning_rate >= 0:
    raise ConfigError(
      f'config.learning_rate {config.learning_rate}: must be at least 0.'
    )
  if not config.clip > 0:
    raise ConfigError(f'config.clip {config.clip}: must be above 0.')
  for key in filter(functools.partial(_has, config), _SHARES):
    value = _value(config, key)
    if not 0 <= value <= 1:
      raise ConfigError(f'config.{key} {value}: must be from 0 to 1.')
  if config.val_every and config.val_batches < 1:
    raise ConfigError(
      f'config.val_batches {config.val_batches}: must be at least 1, or set '
      'config.val_every=0.'
    )


def _check_tasks(config: ConfigDict) -> None:
  if any(share < 0 for share in config.tasks.values()):
    raise ConfigError('config.tasks: a share is below 0.')
  if not any(share > 0 for share in config.tasks.values()):
    raise ConfigError('config.tasks: no task has a share above 0.')


def _check_names(config: ConfigDict) -> None:
  for key, known in (
    ('tasks', TASKS),
    ('prompts', PROMPTS),
    ('compute.dtype', _DTYPES),
    ('compute.remat', REMAT_POLICIES),
    ('compute.attention', IMPLEMENTATIONS),
  ):
    if not _has(config, key):
      continue
    value = _value(config, key)
    given = {value} - {''} if isinstance(value, str) else set(value)
    unknown = sorted(given - set(known))
    if unknown:
      raise ConfigError(
        f'config.{key}: unknown {", ".join(unknown)}; expected some of '
        f'{", ".join(known)}.'
      )
  with key_errors('routes'):
    routes_named(config.routes)


def _check_loss_weights(config: ConfigDict) -> None:
  """Refuses weights of tasks and terms that the stage does not have."""
  terms = OBJECTIVES[config.stage].terms
  answers = [f'ntp/{task}' for task in TASKS if 'ntp' in terms]
  own = [term for term in terms if term != 'ntp']
  for key, known in (
    ('objective.task_weights', list(TASKS)),
    ('objective.term_weights', own + answers),
  ):
    given = _value(config, key) if _has(config, key) else ()
    for name in given:
      group, of_group, _ = name.partition('/')
      if name not in known and not (of_group and group in own):
        near = difflib.get_close_matches(name, known, 1, 0.0)
        raise ConfigError(
          f'config.{key} {name!r}: did you mean {near[0]!r}? Expected some of '
          f'{", ".join(known)}.'
        )


def _check_route_weights(config: ConfigDict) -> None:
  routes = [*(route.name for route in all_routes()), *config.routes]
  for row in config.route_weights:
    match row:
      case (str() as pattern, int() | float() as weight):
        pass
      case _:
        raise ConfigError(
          f'config.route_weights {row!r}: expected a route and a number, as in '
          "('pelvis_.*', 2.0)."
        )
    if not 0 < weight < math.inf:
      raise ConfigError(
        f'config.route_weights {pattern!r}: {weight} must be above 0 and '
        'finite; config.routes leaves routes out.'
      )
    try:
      known = any(re.fullmatch(pattern, route) for route in routes)
    except re.error as error:
      raise ConfigError(f'config.route_weights {pattern!r}: {error}.') from None
    if not known:
      raise ConfigError(
        f'config.route_weights {pattern!r}: matches none of '
        f'{", ".join(routes)}.'
      )


def _check_checkpoints(config: ConfigDict) -> None:
  """Refuses checkpoints to keep that are never saved or never measured."""
  if config.keep_every % config.checkpoint_every:
    raise ConfigError(
      f'config.keep_every {config.keep_every}: has to be a multiple of '
      f'config.checkpoint_every {config.checkpoint_every}.'
    )
  every = config.val_every
  if config.best and not (every and config.checkpoint_every % every == 0):
    raise ConfigError(
      f'config.best {config.best!r} needs a validation at every checkpoint: '
      f'config.checkpoint_every {config.checkpoint_every} has to be a multiple '
      f'of config.val_every {every}, which is not 0.'
    )


def check_best_is_measured(config: ConfigDict, terms: set[str]) -> None:
  """Refuses a metric for the best checkpoint that validation lacks."""
  known = sorted(f'val/{term}' for term in terms)
  if config.best and config.best not in known:
    raise ConfigError(
      f'config.best {config.best!r}: expected one of {", ".join(known)}.'
    )


def check_detached(
  objective: ObjectiveConfig, scales: Mapping[str, float]
) -> None:
  """Refuses trainable parameters that a detached und stream leaves as they are.

  Args:
    objective: weights and constants of the losses.
    scales: learning-rate multiplier of every parameter.
  """
  if objective.freeze_und != 'detach':
    return
  trained = [name for name, scale in scales.items() if scale and _UND(name)]
  if trained:
    raise ConfigError(
      "config.objective.freeze_und 'detach': no gradient reaches "
      f'{trained[0]}; set its multiplier in config.trainable to 0, or '
      "config.objective.freeze_und=''."
    )


def check_store(config: ConfigDict, store: SliceStore) -> None:
  """Refuses a store that lacks a route of `config.routes`."""
  cases = store.split('train')
  with key_errors('routes'):
    named = routes_in(cases, config.routes)
  held = {route.name for route in (*routes_in(cases), *named)}
  missing = [route for route in config.routes if route not in held]
  if missing:
    raise ConfigError(
      f'config.routes: no subject to train on in the store {store.path} has '
      f'{", ".join(missing)}; it holds {", ".join(sorted(held)) or "none"}.'
    )


def local_streams(config: ConfigDict, mesh: Mesh) -> list[int]:
  """The numbers of the streams that this process reads.

  Raises:
    ConfigError: the rows of a stream lie on several processes.
  """
  with key_errors('streams'):
    return streams_of(
      rows_here(batch_sharding(mesh), config.rows), config.rows, config.streams
    )


def _has(config: ConfigDict, key: str) -> bool:
  """Whether the config has a key; a system has no keys of texts and tokens."""
  first, _, rest = key.partition('.')
  return first in config and (not rest or rest in config[first])


def _value(config: ConfigDict, key: str):
  for part in key.split('.'):
    config = config[part]
  return config
