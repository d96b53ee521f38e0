"""The stages of training, one config each: the paper's recipe."""
