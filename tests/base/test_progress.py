"""Progress bars of notebooks."""

from __future__ import annotations

import subprocess
import sys

# as in a notebook without ipywidgets
CODE = """
import sys, types, warnings
sys.modules["ipywidgets"] = None
sys.modules["ipykernel.zmqshell"] = sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython"].get_ipython = lambda: None
warnings.simplefilter("always")
from dense_imb.base.progress import tqdm
print(len(list(tqdm(range(3), disable=True))))
"""


def test_a_notebook_without_widgets_is_no_warning():
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")
