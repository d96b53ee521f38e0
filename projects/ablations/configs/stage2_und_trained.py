"""Ablations: Stage II that trains ViT, connector and `und` too.

The paper's figure freezes ViT and `und` in Stage II, its text fine-tunes `und`
further. They train at their rates in Stage I.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  config = stage2.get_config()
  # 0.7 x 3e-3 and 0.14 x 3e-3 are the rates of Stage I.
  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(embed_tokens|lm_head)/.*', 0.0),
    (r'(vit|connector)/.*', 0.7),
    (r'mot/(layers/und|und_norm)/.*', 0.14),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 1.0),
    (r'mot/(layers/gen|gen_norm)/.*', 1.0),
  )
  return config
