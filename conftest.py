"""Names for the worked examples in the docstrings, and the division of tests among processes."""

import os
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' processes share the cores

import pytest
import torch
from hypothesis import HealthCheck, settings

import dense_imb.curves
import dense_imb.losses
import dense_imb.metrics
from dense_imb.statistics import ClassStatistics

# a busy machine is no failure
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# modules that another library's absence keeps from being imported or shown: their tests skip
_NEED = {
    "dense_imb/integrations/monai/*": "ignite",
    "dense_imb/integrations/lightning.py": "lightning",
    "dense_imb/integrations/nnunet/trainers.py": "nnunetv2",
    "tests/integrations/nnunet_pair.py": "nnunetv2",
    # files whose examples need an extra
    "dense_imb/data/events/formats/records.py": "pyarrow",
    "dense_imb/data/events/formats/root.py": "uproot",
    "dense_imb/export/speed.py": "onnxruntime",
}
collect_ignore_glob = [path for path, package in _NEED.items() if find_spec(package) is None]
# nnU-Net imports it by its bare name
collect_ignore_glob.append("dense_imb/integrations/nnunet/search_path/*")


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    doctest_namespace["torch"] = torch
    doctest_namespace["ClassStatistics"] = ClassStatistics
    for room in (dense_imb.losses, dense_imb.curves, dense_imb.metrics):
        for name in room.__all__:
            doctest_namespace[name] = getattr(room, name)


# rooms whose files share trained runs, each made once in a process
_SHARED = ("tests/report/", "tests/export/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each file to one process (`--dist loadgroup`), so that its fixtures are made once."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = next((room for room in _SHARED if file.startswith(room)), file)
        item.add_marker(pytest.mark.xdist_group(group))
