"""What a kill leaves while weights are written is cleared by the next start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from dense_imb.base.files import clear_leftovers

KILLED = """
import os, signal
from pathlib import Path
from types import SimpleNamespace
import torch
from dense_imb.runs import write

def save_half(network, name):
    Path(name).parent.joinpath(".tmphhSdj4").write_bytes(b"half")  # as safetensors does
    os.kill(os.getpid(), signal.SIGKILL)

write.save_model = save_half
accelerator = SimpleNamespace(unwrap_model=lambda network: network)
loop = SimpleNamespace(network=torch.nn.Linear(1, 1), accelerator=accelerator)
write._save_weights(loop, Path("best.safetensors"))
"""


def test_nothing_is_left_of_weights_that_were_half_written(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [*tmp_path.rglob("*")]
    clear_leftovers(tmp_path)
    assert not [*tmp_path.rglob("*")]
