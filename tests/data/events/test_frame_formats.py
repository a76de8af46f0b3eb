"""Dense frames of others: every value arrives, and hostile files are refused unread."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.data.events.formats import frames as module
from dense_imb.data.events.formats import (
    frames_source,
    image_source,
    npy_source,
    npz_source,
    pt_source,
)
from tests.data.events.other_formats import HEIGHT, WIDTH, dense, frames, labels_of, read

TIME = frames()
LABEL = labels_of(TIME)


def write_npy(folder):
    np.save(folder / "a.npy", TIME)
    np.save(folder / "labels.npy", LABEL)
    return npy_source(folder / "a.npy", folder / "labels.npy")


def write_fortran_npy(folder):
    np.save(folder / "a.npy", np.asfortranarray(TIME.astype(">u2")))
    np.save(folder / "labels.npy", LABEL)
    return npy_source(folder / "a.npy", folder / "labels.npy")


def write_npz(folder):
    np.savez_compressed(folder / "a.npz", frames=TIME[:, None], labels=LABEL[:, None])
    return npz_source(folder / "a.npz", labels="labels")


def write_pt(folder):
    bundle = {"frames": torch.from_numpy(TIME), "labels": torch.from_numpy(LABEL), "epoch": 3}
    torch.save(bundle, folder / "a.pt")
    return pt_source(folder / "a.pt", "frames", "labels")


def write_half_pt(folder):
    torch.save(
        {"f": torch.from_numpy(TIME.astype(np.float16)), "l": torch.from_numpy(LABEL)},
        folder / "a.pt",
    )
    return pt_source(folder / "a.pt", "f", "l")


def write_images(folder):
    for name, stack in (("images", TIME), ("masks", LABEL)):
        (folder / name).mkdir()
        for i, pixels in enumerate(stack):
            Image.fromarray(pixels).save(folder / name / f"{i}.{'tif' if i % 2 else 'png'}")
    return image_source(folder / "images", folder / "masks")


WRITERS = [write_npy, write_fortran_npy, write_npz, write_pt, write_half_pt, write_images]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("n_at_once", [1, 4, 100])
def test_every_value_and_label_arrives(tmp_path, monkeypatch, write, n_at_once):
    monkeypatch.setattr(module, "BATCH_BYTES", 8 * HEIGHT * WIDTH * n_at_once)
    source = write(tmp_path)
    assert (source.width, source.height, source.n_events) == (WIDTH, HEIGHT, len(TIME))
    for _ in range(2):  # a source can be read again
        events = read(source)
        assert np.array_equal(dense(events), TIME)
        assert np.array_equal(dense(events, events.label), LABEL)
    assert source.n_labels_lost == 0


def test_blocks_stay_small(monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 8 * HEIGHT * WIDTH * 3)
    asked = []

    class Spy:
        shape, dtype = (10, HEIGHT, WIDTH), np.dtype(np.uint16)

        def __getitem__(self, rows):
            asked.append((rows.start, rows.stop))
            return np.zeros((rows.stop - rows.start, HEIGHT, WIDTH), np.uint16)

    read(frames_source("spy", Spy()))
    assert asked == [(0, 3), (3, 6), (6, 9), (9, 10)]
    asked.clear()
    read(frames_source("spy", Spy(), rows_at_once=5))  # whole chunks
    assert asked == [(0, 5), (5, 10)]


def test_labels_of_empty_pixels_are_counted():
    label = LABEL.copy()
    label[2, 0, :3] = 1
    source = frames_source("a", TIME, label)
    assert np.array_equal(dense(read(source), read(source).label), LABEL)
    assert source.n_labels_lost == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.astype(float) * np.nan, "finite values in a, got NaN or infinity in frame 0"),
        (lambda a: a.astype(int) * -1, "at least 0 in a.*in frame 0"),
        (lambda a: a[0], r"\(N, H, W\) or \(N, 1, H, W\) in a, got an array of \(5, 7\)"),
        (lambda a: a[:, None, None], r"got an array of \(6, 1, 1, 5, 7\)"),
        (lambda a: a.astype(complex), "Expected numbers in a, got complex128"),
        (lambda a: a[:, :0], r"got an array of \(6, 0, 7\)"),
    ],
)
def test_what_is_no_frame_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(frames_source("a", change(TIME)))


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="labels of a in the shape of its frames"):
        frames_source("a", TIME, LABEL[1:])


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["pt", "legacy.pt", "npy", "npz"])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"bad.{kind}"
    open_source = {"npy": npy_source, "npz": npz_source}.get(kind, pt_source)
    if kind == "pt":
        torch.save({"frames": torch.ones(2, 3, 3), "more": Bomb()}, path)
    elif kind == "legacy.pt":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        save = np.save if kind == "npy" else np.savez
        save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"^Expected .*bad\.") as problem:
        open_source(path)
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    torch.save(torch.ones(1, 1, 1).expand(10**9, 64, 64), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="stored whole, got a tensor of"):
        pt_source(tmp_path / "a.pt")


def npz_with(path, header_shape, data, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    header = {"descr": "<u2", "fortran_order": False, "shape": header_shape}
    np.lib.format.write_array_header_2_0(stream, header)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("frames.npy", stream.getvalue() + data)


def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path):
    npz_with(tmp_path / "a.npz", (10**9, 1000, 1000), bytes(2000))
    with pytest.raises(ValueError, match="stored whole, got 2,000,000,000,000,000 bytes declared"):
        npz_source(tmp_path / "a.npz")


def test_damaged_files_are_one_sentence(tmp_path):
    for name, open_source in (("a.npy", npy_source), ("a.npz", npz_source), ("a.pt", pt_source)):
        (tmp_path / name).write_bytes(b"\x93NUMPY nonsense")
        with pytest.raises(ValueError, match=f"Expected .*{name}.* to be a"):
            open_source(tmp_path / name)
    np.savez_compressed(tmp_path / "b.npz", frames=np.random.default_rng(0).random((9, 40, 40)))
    whole = bytearray((tmp_path / "b.npz").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "b.npz").write_bytes(whole)
    with pytest.raises(ValueError, match=r"Expected .*b\.npz to be a \.npz archive, got"):
        read(npz_source(tmp_path / "b.npz"), 40, 40)


def test_the_keys_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", one=TIME, two=TIME)
    with pytest.raises(ValueError, match=r"one of \['one', 'two'\], got none"):
        npz_source(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="got 'three'"):
        npz_source(tmp_path / "a.npz", "three")
    assert np.array_equal(dense(read(npz_source(tmp_path / "a.npz", "two"))), TIME)


def test_images_of_a_pattern_and_of_one_size(tmp_path):
    write_images(tmp_path)
    source = image_source(tmp_path / "images", tmp_path / "masks", "[13].*")
    assert np.array_equal(dense(read(source)), TIME[[1, 3]])
    with pytest.raises(ValueError, match="that match none"):
        image_source(tmp_path / "images", pattern="none*")
    Image.fromarray(np.ones((2, 2), np.uint8)).save(tmp_path / "images" / "9.png")
    with pytest.raises(ValueError, match=r"images of one size.*9\.png"):
        read(image_source(tmp_path / "images"))
    Image.fromarray(np.ones((5, 7, 3), np.uint8)).save(tmp_path / "images" / "0.png")
    with pytest.raises(ValueError, match="one number a pixel"):
        image_source(tmp_path / "images")
