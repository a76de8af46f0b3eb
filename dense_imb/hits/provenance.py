"""Digests of what a denoised file was made by: the scorer with its weights, and the source."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dense_imb.base.hdf5 import identify_file
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.format import ContentHash
from dense_imb.hits.reader import HitsFile, HitsFiles, verify

_SIZE = 8  # bytes of a digest
_AT_ONCE = 4096  # events hashed together
_VERIFIED = 4_000_000_000  # bytes of the largest file that is compared with its hash


def digest_of_scorer(scorer: Scorer) -> str | None:
    """Return a digest of a scorer's weights and settings; None for a scorer with unknown state.

    A scorer may have a method `digest()`. Networks are hashed with their weights and their
    reading, frozen dataclasses by their fields.

    Example:
        >>> from dense_imb.hits.baselines import HitDensity
        >>> digest_of_scorer(HitDensity()) == digest_of_scorer(HitDensity(radius_xy=20.0))
        True
        >>> digest_of_scorer(HitDensity()) == digest_of_scorer(HitDensity(radius_xy=5.0))
        False
    """
    own = getattr(scorer, "digest", None)
    if callable(own):
        return str(own())
    digest = hashlib.blake2b(type(scorer).__name__.encode(), digest_size=_SIZE)
    network = getattr(scorer, "network", None)
    if isinstance(network, torch.nn.Module):
        reading = getattr(scorer, "reading", None)
        as_text = getattr(reading, "as_text", None)
        digest.update((as_text() if callable(as_text) else repr(reading)).encode())
        if (natural := getattr(reading, "natural", None)) is not None:  # fitted after the training
            digest.update(repr(natural).encode())
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
    settings: Any = getattr(type(scorer), "__dataclass_params__", None)
    if settings is not None and settings.frozen:
        digest.update(repr(scorer).encode())
        return digest.hexdigest()
    return None


def content_hash_of(file: HitsFile) -> str:
    """Return the content hash that a file stores, after a comparison with its content.

    A file that was edited in place is refused. Files above 4 GB are not read for it; one without
    a hash has that of its columns.
    """
    stored = file.attributes.get("content_hash")
    if stored is None:
        return json.dumps(_computed_digests(file), sort_keys=True)
    if file.path.stat().st_size <= _VERIFIED:
        _verify_once(file.path, file.locking, identify_file(file.path))
    return str(stored)


@lru_cache(maxsize=64)
def _verify_once(path: Path, locking: bool | str | None, identity: tuple[int, ...]) -> None:
    """Compare a file with its content hash, once as long as it stays the same file.

    Args:
        path: the file.
        locking: see `HitsFile`.
        identity: device, inode, size and time of the file.
    """
    verify(path, locking=locking)


def digest_of_source(hits: HitsFile | HitsFiles) -> str:
    """Return a digest of geometry and columns of a data set.

    It is made of the content hash that a file stores. Several files, and files without one, are
    read once; several have the digest of the file that holds their events.
    """
    digest = hashlib.blake2b(digest_size=_SIZE)
    geometry: Any = hits.geometry
    digest.update(str(getattr(geometry, "digest", None) or geometry).encode())
    columns = None if isinstance(hits, HitsFiles) else _stored_digests(hits)
    columns = _computed_digests(hits) if columns is None else columns
    digest.update(json.dumps(columns, sort_keys=True).encode())
    return digest.hexdigest()


def _stored_digests(file: HitsFile) -> dict[str, str] | None:
    """Return the digest of each column that a file stores; None if it stores none."""
    try:
        stored = dict(json.loads(str(file.attributes["content_hash"])))
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    groups = ("/hit/", "/event/")  # sensors have a digest of their own
    return {name: str(digest) for name, digest in stored.items() if name.startswith(groups)}


def _computed_digests(hits: HitsFile | HitsFiles) -> dict[str, str]:
    """Return the digest of each column, as the content hash of one file has it."""
    hashes: dict[str, ContentHash] = {}
    n_hits = 0
    for start in range(0, max(len(hits), 1), _AT_ONCE):
        events = hits[start : start + _AT_ONCE]
        rows = {f"/hit/{name}": column for name, column in events.hit_columns().items()}
        rows |= {f"/event/{name}": column for name, column in events.event.items()}
        offset = np.asarray(events.offset) + n_hits
        rows["/event/offset"] = offset[bool(start) :].astype(np.uint64)
        n_hits += events.n_hits
        for name, column in rows.items():
            if name not in hashes:
                hashes[name] = ContentHash(name, column.dtype, column.shape[1:])
            hashes[name].update(np.asarray(column))
    return {name: one.hexdigest() for name, one in hashes.items()}
