"""The summary that a training run prints first."""

from __future__ import annotations

from clu.parameter_overview import count_parameters

from synermedgen_jax.checkpoint.weights_folder import holds_weights
from synermedgen_jax.core.size import size_text
from synermedgen_jax.interop.hub import is_address
from synermedgen_jax.models.interval_attention import preferred
from synermedgen_jax.training.loop import BagelRun, Run


def introduce(run: Run) -> str:
  """Returns the summary; one line each for model, weights, tokenizer, ..."""
  devices = run.mesh.devices.flat
  trained = count_parameters(run.state.trainable)
  frozen = count_parameters(run.state.frozen)
  lines = _stage(run) if isinstance(run, BagelRun) else _system(run)
  return '\n'.join(
    [
      f'Stage {run.config["stage"]} on {run.mesh.size} {devices[0].platform} '
      f'device(s): {trained / 1e6:.2f} M parameters train, '
      f'{frozen / 1e6:.2f} M are frozen.',
      *(f'  {name:<10} {text}' for name, text in lines.items()),
    ]
  )


def _system(run: Run) -> dict[str, str]:
  config = run.config
  return {
    'system': f'{run.model.title}, preset {config["model"]}',
    'data': config['store'],
    'routes': f'{config["scope"]}: {", ".join(config["modalities"])}',
    'recipe': _recipe(config),
    'batch': f'{run.rows} pairs of {size_text(config["size"])} pixels',
    'departures': '; '.join(run.model.departures) or 'none',
  }


def _stage(run: BagelRun) -> dict[str, str]:
  config = run.config
  return {
    'model': f'{config["model"]}, experts {config["experts"]}, '
    f'generation {config["generation"]}',
    'weights': _weights(config),
    'tokenizer': f'{_tokenizer(config)}, {run.tokenizer.vocab_size:,} tokens',
    'data': config['store'] or 'no store, files only',
    'recipe': _recipe(config),
    'batch': f'{run.rows} rows of {_tokens(run):,} tokens; images '
    f'{size_text(run.geometry.vit_size)} (ViT) and '
    f'{size_text(run.geometry.vae_size)} (VAE) pixels',
    'attention': _attention(run),
  }


def _weights(config) -> str:
  start = config['init_from']
  if not start:
    return 'random'
  if is_address(start) or holds_weights(start):
    return start
  step = config['init_step']
  return f'{start}, {step if step in ("newest", "best") else f"step {step}"}'


def _tokenizer(config) -> str:
  name = config['tokenizer']
  return "the project's" if name == 'project' else name


def _recipe(config) -> str:
  return (
    f'{config["optimizer"]}, learning rate {config["learning_rate"]:g} '
    f'({config["decay"]} after {config["warmup"]:,} steps of warm-up), '
    f'average {config["ema"] or "none"}, {config["steps"]:,} steps'
  )


def _tokens(run: BagelRun) -> int:
  return run.capacity.und + run.capacity.gen


def _attention(run: BagelRun) -> str:
  """The implementation of each transformer that the stage runs."""
  compute = run.config['compute']
  platform = run.mesh.devices.flat[0].platform
  queries = {'language model': _tokens(run), 'ViT': run.capacity.vit}
  if run.config['stage'] in ('autoencoder', 'quantiser'):
    queries = {}
  names = [
    f'{compute["attention"] or preferred(platform, n, compute["dtype"])} '
    f'({part})'
    for part, n in queries.items()
    if n
  ]
  return ', '.join(names) or 'none'
