"""The stages of training, one config each."""
