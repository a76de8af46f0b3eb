"""Batches of events in memory: flat arrays of hits and the offset of each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.hits.geometry import Geometry, Sensors, as_grid, describe_difference

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

Array = Any  # np.ndarray or torch.Tensor; a batch holds arrays of one kind


@dataclass(frozen=True)
class Events:
    """Batch of events; event i has the hits offset[i] .. offset[i + 1] - 1.

    The constructor checks the lengths of the columns only: no values, no order of the offsets, no
    units. `from_arrays` checks these too, and takes counts or the number of each hit's event.

    Args:
        geometry: grid of pixels, or table of sensors.
        offset: (n_events + 1,) int64, from 0 to n_hits, never decreasing.
        x: (n_hits,) pixel index in x; None for a table of sensors.
        y: (n_hits,) pixel index in y; None for a table of sensors.
        t: (n_hits,) time, integer or floating point: in steps, 1 .. T, on a grid; in ns, any
            finite number, for sensors.
        label: (n_hits,) label: 0 for noise, 1.. for signal classes; None if unknown.
        hit: further columns of hits by name, such as the charge, (n_hits, ...) each.
        event: further columns of events by name, such as the run number, (n_events, ...) each.
        sensor: (n_hits,) row of each hit in the table of sensors; None on a grid.

    Example:
        >>> import numpy as np
        >>> from dense_imb import Events, Geometry
        >>> x, y, t = np.array([[3, 4, 40], [7, 7, 90], [500, 505, 20]])
        >>> events = Events(Geometry(), np.array([0, 2, 3]), x, y, t, label=np.array([1, 1, 0]))
        >>> events
        Events(2 events, 3 hits, 88 x 128 x 1000)
        >>> events[0].t.tolist(), events.select(events.label > 0).n_hits
        ([500, 505], 2)
    """

    geometry: Geometry | Sensors
    offset: Array
    x: Array = None
    y: Array = None
    t: Array = None
    label: Array | None = None
    hit: Mapping[str, Array] = field(default_factory=dict)
    event: Mapping[str, Array] = field(default_factory=dict)
    sensor: Array | None = None

    @classmethod
    def from_arrays(cls, geometry: Geometry | Sensors, **columns: Any) -> Events:
        """Make events from flat arrays and check them: `dense_imb.hits.build.from_arrays`."""
        from dense_imb.hits import build

        return build.from_arrays(geometry, **columns)

    @classmethod
    def from_awkward(
        cls, array: Any, geometry: Geometry | Sensors, columns: Mapping[str, str] | None = None
    ) -> Events:
        """Make events from an awkward array: `dense_imb.hits.from_awkward`."""
        from dense_imb.hits import jagged

        return jagged.from_awkward(array, geometry, columns)

    def to_awkward(self) -> Any:
        """Return an awkward array with one record an event; needs awkward.

        See `dense_imb.hits.to_awkward`.
        """
        from dense_imb.hits import jagged

        return jagged.to_awkward(self)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row a hit; needs pandas.

        The index is the number of the event and of the hit in it. Columns of events are repeated
        for each hit, and columns of vectors are taken apart: `direction_0`, `direction_1`.
        """
        from dense_imb.hits import jagged

        return jagged.to_pandas(self)

    def plot(
        self, ax: Axes | None = None, *, event: int = 0, view: Sequence[str] = ("x", "y")
    ) -> Axes:
        """Draw the hits of one event, noise and signal apart, and return the axes.

        Args:
            ax: axes of matplotlib to draw on; None takes the current ones of pyplot where it is in
                use, and new ones elsewhere.
            event: number of the event.
            view: horizontal and vertical coordinate, two of x, y, t, and z for sensors in 3-D.
        """
        from dense_imb.hits import display

        return display.plot_event(self, ax, event=event, view=view)

    def _repr_html_(self) -> str:
        from dense_imb.hits import display

        return display.card_of_events(self)

    def __post_init__(self) -> None:
        for name in (*self.geometry.columns, "t"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"Expected `{name}` for hits of {self.geometry.size_text()}, got none."
                )
        n_hits = len(getattr(self, self.geometry.columns[0]))
        for name, column in self.hit_columns().items():
            if len(column) != n_hits:
                raise ValueError(
                    f"Expected `{name}` with one entry for each of the {n_hits} hits, "
                    f"got {len(column)}."
                )
        for name, column in self.event.items():
            if len(column) != len(self):
                raise ValueError(
                    f"Expected `{name}` with one entry for each of the {len(self)} events, "
                    f"got {len(column)}."
                )
        if len(self.offset) < 1:
            raise ValueError("Expected `offset` with n_events + 1 entries, got none.")

    def __repr__(self) -> str:
        return f"Events({len(self)} events, {self.n_hits} hits, {self.geometry.size_text()})"

    def __len__(self) -> int:
        return len(self.offset) - 1

    @property
    def n_hits(self) -> int:
        """Number of hits of all events together."""
        return len(self.t)

    @property
    def is_torch(self) -> bool:
        """Whether the columns are tensors of torch, not NumPy arrays."""
        return isinstance(self.t, torch.Tensor)

    @property
    def grid(self) -> Geometry:
        """The grid of pixels; refuses events of a table of sensors, which have no frame."""
        return as_grid(self.geometry)

    def position(self) -> Any:
        """Return where each hit is, (n_hits, 2 or 3) float32: in pixels, or in metres."""
        if isinstance(self.geometry, Sensors):
            if self.is_torch:
                return self.geometry.table_on("position", self.t.device)[self.sensor]
            return self.geometry.position[self.sensor]
        if self.is_torch:
            return torch.stack([self.x, self.y], 1).float()
        return np.stack([self.x, self.y], 1).astype(np.float32)

    def hit_columns(self) -> dict[str, Array]:
        """Return all columns of hits by name: x and y or sensor, t and label first."""
        columns = {name: getattr(self, name) for name in (*self.geometry.columns, "t")}
        if self.label is not None:
            columns["label"] = self.label
        return {**columns, **self.hit}

    def event_index(self) -> Array:
        """Return the index of the event of each hit, (n_hits,) int64."""
        if self.is_torch:
            count = self.offset[1:] - self.offset[:-1]
            index = torch.arange(len(self), device=self.t.device)
            return torch.repeat_interleave(index, count, output_size=self.n_hits)
        return np.repeat(np.arange(len(self)), np.diff(self.offset))

    def select(self, is_kept: Array) -> Events:
        """Return the events with only some of their hits.

        Args:
            is_kept: (n_hits,) bool.
        """
        # find the kept hits once, not once per column
        if self.is_torch:
            return self._pick(torch.as_tensor(is_kept, device=self.t.device).nonzero()[:, 0])
        return self._pick(np.flatnonzero(is_kept))

    def _pick(self, kept: Array) -> Events:
        """Return the events with only the hits of these indices, which must increase."""
        if self.is_torch:
            offset: Array = torch.searchsorted(kept, self.offset)
        else:
            offset = np.searchsorted(kept, self.offset)
        return self.with_hits(
            offset, {name: column[kept] for name, column in self.hit_columns().items()}
        )

    def with_hits(self, offset: Array, columns: Mapping[str, Array]) -> Events:
        """Return the events with other hits, given as offsets and columns."""
        own = {*self.geometry.columns, "t", "label"}
        return replace(
            self,
            offset=offset,
            **{name: columns[name] for name in (*self.geometry.columns, "t")},
            label=columns.get("label"),
            hit={name: column for name, column in columns.items() if name not in own},
        )

    def __getitem__(self, index: slice | int) -> Events:
        """Return consecutive events; an index gives a batch of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"Expected an event from 0 to {len(self) - 1}, got {index}.")
            index = slice(index % len(self), index % len(self) + 1)
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise ValueError(f"Expected a slice of step 1, got {step}; use `take`.")
        stop = max(start, stop)
        first, last = int(self.offset[start]), int(self.offset[stop])
        hits = {name: column[first:last] for name, column in self.hit_columns().items()}
        sliced = replace(self, event={})
        return replace(
            sliced.with_hits(self.offset[start : stop + 1] - first, hits),
            event={name: column[start:stop] for name, column in self.event.items()},
        )

    def take(self, order: Sequence[int] | NDArray[np.int64]) -> Events:
        """Return the events of these indices, in this order; repeats are allowed."""
        numbers = np.asarray(order, np.int64).reshape(-1)
        for i in numbers[(numbers < -len(self)) | (numbers >= len(self))]:
            raise IndexError(f"Expected an event from 0 to {len(self) - 1}, got {i}.")
        if self.is_torch:
            which: Array = torch.as_tensor(numbers % max(len(self), 1), device=self.t.device)
        else:
            which = numbers % max(len(self), 1)
        offset, source = reorder(self.offset, which)
        hits = {name: column[source] for name, column in self.hit_columns().items()}
        event = {name: column[which] for name, column in self.event.items()}
        return replace(replace(self, event={}).with_hits(offset, hits), event=event)

    def __iter__(self) -> Iterator[Events]:
        return (self[i] for i in range(len(self)))

    def numpy(self) -> Events:
        """Return the events as NumPy arrays."""
        return self._map(lambda a: a.detach().cpu().numpy()) if self.is_torch else self

    def tensors(self) -> Events:
        """Return the events as tensors where they are: tensors stay on their device.

        NumPy arrays become tensors on the CPU. `torch` moves them to a device of your choice.
        """
        return self.torch(self.t.device) if self.is_torch else self.torch()

    def torch(self, device: str | torch.device = "cpu") -> Events:
        """Return the events as tensors on a device; x, y, sensor and label become int64."""
        whole = {*self.geometry.columns, "label"}

        def convert(name: str, column: Array) -> torch.Tensor:
            tensor = torch.as_tensor(_torch_compatible(column))
            return tensor.to(device, torch.int64) if name in whole else tensor.to(device)

        moved = {name: convert(name, column) for name, column in self.hit_columns().items()}
        offset = torch.as_tensor(
            np.asarray(self.offset, np.int64) if not self.is_torch else self.offset
        )
        event = {
            name: torch.as_tensor(_torch_compatible(column)).to(device)
            for name, column in self.event.items()
        }
        return replace(replace(self, event={}).with_hits(offset.to(device), moved), event=event)

    def _map(self, change: Any) -> Events:
        columns = {name: change(column) for name, column in self.hit_columns().items()}
        event = {name: change(column) for name, column in self.event.items()}
        return replace(replace(self, event={}).with_hits(change(self.offset), columns), event=event)


def reorder(offset: Array, order: Array) -> tuple[Array, Array]:
    """Return the offsets of reordered events, and the old index of each of their hits.

    Args:
        offset: (n_events + 1,) offsets of the events.
        order: (n,) index of each event in the new order; repeats are allowed.
    """
    if isinstance(offset, torch.Tensor):
        count: Array = offset[order + 1] - offset[order]
        moved: Array = torch.cat([count.new_zeros(1), count.cumsum(0)])
        shift: Array = torch.repeat_interleave(offset[order] - moved[:-1], count)
        return moved, torch.arange(len(shift), device=shift.device) + shift
    count = offset[order + 1] - offset[order]
    moved = np.zeros(len(order) + 1, np.int64)
    np.cumsum(count, out=moved[1:])
    return moved, np.arange(moved[-1]) + np.repeat(offset[order] - moved[:-1], count)


def _torch_compatible(column: Array) -> Array:
    """Widen NumPy types and copy strides that torch does not have."""
    if isinstance(column, np.ndarray):
        column = np.ascontiguousarray(column)
    if isinstance(column, np.ndarray) and column.dtype in (np.uint16, np.uint32, np.uint64):
        return column.astype(np.int64)
    return column


def concatenate(parts: Sequence[Events]) -> Events:
    """Concatenate batches of one geometry with the same columns.

    Example:
        >>> from dense_imb.hits import concatenate, simulate
        >>> arcs, rings = simulate("arc", 2, seed=1), simulate("ring", 3, seed=1)
        >>> both = concatenate([arcs, rings])
        >>> len(both), both.n_hits == arcs.n_hits + rings.n_hits
        (5, True)
    """
    if not parts:
        raise ValueError("Expected at least one batch of events, got none.")
    first = parts[0]
    for part in parts[1:]:
        if part.geometry != first.geometry:
            wanted, got = describe_difference(first.geometry, part.geometry)
            raise ValueError(f"Expected events of one geometry, got {wanted} and {got}.")
        if part.hit_columns().keys() != first.hit_columns().keys():
            raise ValueError(
                f"Expected events with the same columns, got {sorted(first.hit_columns())} "
                f"and {sorted(part.hit_columns())}."
            )
    join = torch.cat if first.is_torch else np.concatenate
    starts = np.cumsum([0, *(part.n_hits for part in parts[:-1])])
    offset = [part.offset[:-1] + int(start) for part, start in zip(parts, starts, strict=True)]
    end = parts[-1].offset[-1:] + int(starts[-1])
    columns = {
        name: join([part.hit_columns()[name] for part in parts]) for name in first.hit_columns()
    }
    event = {name: join([part.event[name] for part in parts]) for name in first.event}
    joined = replace(first, event={}).with_hits(join([*offset, end]), columns)
    return replace(joined, event=event)
