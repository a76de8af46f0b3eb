"""`python -m dense_imb` is the command `dense-imb`."""

from dense_imb.cli import entry_point

if __name__ == "__main__":
    entry_point()
