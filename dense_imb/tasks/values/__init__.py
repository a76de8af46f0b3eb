"""Networks that predict maps of values: training, evaluation and prediction."""
