"""The long form, and the replay of a case."""

import os
import sys

# before torch is imported: children are forked from a process of one thread
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from tests.faults.soak import main  # noqa: E402

if __name__ == "__main__":  # and not in the processes of --devices 2
    sys.exit(main())
