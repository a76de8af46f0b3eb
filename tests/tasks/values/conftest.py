"""A trained run on small maps of values, shared by the tests of its use."""

from __future__ import annotations

import pytest

from dense_imb.runs import Run, train
from tests.data.values.value_files import spots, write_hdf5, write_values
from tests.tasks.values.tiny_values import tiny_values


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_values(tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="package")
def trained(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose loss is balanced: its raw maps are too bright."""
    config = tiny_values(folders, steps=150, validate_every=50, loss="ACBMSELoss")
    return train(config, tmp_path_factory.mktemp("runs") / "spots", is_quiet=True)


@pytest.fixture(scope="package")
def bits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An HDF5 file with two overlapping cells, around the spot and the upper half."""
    images, targets = spots(8, (40, 48))
    cells = (targets > 0).astype("uint16")
    cells[:, :20] |= 2
    path = tmp_path_factory.mktemp("bits") / "a.h5"
    return write_hdf5(path, ["spot", "upper"], image=images, target=targets, cells=cells)
