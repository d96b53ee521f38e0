"""The keys of a config as text: suggestions, values, the most used ones."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import (
  KEYS,
  SYSTEM_KEYS,
  Key,
  default_config,
  system_config,
)

# Words of other tools -> keys with that meaning; a config has one of them.
WORDS: Mapping[str, tuple[str, ...]] = {
  word: keys
  for keys, words in {
    ('rows',): 'batch batch_size bs global_batch_size train_batch_size '
    'micro_batch_size per_device_train_batch_size',
    ('learning_rate',): 'lr base_lr max_lr peak_lr',
    ('steps',): 'epochs num_epochs max_epochs n_epochs iterations iters '
    'max_iters num_steps max_steps total_steps train_steps num_train_epochs',
    ('image.vae_size', 'size'): 'image_size img_size input_size patch_size '
    'resolution canvas',
    ('seed',): 'random_seed rng_seed rng manual_seed',
    ('optimizer',): 'optimiser optim opt',
    ('weight_decay',): 'wd',
    ('warmup',): 'warmup_steps num_warmup_steps warmup_epochs',
    ('decay',): 'scheduler lr_scheduler lr_schedule schedule lr_decay',
    ('clip',): 'grad_clip gradient_clip gradient_clip_val max_grad_norm '
    'clip_norm',
    ('ema',): 'ema_decay ema_rate',
    ('init_from',): 'pretrained checkpoint ckpt ckpt_path weights resume '
    'resume_from load_from model_path init',
    ('store',): 'data data_dir data_path dataset root train_data',
    ('reader_threads',): 'workers num_workers dataloader_num_workers threads',
    ('checkpoint_every',): 'save_every save_steps save_interval '
    'checkpoint_interval',
    ('val_every',): 'eval_every eval_steps eval_interval val_interval '
    'validate_every',
    ('log_every',): 'log_steps logging_steps log_interval',
    ('compute.dtype',): 'dtype precision mixed_precision bf16 fp16 amp',
    ('compute.remat',): 'remat gradient_checkpointing activation_checkpointing',
    ('sampling.points',): 'sampling_steps num_inference_steps '
    'num_timesteps timesteps',
    ('sampling.guidance.text',): 'cfg cfg_scale guidance_scale text_scale',
    ('mesh',): 'devices gpus num_gpus n_gpus strategy',
    ('dropout.text',): 'cfg_dropout text_dropout',
    ('capacity.und',): 'max_length max_seq_length seq_len max_tokens',
  }.items()
  for word in words.split()
}
_MOST_USED = (
  *('init_from', 'store', 'steps', 'rows', 'learning_rate', 'seed', 'routes'),
  *('tasks', 'mesh', 'checkpoint_every', 'val_every', 'from_scratch'),
)
_WIDTH = 80


def suggestion(name: str, config: Mapping[str, Any]) -> str:
  """A question that names the key which is most likely meant, or ''.

  Args:
    name: dotted name that the config does not have.
    config: the config as plain values.
  """
  known = dict(leaves(config))
  last = name.rpartition('.')[2]
  meant = next((k for k in WORDS.get(last.lower(), ()) if k in known), '')
  if not meant:  # `optimizer.name` of the key `optimizer`
    parents = (name[:i] for i, c in enumerate(name) if c == '.')
    meant = next((p for p in parents if p in known), '')
  if not meant:
    near = difflib.get_close_matches(name, known, 1, 0.75)
    # Of keys with the same end, the least nested one.
    nested = sorted(known, key=lambda key: key.count('.'), reverse=True)
    by_last = {key.rpartition('.')[2]: key for key in nested}
    near = near or difflib.get_close_matches(last, by_last, 1, 0.75)
    meant = by_last.get(near[0], near[0]) if near else ''
  if not meant:
    return ''
  key = _table(config).get(meant)
  unit = f'; unit: {key.unit}' if key and key.unit else ''
  meaning = f' ({key.meaning.rstrip(".")}{unit})' if key else ''
  return f'did you mean --config.{meant}{meaning}?'


def leaves(
  config: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields (dotted name, value) of every key; an empty group is a value."""
  for name, value in config.items():
    if isinstance(value, Mapping) and value:
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def describe(config: ConfigDict) -> str:
  """Every key with its value and meaning, changed ones marked by `*`.

  Args:
    config: a config of a stage, or of a system of the arena.
  """
  values = config.to_dict()
  system = 'scope' in values
  default = system_config() if system else default_config()
  defaults = dict(leaves(default.to_dict()))
  lines = [
    '# The keys of this config; `*` marks values that differ from the default.'
  ]
  left = dict(leaves(values))
  for heading, keys in _sections(system).items():
    texts = []
    for key in keys:
      # A group of free keys, such as `tasks`, is one value.
      parts = [n for n in left if n == key.name or n.startswith(f'{key.name}.')]
      if parts:
        texts += _key_lines(key, _value(values, key.name), defaults)
      for name in parts:
        del left[name]
    if texts:
      lines += ['', f'# {heading}', *texts]
  if left:
    lines += ['', '# Other keys']
    lines += [f'* config.{name} = {value!r}' for name, value in left.items()]
  return '\n'.join(lines)


def most_used() -> str:
  """The keys that most trainings set, with their meanings, and their place."""
  keys = _table({})
  lines = ['Every key of a config is a flag. The most used:', '']
  for name in _MOST_USED:
    lines.append(f'  --config.{name}')
    unit = f' Unit: {keys[name].unit}.' if keys[name].unit else ''
    lines.append(_indented(keys[name].meaning + unit, 6))
  return '\n'.join(
    [
      *lines,
      '',
      '--print_config shows all keys of a config with their values. '
      'docs/reference.md\nexplains them.',
    ]
  )


def _key_lines(
  key: Key, value: Any, defaults: Mapping[str, Any]
) -> Iterator[str]:
  default = defaults.get(key.name, key.default)
  changed = value != default
  note = f'  (default {default!r})' if changed else ''
  yield f'{"*" if changed else " "} config.{key.name} = {value!r}{note}'
  unit = f' Unit: {key.unit}.' if key.unit else ''
  yield _indented(key.meaning + unit, 6)


def _indented(text: str, spaces: int) -> str:
  indent = ' ' * spaces
  return textwrap.fill(
    text, _WIDTH, initial_indent=indent, subsequent_indent=indent
  )


def _value(values: Mapping[str, Any], name: str) -> Any:
  for part in name.split('.'):
    values = values[part]
  return values


def _sections(system: bool) -> dict[str, tuple[Key, ...]]:
  return {'System': SYSTEM_KEYS, **KEYS} if system else KEYS


def _table(config: Mapping[str, Any]) -> dict[str, Key]:
  sections = _sections('scope' in config).values()
  return {key.name: key for keys in reversed([*sections]) for key in keys}
