"""The networks: ViT, autoencoder, Mixture of Transformers."""
