"""Stage I, generation-aligned understanding: CTS, MI and TIA from the pairs.

  python -m synermedgen_jax.main --config=configs/stage1.py \\
      --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/stage1

RUN/bagel is what `import_bagel` wrote; its tokenizer is used. The word after
the colon, as in `configs/stage1.py:base_1b`, is a preset of `models/presets.py`
or `init_from`, the shape that RUN/bagel holds; bagel_7b by default.

Trains ViT, connector and the `und` expert; VAE and `gen` are frozen. Optimiser,
rate, dropout and averaging are BAGEL's released fine-tuning (`default_config`);
shares of the tasks are those of the released data.

Hardware: 8 GPUs of 80 GB, or a v5p-64 slice (docs/scaling.md). On 64 chips and
more, --config.mesh='(2,32,1)'. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'bagel_7b') -> ConfigDict:
  config = default_config()
  config.stage = 'gau'
  config.model = model

  config.tasks = {'cts': 0.47, 'mi': 0.15, 'tia': 0.38, 'vlm': 0.0}
  # Two questions of five slices fill a row: 28 x 28 ViT tokens a slice.
  config.capacity = {'und': 10240, 'gen': 0, 'vit': 12 * 784, 'images': 0}

  # Multipliers of config.learning_rate, 2e-5.
  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 0.0),
    (r'mot/(layers/gen|gen_norm)/.*', 0.0),
    (r'(embed_tokens|lm_head)/.*', 1.0),
    (r'(vit|connector)/.*', 1.0),
    (r'mot/(layers/und|und_norm)/.*', 1.0),
  )
  # L = L_CTS + L_MI + L_TIA.
  config.objective = {
    'ntp_weight': 1.0,
    'task_weights': {'cts': 1.0, 'mi': 1.0, 'tia': 1.0},
  }
  return config
