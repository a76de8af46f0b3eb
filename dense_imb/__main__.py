"""`python -m dense_imb` is the command `dense-imb`."""

import sys

from dense_imb.base.imports import without_current_folder

if __name__ == "__main__":
    # Python searches the current folder first, where a file may come from anybody
    sys.path[:] = without_current_folder(sys.path)

    from dense_imb.cli import entry_point

    entry_point()
