"""The number of CPU threads: affinity, containers, Slurm."""

import os

import pytest
import torch

from dense_imb.base import threads


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 8 CPUs without limits, whose control groups are files in a folder."""
    monkeypatch.setattr(threads, "_ROOT", tmp_path)
    monkeypatch.setattr(threads, "cpus_of_affinity", lambda: 8)
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)
    os.environ.pop("OMP_NUM_THREADS", None)  # monkeypatch restores what was there


def control_groups(root, membership, **files):
    texts = {"proc/self/cgroup": membership}
    texts |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_without_limits_the_affinity_counts(machine):
    assert threads.usable_cpus() == 8
    assert threads.share_of_cpus(3) == 2
    assert threads.share_of_cpus(100) == 1


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # rounded up
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {}, 8),
        # the smallest of the group and those that hold it
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        # a container whose own path is not mounted: the root is its group
        ("0::/docker/0123\n", {"cpu.max": "400000 100000"}, 4),
        (
            "9:memory:/x\n4:cpu,cpuacct:/x\n0::/\n",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "500000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
    ],
)
def test_the_quota_of_a_container_counts(machine, membership, files, expected):
    control_groups(machine, membership, **files)
    assert threads.usable_cpus() == expected


@pytest.mark.parametrize(("value", "expected"), [("2", 2), ("16", 8), ("0", 1), ("many", 8)])
def test_the_share_of_a_slurm_task_counts(machine, monkeypatch, value, expected):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", value)
    assert threads.usable_cpus() == expected


def test_a_number_of_threads_reaches_torch_and_the_processes_it_starts(machine):
    threads.use_threads(3, 4)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert torch.get_num_threads() == 3


def test_processes_share_the_cpus(machine):
    threads.use_threads(None, 4)
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_one_process_keeps_the_default_of_the_libraries(machine):
    threads.use_threads()
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_number_that_was_set_stays(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    threads.use_threads(None, 4)
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_no_thread_is_refused(machine):
    with pytest.raises(ValueError, match="Expected `threads` of at least 1, got 0"):
        threads.use_threads(0)
