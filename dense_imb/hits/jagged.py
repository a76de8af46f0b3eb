"""Events as awkward arrays, with one record an event, and as DataFrame, with one row a hit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.refusals import suggest
from dense_imb.base.tabular import import_pandas
from dense_imb.hits.build import from_arrays
from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry, Sensors

_SHORT = ("x", "y", "t", "sensor", "label", "event_id")  # names that the last part may stand for
_STARTS = ("event_id", "offset", "counts")  # arguments of `from_arrays`


def from_awkward(
    array: Any, geometry: Geometry | Sensors, columns: Mapping[str, str] | None = None
) -> Events:
    """Make events from an awkward array with one record an event, and check them.

    Fields with a list an event become columns of hits, single numbers columns of events. Records
    in lists count by their dotted names, for example `hits.x`.

    Args:
        array: records with lists x, y, t (or sensor, t) and perhaps label.
        geometry: grid of pixels, or table of sensors.
        columns: names of the fields that are called otherwise: {"x": "pad.x", "t": "time"}.

    Example:
        >>> import awkward
        >>> array = awkward.Array([{"x": [1, 2], "y": [3, 4], "t": [5, 6], "run": 9}])
        >>> from_awkward(array, Geometry(8, 8, 100)).event["run"].tolist()
        [9]
    """
    awkward = import_awkward()
    leaves = awkward_leaves(array)
    names = dict(columns or {})
    for ours, theirs in names.items():
        if theirs not in leaves:
            raise ValueError(
                f"Expected a field {theirs!r} for `{ours}`, got only {', '.join(leaves)}."
                f"{suggest(theirs, leaves)}"
            )
    taken = set(names.values())
    for name in leaves:
        short = name.rpartition(".")[2]
        if name not in taken:
            names[short if short not in names and short in _SHORT else name] = name
    place = names.get("t")
    if place is None:
        raise ValueError(
            f"Expected a field `t`, got only {', '.join(leaves)}; name it with "
            '`columns={"t": "FIELD"}`.'
        )
    counts = np.asarray(awkward.num(leaves[place], axis=1))
    hit, event = {}, {}
    for ours, theirs in names.items():
        column = leaves[theirs]
        if column.ndim == 1:
            event[ours] = awkward.to_numpy(column)
            continue
        if not np.array_equal(awkward.num(column, axis=1), counts):
            raise ValueError(
                f"Expected as many entries in `{theirs}` as in `{place}` for each event, got "
                "others; leave the field out."
            )
        hit[ours] = awkward.to_numpy(awkward.flatten(column, axis=1))
    hit = {f"hit_{n}" if n in _STARTS else n.replace(".", "_"): c for n, c in hit.items()}
    events = from_arrays(geometry, counts=counts, **hit)
    return replace(events, event={name.replace(".", "_"): c for name, c in event.items()})


def to_awkward(events: Events) -> Any:
    """Return events as an awkward array with one record an event; needs awkward.

    Columns of hits are lists, columns of events single numbers. `from_awkward` makes events of it.

    Example:
        >>> frame = Geometry(8, 8, 100)
        >>> to_awkward(from_arrays(frame, counts=[2, 0], x=[1, 2], y=[3, 4], t=[5, 6])).t.tolist()
        [[5, 6], []]
    """
    awkward = import_awkward()
    events = events.numpy()
    counts = np.diff(np.asarray(events.offset))
    fields = {name: np.asarray(column) for name, column in events.event.items()}
    for name, column in events.hit_columns().items():
        key = f"hit_{name}" if name in fields else name
        fields[key] = awkward.unflatten(np.asarray(column), counts)
    return awkward.Array(fields)


def to_pandas(events: Events) -> Any:
    """Return events as `pandas.DataFrame` with one row a hit: `Events.to_pandas`."""
    pandas = import_pandas()
    events = events.numpy()
    offset = np.asarray(events.offset)
    counts = np.diff(offset)
    event = np.repeat(np.arange(len(events)), counts)
    hit = np.arange(events.n_hits) - np.repeat(offset[:-1], counts)
    columns: dict[str, Any] = {}
    for name, column in events.event.items():
        columns |= _flat_columns(name, np.asarray(column)[event])
    for name, column in events.hit_columns().items():
        columns |= _flat_columns(f"hit_{name}" if name in events.event else name, column)
    index = pandas.MultiIndex.from_arrays([event, hit], names=["event", "hit"])
    return pandas.DataFrame(columns, index=index)


def _flat_columns(name: str, column: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return a column of numbers as it is, and one of vectors as a column for each component."""
    if column.ndim == 1:
        return {name: column}
    flat = column.reshape(len(column), math.prod(column.shape[1:]))
    return {f"{name}_{k}": flat[:, k] for k in range(flat.shape[1])}


def awkward_leaves(array: Any) -> dict[str, Any]:
    """Return the fields with numbers by dotted name; records are taken apart."""
    leaves: dict[str, Any] = {}
    for name in array.fields:
        column = array[name]
        if column.fields:
            leaves |= {f"{name}.{inner}": leaf for inner, leaf in awkward_leaves(column).items()}
        else:
            leaves[name] = column
    return leaves


def import_awkward() -> Any:
    """Return the library awkward, or say how to install it."""
    try:
        import awkward
    except ImportError as problem:
        raise ImportError(
            "Expected the library awkward, got none; pip install awkward."
        ) from problem
    return awkward
