"""Stage II, understanding-conditioned generation: latent flow matching.

  python -m synermedgen_jax.main --config=configs/stage2.py \\
      --config.init_from=RUN/stage1 --config.store=STORE --workdir=RUN/stage2

The word after the colon is a preset of `models/presets.py`, or `init_from`;
bagel_7b by default. Trains the `gen` expert and its projections. The paper's
figure freezes ViT and `und`, its text fine-tunes `und` further: set the
multipliers of their rows in `trainable` to 1.0 for that.

Optimiser, rate, dropout and averaging are BAGEL's released fine-tuning
(`default_config`).

Hardware: 8 GPUs of 80 GB, or a v5p-64 slice (docs/scaling.md). On 64 chips and
more, --config.mesh='(2,32,1)'. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'bagel_7b') -> ConfigDict:
  config = default_config()
  config.stage = 'ucg'
  config.model = model

  config.tasks = {'synthesis': 1.0, 'editing': 0.0}
  # Four pairs fill a row: a slice is 32 x 32 latent and 28 x 28 ViT tokens.
  config.capacity = {'und': 3456, 'gen': 8 * 1024, 'vit': 4 * 784, 'images': 8}

  # Multipliers of config.learning_rate, 2e-5.
  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(embed_tokens|lm_head)/.*', 0.0),
    (r'(vit|connector)/.*', 0.0),
    (r'mot/(layers/und|und_norm)/.*', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 1.0),
    (r'mot/(layers/gen|gen_norm)/.*', 1.0),
  )
  config.objective = {'flow_weight': 1.0, 'train_shift': 1.0}
  return config
