"""A trained model at work: answering, sampling, whole volumes."""
