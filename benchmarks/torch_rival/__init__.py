"""A plain PyTorch implementation of the model, to be compared with in speed."""
