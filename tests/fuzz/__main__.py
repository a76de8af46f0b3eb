"""The long form, and the replay of a mutant."""

import os
import sys

# before torch is imported: children are forked from a process of one thread
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from tests.fuzz.campaign import main  # noqa: E402

sys.exit(main())
