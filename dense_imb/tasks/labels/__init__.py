"""Networks that classify whole images: training, evaluation and pseudo-labels."""
