"""`python -m dense_imb` is the command `dense-imb`."""

import sys

from dense_imb.cli import main

if __name__ == "__main__":
    sys.exit(main())
