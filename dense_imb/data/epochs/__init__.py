"""The samples of an epoch: class-balanced sampling, mixing, crops and strong views."""
