"""CIFAR as published: read as it is, and nothing in it is run."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from dense_imb.data.labels.cifar import open_cifar
from dense_imb.data.labels.long_tail import long_tail_counts

from .generated import small_data

FORMS = [(10, False), (10, True), (100, False), (100, True)]


def archive(folder: Path, n_classes: int = 10, binary: bool = False, per_class: int = 10) -> Path:
    files = small_data.cifar_files(n_classes, per_class, binary=binary)
    return small_data.write_archive(folder / "cifar.tar.gz", files)


def rewritten(path: Path, change) -> Path:
    """An archive whose members `change` gives anew, a list of (TarInfo, content)."""
    with tarfile.open(path) as before:
        members = [(m, before.extractfile(m).read() if m.isfile() else None) for m in before]
    with tarfile.open(path, "w:gz") as after:
        for member, content in change(members):
            member.size = len(content or b"")
            after.addfile(member, io.BytesIO(content) if content is not None else None)
    return path


def with_content(path: Path, name: str, content: bytes) -> Path:
    return rewritten(
        path, lambda members: [(m, content if m.name.endswith(name) else c) for m, c in members]
    )


@pytest.mark.parametrize(("n_classes", "binary"), FORMS)
def test_each_form_gives_its_images(tmp_path, n_classes, binary):
    files = small_data.cifar_files(n_classes, 10, binary=binary)
    train, test = open_cifar(small_data.write_archive(tmp_path / "c.tar.gz", files))
    assert train.class_counts == (10,) * n_classes
    assert test.class_counts == (4,) * n_classes
    first = small_data.patterns(test.labels, n_classes, seed=5 if n_classes == 10 else 1)
    assert (test.images(range(len(test))) == first).all()
    assert train.class_names[:2] == (
        ("airplane", "automobile") if n_classes == 10 else ("thing_00", "thing_01")
    )


@pytest.mark.parametrize("n_classes", [10, 100])
def test_pickled_and_binary_are_the_same(tmp_path, n_classes):
    both = []
    for binary in (False, True):
        (tmp_path / str(binary)).mkdir()
        both.append(open_cifar(archive(tmp_path / str(binary), n_classes, binary)))
    for one, other in zip(*both, strict=True):
        assert (one.labels == other.labels).all()
        assert (one.source.images == other.source.images).all()
        assert one.class_names == other.class_names


def test_the_generated_pickles_are_what_python_2_wrote():
    content = small_data.cifar_files()["cifar-10-batches-py/data_batch_1"]
    assert content.startswith(b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy 1's name for it
        stored = pickle.loads(content, encoding="bytes")  # our own bytes
    assert set(stored) == {b"batch_label", b"labels", b"data", b"filenames"}
    assert stored[b"data"].dtype == np.uint8
    assert stored[b"data"].shape == (len(stored[b"labels"]), 3072)


def test_a_folder_and_what_python_3_wrote_are_read_too(tmp_path):
    path = archive(tmp_path)
    wanted, _ = open_cifar(path)
    with tarfile.open(path) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    for folder in (tmp_path / "unpacked", tmp_path / "unpacked" / "cifar-10-batches-py"):
        assert (open_cifar(folder)[0].source.images == wanted.source.images).all()
    for protocol in (2, 3, 4):
        for file in folder.glob("*_batch*"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                stored = pickle.loads(file.read_bytes(), encoding="bytes")
            file.write_bytes(pickle.dumps(stored, protocol))
        assert (open_cifar(folder)[0].source.images == wanted.source.images).all()


@pytest.mark.parametrize("ratio", [5, 0.2])
@pytest.mark.parametrize("profile", ["exponential", "step"])
def test_long_tails_have_their_counts_and_whole_tests(tmp_path, ratio, profile):
    train, test = open_cifar(archive(tmp_path), imb_ratio=ratio, profile=profile)
    assert train.class_counts == long_tail_counts(10, 10, 5, profile)
    assert test.class_counts == (4,) * 10
    whole, _ = open_cifar(archive(tmp_path))
    whole_of = {image.tobytes(): k for image, k in zip(whole.source.images, whole.labels)}  # noqa: B905
    for image, label in zip(train.source.images, train.labels, strict=True):
        assert whole_of[image.tobytes()] == label


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_runs_nothing(tmp_path, name):
    path = with_content(archive(tmp_path), name, pickle.dumps({"data": Evil(tmp_path / "run")}, 2))
    with pytest.raises(ValueError, match=r"the name posix.mkdir, which has no place there"):
        open_cifar(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "got"),
        (b"\x80\x02]q\x01.", "no dictionary"),
        (b"\x80\x02}q\x01.", "got 'labels'"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"\x80\x02cnumpy\nndarray\n}b.", "got"),  # a state for the class itself
        (b"\x80\x02c_codecs\nencode\n}U\x01aU\x01bsb.", "got"),  # attributes for a function
        (b"\x80\x02]r\xff\xff\xff\x7f.", "no dictionary"),  # a memo of 2^31 places
        (b"\x80\x02\x8a\xff" + b"\x01" * 255 + b".", "int, no dictionary"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00.", "got"),  # a frame of 72 petabytes
        (pickle.dumps({"labels": [1, 2], "data": [1]}, 2), "data that are list"),
        (pickle.dumps({"labels": [1.5], "data": []}, 2), "no list of whole numbers"),
        (pickle.dumps({"labels": [1], "data": np.zeros((1, 3072))}, 2), "something else than byte"),
        (pickle.dumps({"labels": [1], "data": np.zeros((1, 9), np.uint8)}, 2), "not 3072 bytes"),
        (pickle.dumps({"labels": [10], "data": np.zeros((1, 3072), np.uint8)}, 2), "labels from"),
        (pickle.dumps({"labels": [1], "data": np.array([[{}]], object)}, 2), "something else"),
    ],
)
def test_damaged_batches_are_one_sentence(tmp_path, content, sentence):
    path = with_content(archive(tmp_path), "data_batch_2", content)
    with pytest.raises(ValueError, match=rf"CIFAR as published in data_batch_2.*{sentence}"):
        open_cifar(path)


def extra(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (extra("cifar-10-batches-py/data_batch_1", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (extra("cifar-10-batches-py/x", tarfile.LNKTYPE, "cifar-10-batches-py/test"), "a link"),
        (extra("cifar-10-batches-py/null", tarfile.CHRTYPE), "a link or a device"),
        (extra("../outside"), "leads out"),
        (extra("cifar-10-batches-py/../../outside"), "leads out"),
        (extra("/etc/outside"), "leads out"),
        (extra("cifar-10-batches-py/data_batch_1"), "twice"),
    ],
)
def test_archives_with_links_and_ways_out_are_refused(tmp_path, member, sentence):
    content = b"x" if member.isfile() else None
    path = rewritten(archive(tmp_path), lambda members: [*members, (member, content)])
    with pytest.raises(ValueError, match=sentence):
        open_cifar(path)
    assert [p.name for p in tmp_path.iterdir()] == ["cifar.tar.gz"]


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 1 << 30
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf())
        for _ in range(64):
            file.write(bytes(1 << 24))
    with pytest.raises(ValueError, match="more than 536,870,912 bytes when unpacked"):
        open_cifar(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_an_archive_cut_short_is_refused(tmp_path, share):
    path = archive(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="Expected"):
        open_cifar(path)


@pytest.mark.parametrize("name", ["data_batch_4", "test_batch", "batches.meta"])
def test_a_missing_file_is_named(tmp_path, name):
    path = rewritten(
        archive(tmp_path), lambda members: [m for m in members if not m[0].name.endswith(name)]
    )
    with pytest.raises(ValueError, match=f"Expected {name} in"):
        open_cifar(path)


def test_binary_batches_hold_whole_records(tmp_path):
    path = with_content(archive(tmp_path, binary=True), "data_batch_1.bin", b"\x01" * 3074)
    with pytest.raises(ValueError, match="no whole number of images"):
        open_cifar(path)


def test_what_is_no_cifar_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    for path in (tmp_path, tmp_path / "text", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="Expected"):
            open_cifar(path)
