"""Damaged, foreign and hostile files are refused by name, and nothing of them is executed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dense_imb.hits import HitsFile, HitsFileError, HitsFiles, verify
from tests.hits.files import some_events, write
from tests.limits import HANG_SECONDS

EVENTS = some_events(30)
LAST = int(np.searchsorted(EVENTS.offset, EVENTS.n_hits)) - 1  # the last event with hits


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "good.h5", EVENTS)


@pytest.fixture
def path(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(good, tmp_path / "bad.h5"))


Fault = Callable[[h5py.File], None]


def attribute(name: str, value: object) -> Fault:
    return lambda file: file.attrs.__setitem__(name, value)


def missing(name: str) -> Fault:
    return lambda file: file.__delitem__(name)


def value(name: str, index: int, number: float) -> Fault:
    return lambda file: file[name].__setitem__(index, number)


def replaced(name: str, **options: object) -> Fault:
    """The data set made anew, or something else in its place."""

    def change(file: h5py.File) -> None:
        del file[name]
        if "link" in options:
            file[name] = options["link"]
        else:
            file.create_dataset(name, **options)

    return change


def shorter(name: str) -> Fault:
    return lambda file: file[name].resize(len(file[name]) - 1, axis=0)


def real_times(file: h5py.File) -> None:
    times = file["hit/t"][:].astype(np.float32)
    times[-1] = np.nan
    replaced("hit/t", data=times)(file)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((EVENTS.n_hits,), "<u2")
    layout[:] = h5py.VirtualSource("/etc/passwd", "secret", shape=(EVENTS.n_hits,))
    del file["hit/x"]
    file.create_virtual_dataset("hit/x", layout)


def unknown_filter(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((100,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((EVENTS.n_hits,))
    del file["hit/x"]
    h5py.h5d.create(file.id, b"hit/x", h5py.h5t.STD_U16LE, space, plist)


def bomb(file: h5py.File) -> None:
    """A whole data set as deflate can't have packed it: two deflates, one over the other."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1 << 22,))
    plist.set_deflate(9)
    plist.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    space = h5py.h5s.create_simple((1 << 24,))
    del file["hit/x"]
    made = h5py.h5d.create(file.id, b"hit/x", h5py.h5t.STD_U16LE, space, plist)
    h5py.Dataset(made)[:] = 0


def half_stored(file: h5py.File) -> None:
    replaced("hit/x", shape=(EVENTS.n_hits,), dtype="<u2", chunks=(100,), compression="gzip")(file)
    file["hit/x"][:100] = 1


def many_names(file: h5py.File) -> None:
    for k in range(1000):
        file[f"hit/q{k}"] = file["hit/momentum"]


HUGE = {"shape": (1 << 40,), "dtype": "<f4"}  # 4 TiB
FAULTS: dict[str, tuple[Fault, str]] = {
    "format": (attribute("format", np.bytes_("other")), " F to be 'dense-imb-hits', got 'other'"),
    "no format": (lambda f: f.attrs.__delitem__("format"), "`format` of F .* got None"),
    "version": (attribute("format_version", 3), "`format_version` of F to be 1 or 2, got 3; a new"),
    "no table": (attribute("format_version", 2), "`geometry` of F .* 'sensors', got None; a newer"),
    "variable length": (attribute("format", "dense-imb-hits"), "`format` of F .* fixed length"),
    "no width": (lambda f: f.attrs.__delitem__("width"), "`width` of F to be a number, got None"),
    "width 0": (attribute("width", 0), "`attributes` of F, got: Expected `width`"),
    "width of text": (attribute("width", np.bytes_("wide")), "`width` of F .* got 'wide'"),
    "array of attributes": (attribute("width", np.arange(9)), "`width` of F to be one number"),
    "no group": (missing("hit"), "group `/hit` in F"),
    "group is data": (replaced("event", data=np.arange(3)), "group `/event` in F"),
    "no column": (missing("hit/y"), "data set `/hit/y` in F"),
    "data is group": (lambda f: f["hit"].create_group("more"), "`/hit/more` of F to be a data set"),
    "no data space": (replaced("hit/x", data=h5py.Empty("<u2")), "`/hit/x` of F to hold rows"),
    "scalar": (replaced("event/run", data=1), "`/event/run` of F to hold rows"),
    "type of x": (replaced("hit/x", data=EVENTS.x.astype("<i4")), "`/hit/x` of F .* got int32"),
    "two dimensions": (replaced("hit/t", data=EVENTS.t[:, None]), "`/hit/t` of F in one dimension"),
    "text": (replaced("event/run", data=["a"] * 30), "`/event/run` of F to hold rows of bool"),
    "big endian": (replaced("hit/momentum", data=EVENTS.x.astype(">f8")), "little endian"),
    "lengths": (shorter("hit/y"), rf"`/hit/y` of F .* the {EVENTS.n_hits} hits, got"),
    "lengths of label": (shorter("hit/label"), "`/hit/label` of F"),
    "lengths of run": (shorter("event/run"), "`/event/run` of F .* 30 events, got 29"),
    "lengths of offset": (shorter("event/offset"), "`/event/offset` of F|`/event/.*` of F"),
    "no offsets": (replaced("event/offset", data=np.zeros(0, "<u8")), "`/event/offset` of F"),
    "offsets begin": (value("event/offset", 0, 1), "`/event/offset` of F to begin with 0, got 1"),
    "offsets backwards": (
        value("event/offset", 9, EVENTS.n_hits),
        f"`/event/offset` of F never to decrease, got {EVENTS.n_hits} then .* in event 9;",
    ),
    "offsets beyond": (value("event/offset", 30, 1 << 63), "`/event/offset` of F to end with"),
    "offsets too few": (value("event/offset", 30, EVENTS.n_hits - 1), "`/event/offset` of F"),
    "x outside": (value("hit/x", -1, 88), f"`/hit/x` of F from 0 to 87, got 88 in event {LAST} "),
    "y outside": (value("hit/y", -1, 128), f"`/hit/y` of F .* got 128 in event {LAST} "),
    "t zero": (value("hit/t", -1, 0), f"`/hit/t` of F from 1 to 1000, got 0 in event {LAST} "),
    "t late": (value("hit/t", -1, 1001), f"`/hit/t` of F .* got 1001 in event {LAST} "),
    "t NaN": (real_times, f"`/hit/t` of F .* got nan in event {LAST} "),
    "soft link": (replaced("hit/x", link=h5py.SoftLink("/hit/y")), "`/hit/x` of F .* SoftLink"),
    "external link": (
        replaced("hit/x", link=h5py.ExternalLink("good.h5", "/hit/x")),
        "`/hit/x` of F .* ExternalLink",
    ),
    "group linked": (
        replaced("hit", link=h5py.ExternalLink("good.h5", "/hit")), "`/hit` of F .* ExternalLink"
    ),
    "lengths further": (replaced("hit/q", data=[1]), "`/hit/q` of F with one row"),
    "virtual": (virtual, "`/hit/x` of F .* virtual"),
    "external storage": (
        replaced("hit/x", shape=(4,), dtype="<u2", external=[("/etc/passwd", 0, 8)]),
        "`/hit/x` of F .* external storage",
    ),
    "filter": (unknown_filter, r"`/hit/x` of F .* \[32015\]"),
    "huge": (replaced("hit/t", **HUGE, chunks=(1 << 16,)), r"`/hit/t` of F .* 4,398,046\.5 MB"),
    "huge contiguous": (replaced("hit/t", **HUGE), "`/hit/t` of F to be stored whole"),
    "huge further": (replaced("hit/q", **HUGE, chunks=(1 << 16,)), "`/hit/q` of F"),
    "huge gzip": (replaced("hit/t", **HUGE, compression="gzip", chunks=(9999,)), "`/hit/t` of F"),
    "huge chunk": (replaced("hit/q", shape=(9,), maxshape=(None,), dtype="<f8",
                            chunks=(1 << 28,), compression="gzip"), "`/hit/q` of F"),
    "bomb": (bomb, "`/hit/x` of F to be stored whole"),
    "many names": (many_names, "data sets of F to fit in its"),
    "half stored": (half_stored, "`/hit/x` of F to be stored whole"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_by_name(path: Path, name: str) -> None:
    change, message = FAULTS[name]
    with h5py.File(path, "r+") as file:
        if name.endswith(("further", "chunk")):
            file["hit/q"] = np.zeros(EVENTS.n_hits)
        change(file)
    for open_it in (HitsFile, HitsFiles):
        with pytest.raises(HitsFileError, match=message.replace(" F", rf" {path}")) as caught:
            open_it(path)
        sentence = str(caught.value)
        assert sentence.startswith("Expected ")
        assert sentence.endswith(".")
        assert "\n" not in sentence


def test_the_good_file_is_good(path: Path) -> None:
    HitsFile(path).close()
    assert len(verify(path)) == 11


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HitsFile(tmp_path / "none.h5")
    with pytest.raises(HitsFileError, match="a folder or a device"):
        HitsFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HitsFileError, match="a folder or a device"):
        HitsFile(tmp_path / "pipe")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["frames"] = np.zeros((3, 128, 88))
    (tmp_path / "text.h5").write_text("event,x,y,t\n")
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("foreign.h5", "text.h5", "empty.h5"):
        for read in (HitsFile, verify):
            with pytest.raises(HitsFileError, match=f"Expected .*{name}"):
                read(tmp_path / name)


def test_a_truncated_file_is_refused_at_any_length(path: Path) -> None:
    size = path.stat().st_size
    lengths = {0, 1, 7, 8, 47, 48, 500, 2000, size // 2, size - 1} | set(range(0, size, size // 50))
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        for read in (HitsFile, verify):
            with pytest.raises(HitsFileError, match="truncated"):
                read(path)


@pytest.mark.parametrize(
    "name",
    ["/hit/x", "/hit/y", "/hit/t", "/hit/label", "/hit/score", "/hit/keep", "/hit/momentum",
     "/event/offset", "/event/run", "/event/is_calibration"],
)  # fmt: skip
def test_a_flipped_bit_in_the_data_is_refused(path: Path, name: str) -> None:
    with h5py.File(path) as file:
        place = file[name].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(HitsFileError, match=rf"{path} .* another in `{name}`;"):
        verify(path)


def test_a_file_without_its_hash(path: Path) -> None:
    for stored in ("{}", "[1]", "no json", None):
        with h5py.File(path, "r+") as file:
            if stored is None:
                del file.attrs["content_hash"]
            else:
                file.attrs["content_hash"] = np.bytes_(stored)
        HitsFile(path).close()  # it reads
        with pytest.raises(HitsFileError, match="content_hash|another in"):
            verify(path)


FLIP = """
import sys
from pathlib import Path
from dense_imb.hits import HitsFileError, HitsFile, verify
path = Path(sys.argv[1])
good = path.read_bytes()
for place in [*range(0, 4096, 13), *range(4096, len(good), 4099)]:
    data = bytearray(good)
    data[place] ^= 1 << place % 8
    path.write_bytes(data)
    for read in (HitsFile, verify):
        try:
            read(path)
        except HitsFileError as problem:
            assert str(path) in str(problem), problem
        else:
            if read is verify and place < 4096:
                print(place)
"""


@pytest.mark.slow
def test_a_flipped_bit_anywhere_never_crashes(path: Path) -> None:
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(  # in a process of its own: HDF5 may crash, or loop for ever
        [sys.executable, "-c", FLIP, str(path)],
        capture_output=True, text=True, check=False, cwd=root, timeout=HANG_SECONDS,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    # what describes the data has checksums; elsewhere a bit may fall between the rows
    assert len(ran.stdout.split()) < 30, ran.stdout
