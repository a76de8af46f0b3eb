"""Networks that score hits: training, evaluation and pseudo-labels."""
