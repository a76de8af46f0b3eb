"""Networks that segment images: training, evaluation and pseudo-labels."""
