"""How published models of BAGEL's kind arrange their files.

Sources: ByteDance-Seed/Bagel, app.py; uni-medical/UniMedVL,
codes/interactive_image_generator.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Layout:
  """Files of a model, and the options that its program sets.

  Attributes:
    name: value of `import_bagel --layout`.
    weights: names of the file with all weights but the autoencoder's; the
      first that exists is read.
    indices: names of an index of shards, for where no such file exists.
    options: `llm_config`, `vit_config` or `config` -> options that replace
      those of the JSON file.
    needs_config: `config.json` has to exist; otherwise it is not read.
    copies: prefix of the keys that repeat tensors of `ae.safetensors` in the
      file of weights; '' = none.
  """

  name: str
  weights: tuple[str, ...]
  indices: tuple[str, ...]
  options: Mapping[str, Mapping[str, Any]]
  needs_config: bool = True
  copies: str = ''


BAGEL = Layout(
  'bagel',
  weights=('ema.safetensors',),
  indices=('ema.safetensors.index.json', 'model.safetensors.index.json'),
  options={},
)
UNIMEDVL = Layout(
  'unimedvl',
  weights=('ema.safetensors', 'ema_bf16.safetensors', 'model.safetensors'),
  indices=(
    'ema.safetensors.index.json',
    'ema_bf16.safetensors.index.json',
    'model.safetensors.index.json',
  ),
  options={
    'llm_config': {'qk_norm': True},
    'vit_config': {'rope': False},
    'config': {
      'latent_patch_size': 2,
      'max_latent_size': 64,
      'vit_max_num_patch_per_side': 70,
    },
  },
  needs_config=False,
  copies='vae_model.',
)
LAYOUTS = {layout.name: layout for layout in (BAGEL, UNIMEDVL)}
