"""Stage 0: a KL autoencoder for slices, for runs without a pretrained VAE.

  python -m synermedgen_jax.main --config=configs/autoencoder.py:base_1b \\
      --config.store=STORE --config.tokenizer=FOLDER --workdir=RUN/autoencoder

BAGEL brings the FLUX VAE, so a run from its weights skips this stage. FOLDER
holds the tokenizer.json of the model to come (Qwen2.5's for base_1b), which
later stages take from this run. The word after the colon is a preset of
`models/presets.py`. Neither the paper nor BAGEL trains an autoencoder: rate and
loss weights are this project's choice.

Hardware: one GPU or more. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'bagel_7b') -> ConfigDict:
  config = default_config()
  config.stage = 'autoencoder'
  config.model = model

  config.tasks = {'reconstruction': 1.0}
  # Two slices of 32 x 32 latent tokens a row.
  config.capacity = {'und': 8, 'gen': 2 * 1024, 'vit': 0, 'images': 2}
  config.packing_bins = 4

  config.trainable = (
    # Set at the end, to unit variance of the latents.
    (r'autoencoder/latent_(shift|scale)', 0.0),
    (r'autoencoder/.*', 1.0),
    (r'.*', 0.0),
  )
  config.objective = {'l2_weight': 2.0, 'kl_weight': 5e-4}
  config.learning_rate = 1e-4
  config.ema = 0.0
  return config
