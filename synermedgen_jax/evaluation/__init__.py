"""Evaluation: accuracy, image metrics, baselines, comparison of runs."""
