"""HDF5: hits files of both versions, images with masks and maps of values, lists of hits."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dense_imb.data.events.convert import to_hits
from dense_imb.data.events.formats import Source, hdf5_frames_source, hdf5_hits_source
from dense_imb.data.events.formats.hdf5 import has_frames
from dense_imb.data.images.labelled import open_labelled
from dense_imb.data.values.pairs import open_values
from dense_imb.hits import HitsWriter, open_hits, verify
from dense_imb.hits.format import ContentHash, attributes_digest
from tests.fuzz.format import Format, of_bytes, unsealed, unsealed_reader
from tests.fuzz.mutate import NUMBERS, TEXTS, mutated_bytes
from tests.hits.files import FRAME, some_events, some_sensor_events, some_sensors

_TYPES = ("u1", "i1", "u2", "<i4", ">i4", "u8", "f2", "f4", ">f8", "c8", "S3", "?", "V2")


def columns_of(path: Path, *, in_memory: bool = True) -> dict[str, Any]:
    """Return the columns and the geometry of a hits file."""
    with open_hits(path, in_memory=in_memory) as hits:
        events = hits[:]
        columns: dict[str, Any] = {
            "geometry": vars(hits.geometry),
            "offset": events.offset,
            **{f"hit {name}": column for name, column in events.hit_columns().items()},
            **{f"event {name}": column for name, column in events.event.items()},
        }
    return columns


def read_hits(path: Path) -> Any:
    """Read a hits file as `train` does, from memory and from the disk."""
    return [columns_of(path, in_memory=in_memory) for in_memory in (True, False)]


def read_verified(path: Path) -> Any:
    """Read a hits file as `inspect --verify` does."""
    digests = verify(path)
    return digests, read_hits(path)


def make_grid(folder: Path) -> None:
    with HitsWriter(folder / "a.h5", FRAME) as writer:
        writer.append(some_events(20))


def make_sensors(folder: Path) -> None:
    with HitsWriter(folder / "a.h5", some_sensors()) as writer:
        writer.append(some_sensor_events(20))


def change_hdf5(rng: random.Random, path: Path) -> bool:
    """Change attributes, data sets and groups with h5py."""
    with contextlib.suppress(Exception), h5py.File(path, "r+") as file:
        for _ in range(rng.choice((1, 1, 2))):
            with contextlib.suppress(Exception):  # h5py refuses some
                rng.choice((_attribute, _attribute, _dataset, _cells, _rows, _link))(rng, file)
    return True


def _attribute(rng: random.Random, file: Any) -> None:
    holders = [file, *(file[name] for name in _names(file))]
    holder = rng.choice([one for one in holders if len(one.attrs)] or holders)
    name = rng.choice([*holder.attrs, "extra"])
    change = rng.random()
    if change < 0.2:
        del holder.attrs[name]
    elif change < 0.4:
        other = rng.choice([*holder.attrs])
        values = holder.attrs[name], holder.attrs[other]
        holder.attrs[other], holder.attrs[name] = values
    else:
        number, text = rng.choice(NUMBERS), rng.choice(TEXTS)
        holder.attrs[name] = rng.choice((
            number, text, np.bytes_(text.encode(errors="surrogatepass")), [number] * 3,
            h5py.Empty("f4"), json.dumps({text: number}), json.dumps([text] * 3),
            np.bytes_(json.dumps(text)), np.bytes_(b"[" * 5000),
        ))  # fmt: skip


def _dataset(rng: random.Random, file: Any) -> None:
    name = rng.choice(_names(file))
    rows = file[name][()]
    del file[name]
    change = rng.random()
    if change < 0.2:
        return
    if change < 0.5:
        rows = rows.astype(rng.choice(_TYPES))
    elif change < 0.7:
        rows = rng.choice((rows[:-1], np.concatenate([rows, rows]), rows[:0], rows[..., None]))
    elif change < 0.8:
        rows = np.reshape(rows, -1)
    shape = [*rows.shape]
    if change > 0.8 and shape:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2**31, 2**40, 2**62))
        file.create_dataset(name, shape, rows.dtype, chunks=tuple(min(n, 16) or 1 for n in shape))
        return
    file.create_dataset(name, data=rows, fletcher32=rows.size > 0 and rng.random() < 0.5)


def _cells(rng: random.Random, file: Any) -> None:
    """Write extreme numbers to some entries."""
    dataset = file[rng.choice(_names(file))]
    with np.errstate(all="ignore"):
        rows = dataset[()]
        flat = rows.reshape(-1)
        for _ in range(rng.choice((1, 5))):
            value = np.array(rng.choice(NUMBERS), object).astype(float).astype(rows.dtype)
            flat[rng.randrange(len(flat))] = value
        dataset[...] = rows


def _rows(rng: random.Random, file: Any) -> None:
    """Change the number of rows that a data set declares."""
    dataset = file[rng.choice(_names(file))]
    dataset.resize(rng.choice((0, 1, len(dataset) + 1, 2**33, 2**62)), axis=0)


def _link(rng: random.Random, file: Any) -> None:
    name, other = rng.choice(_names(file)), rng.choice(_names(file))
    kinds = rng.choice((
        lambda: h5py.SoftLink(f"/{name}"), lambda: h5py.SoftLink(f"/{other}"),
        lambda: h5py.ExternalLink("other.h5", name), lambda: file[other], lambda: file,
    ))  # fmt: skip
    new = kinds()
    del file[name]
    file[name] = new


def _names(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
    return names


def change_and_seal(rng: random.Random, path: Path) -> bool:
    """Change a hits file, and write the content hash that belongs to it."""
    change_hdf5(rng, path)
    with contextlib.suppress(Exception), h5py.File(path, "r+") as file:
        attributes = {n: v.item() for n, v in file.attrs.items() if n != "content_hash"}
        attributes = {n: v.decode() if isinstance(v, bytes) else v for n, v in attributes.items()}
        digests = {"/": attributes_digest(attributes)}
        for name in _names(file):
            digest = ContentHash(f"/{name}", file[name].dtype, file[name].shape[1:])
            digest.update(file[name][()])
            digests[f"/{name}"] = digest.hexdigest()
        file.attrs["content_hash"] = np.bytes_(json.dumps(digests).encode())
    return False


def make_images(folder: Path) -> None:
    """Write images with masks and maps, with checksums of everything."""
    rng = np.random.default_rng(0)
    options = {"chunks": (1, 12, 10), "fletcher32": True}
    with h5py.File(folder / "a.h5", "w", libver=("v110", "v110")) as file:
        image = rng.integers(0, 255, (4, 12, 10, 3), np.uint8)
        file.create_dataset("image", data=image, chunks=(1, 12, 10, 3), fletcher32=True)
        file["image"].attrs["channel_axis"] = -1
        mask = rng.integers(0, 3, (4, 12, 10), np.uint8)
        file.create_dataset("mask", data=mask, compression="gzip", **options)
        file.create_dataset("target", data=rng.random((4, 12, 10), np.float32), **options)
        file.create_dataset("cells", data=mask, **options)
        file["cells"].attrs["names"] = np.bytes_(b'["a", "b", "c"]')
        file.attrs["classes"] = np.bytes_(b'["one", "two", "three"]')


def read_masks(path: Path) -> Any:
    """Read images with masks."""
    images = open_labelled(path, show_progress=False)
    pairs = [(images.image(i), images.label(i)) for i in range(len(images))]
    return images.class_names, pairs


def read_values(path: Path) -> Any:
    """Read images with maps of values and cells."""
    values = open_values(path, cells="cells", show_progress=False)
    return [(values.image(i), values.target(i), values.cell_map(i)) for i in range(len(values))]


def make_lists(folder: Path) -> None:
    """Write hits by event number, hits by offset, and frames."""
    rng = np.random.default_rng(0)
    with h5py.File(folder / "a.h5", "w", libver=("v110", "v110")) as file:
        options = {"chunks": (64,), "fletcher32": True}
        columns = {"event": np.repeat(np.arange(8), 8), "x": rng.integers(0, 20, 64)}
        columns |= {"y": rng.integers(0, 20, 64), "t": rng.integers(1, 50, 64)}
        columns |= {"label": rng.integers(0, 2, 64), "charge": rng.random(64)}
        for name, column in columns.items():
            file.create_dataset(name, data=column, **options)
    with h5py.File(folder / "b.h5", "w", libver=("v110", "v110")) as file:
        frames = rng.integers(0, 9, (4, 12, 10), np.uint16)
        file.create_dataset("frames", data=frames, chunks=(1, 12, 10), fletcher32=True)


def read_lists(path: Path) -> Any:
    """Convert a list of hits, or frames."""
    if has_frames(path):
        return converted(hdf5_frames_source(path), path)
    return converted(hdf5_hits_source(path), path, width=20, height=20)


def converted(source: Source, path: Path, **size: int) -> dict[str, Any]:
    """Convert to a hits file as `convert` does, and return its columns."""
    out = path.with_name("out.h5")
    to_hits(source, out, progress=False, overwrite=True, on_note=lambda note: None, **size)
    return columns_of(out)


def change_summed(rng: random.Random, path: Path) -> bool:
    """Change bytes of a file whose chunks have HDF5's own checksums, Fletcher-32.

    It is 0 for bytes that are all 0, and all ones for bytes that are all 255: where such runs are
    new, HDF5 cannot tell.
    """
    before = path.read_bytes()
    after = mutated_bytes(rng, before, header=2048)
    path.write_bytes(after)
    runs = (bytes(64), b"\xff" * 64)
    return all(after.count(run) <= before.count(run) for run in runs)


_HITS = (of_bytes(sealed=True, header=2048), change_hdf5, change_and_seal)
# train and denoise read hits without --verify, which alone compares them with their hash
FORMATS = {
    "hits v1": Format(make_grid, (read_verified, unsealed_reader(read_hits)), _HITS),
    "hits v2": Format(make_sensors, (read_verified, unsealed_reader(read_hits)), _HITS),
    "image HDF5": Format(
        make_images,
        (read_masks, read_values),
        (change_summed, unsealed(change_hdf5)),
    ),
    "list HDF5": Format(make_lists, (read_lists,), (change_summed, unsealed(change_hdf5))),
}
