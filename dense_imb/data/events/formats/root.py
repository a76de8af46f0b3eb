"""ROOT trees, read with uproot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dense_imb.base.files import decoding
from dense_imb.base.refusals import Refused, literal
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.mapping import Names
from dense_imb.data.events.formats.records import Kind, kind_of, local_place, pick, records_source
from dense_imb.data.events.formats.source import Source

_STEP = "16 MB"  # of a tree, read at a time
_KINDS = ("TTree", "ROOT::RNTuple")  # the old and the new way to store one


def root_source(
    path: PathLike, tree: str | None = None, columns: Names | None = None, **options: Any
) -> Source:
    """Read hits from a tree with arrays an event, or with one hit an entry.

    Args:
        path: the file.
        tree: name of the tree, if the file has several.
        columns: branches of `x`, `y`, `t`, `sensor` and `label`, where they have other names;
            fields of records by dotted names, such as `pad.x`.
        options: see `dense_imb.data.events.formats.records.records_source`.

    Example:
        >>> import awkward, tempfile, uproot
        >>> from dense_imb.data.events.formats import root_source
        >>> from dense_imb.hits import Geometry
        >>> path, hits = tempfile.mkdtemp() + "/run.root", awkward.Array([[3, 5], [40]])
        >>> with uproot.recreate(path) as file:
        ...     _ = file.mkrntuple("events", {"col": hits, "row": hits, "toa": 10 * hits})
        >>> source = root_source(path, columns={"x": "col", "y": "row", "t": "toa"})
        >>> next(source.batches(Geometry())).t.tolist()
        [30, 50, 400]
    """
    uproot = import_uproot("read")
    if not Path(path).is_file():  # uproot would take a name with colons for an address
        raise FileNotFoundError(f"Expected a ROOT file at {path}, got none.")
    place = local_place(path)

    def open_tree() -> Any:
        with decoding(f"{path} to be a ROOT file"):
            file = uproot.open({place: None})
            known = dict.fromkeys(
                key.split(";")[0] for key, kind in file.classnames().items() if kind in _KINDS
            )
        if not known:
            raise ValueError(f"Expected a ROOT file with a tree at {path}, got one without.")
        if (tree is None and len(known) > 1) or (tree is not None and tree not in known):
            raise Refused(
                f"a tree of {literal(path)}, one of {[*known]}",
                tree or "none",
                "name it with {tree}",
            )
        with decoding(f"{path} to be a ROOT file"):
            return file[tree or next(iter(known))]

    with open_tree() as opened, decoding(f"{path} to be a ROOT file"):
        n_entries = int(opened.num_entries)
        kinds = _kinds(opened)

    def blocks(names: Sequence[str]) -> Iterator[Any]:
        with open_tree() as opened:
            read: Any = None
            while True:
                with decoding(f"{path} to be a ROOT file"):
                    read = read or opened.iterate([*names], step_size=_STEP, library="ak")
                    block = next(read, None)
                if block is None:
                    return
                yield block

    return records_source(str(path), blocks, kinds, columns, n_entries=n_entries, **options)


def _kinds(tree: Any) -> dict[str, Kind]:
    """Return the kind of each branch; counters of arrays are left out."""
    counters = {
        branch.count_branch.name
        for branch in tree.values()
        if getattr(branch, "count_branch", None) is not None
    }
    names = [name for name in tree.keys() if name not in counters]  # noqa: SIM118 - no mapping
    try:
        block = tree.arrays(names, entry_stop=1, library="ak")
        columns = {name: pick(block, name) for name in names}
    except Exception:  # a branch that uproot does not interpret: read them one by one
        columns = {name: _first_entry(tree, name) for name in names}
    return {
        name: "other" if column is None else kind_of(column)
        for name, column in columns.items()
        if column is None or not column.fields
    }


def _first_entry(tree: Any, name: str) -> Any:
    try:
        return pick(tree.arrays([name], entry_stop=1, library="ak"), name)
    except Exception:
        return None


def import_uproot(action: str) -> Any:
    """Return uproot, or say how to install it."""
    try:
        import awkward  # noqa: F401
        import uproot
    except ImportError as problem:
        raise ImportError(
            f"Expected uproot to {action} ROOT files, got none; pip install 'dense-imb[root]'."
        ) from problem
    return uproot
