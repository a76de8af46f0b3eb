"""ROOT trees, read with uproot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dense_imb.base.files import decoding
from dense_imb.base.refusals import Refused
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import Source, make_events
from dense_imb.hits import Events, Geometry

_STEP = "16 MB"  # of a tree, read at a time
_KINDS = ("TTree", "ROOT::RNTuple")  # the old and the new way to store one


def root_source(
    path: PathLike,
    tree: str | None = None,
    *,
    x: str = "x",
    y: str = "y",
    t: str = "t",
    label: str | None = None,
    keep: Sequence[str] = (),
) -> Source:
    """Read hits from a tree with an entry an event and arrays of any length.

    Args:
        path: the file.
        tree: name of the tree, if the file has several.
        x: branch of the columns.
        y: branch of the rows.
        t: branch of the times.
        label: branch of the labels.
        keep: further branches; arrays are kept with the hits, single numbers with the events.
    """
    uproot, awkward = _import_uproot()
    if not Path(path).is_file():  # uproot would take a name with colons for an address
        raise FileNotFoundError(f"Expected a ROOT file at {path}, got none.")
    wanted = {"x": x, "y": y, "t": t, **({} if label is None else {"label": label})}
    wanted |= {name.rpartition("/")[2]: name for name in keep}

    def open_tree() -> Any:
        with decoding(f"{path} to be a ROOT file"):
            file = uproot.open({str(Path(path).absolute()): None})
            known = dict.fromkeys(
                key.split(";")[0] for key, kind in file.classnames().items() if kind in _KINDS
            )
        if not known:
            raise ValueError(f"Expected a ROOT file with a tree at {path}, got one without.")
        if (tree is None and len(known) > 1) or (tree is not None and tree not in known):
            raise Refused(f"a tree of {path}, one of {[*known]}", tree, "name it with {tree}")
        with decoding(f"{path} to be a ROOT file"):
            return file[tree or next(iter(known))]

    with open_tree() as opened:
        with decoding(f"{path} to be a ROOT file"):
            n_events, known = int(opened.num_entries), opened.keys()
        missing = [name for name in wanted.values() if name not in known]
        if missing:
            raise ValueError(
                f"Expected a branch `{missing[0]}` in {path}, got only {', '.join(known)}."
            )

    def batches(geometry: Geometry) -> Iterator[Events]:
        with open_tree() as opened:
            blocks: Any = None
            while True:
                with decoding(f"{path} to be a ROOT file"):
                    blocks = blocks or opened.iterate(
                        [*wanted.values()], step_size=_STEP, library="ak"
                    )
                    block = next(blocks, None)
                if block is None:
                    return
                yield _events(geometry, block)

    def _events(geometry: Geometry, block: Any) -> Events:
        hit: dict[str, Any] = {}
        event: dict[str, Any] = {}
        if block[x].ndim != 2:
            raise ValueError(
                f"Expected an array an event in branch `{x}` of {path}, got {block[x].type}."
            )
        count = awkward.to_numpy(awkward.num(block[x]))
        for name, branch in wanted.items():
            column = block[branch]
            if column.ndim == 1 and name not in ("x", "y", "t", "label"):
                event[name] = _numbers(awkward.to_numpy(column), branch)
                continue
            if column.ndim != 2 or not np.array_equal(awkward.num(column), count):
                raise ValueError(
                    f"Expected as many entries in branch `{branch}` of {path} as in `{x}` for each "
                    "event, got others."
                )
            hit[name] = _numbers(awkward.to_numpy(awkward.flatten(column)), branch)
        return make_events(geometry, np.concatenate([[0], np.cumsum(count)]), hit, event)

    def _numbers(column: Any, branch: str) -> Any:
        if column.dtype.kind not in "biuf":
            raise ValueError(f"Expected numbers in branch `{branch}` of {path}, got others.")
        return column

    return Source(str(path), batches, n_events=n_events)


def _import_uproot() -> tuple[Any, Any]:
    try:
        import awkward
        import uproot
    except ImportError as problem:
        raise ImportError(
            "Expected uproot to read ROOT files, got none; pip install 'dense-imb[root]'."
        ) from problem
    return uproot, awkward
