"""Units of hits, the particles or events, as the instances of a loss per instance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dense_imb.base.refusals import Refused
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.data.images.labelled import IGNORED
from dense_imb.hits import Events
from dense_imb.tasks.hits.scoring import EVENTS, HITS

PARTICLE = "particle"  # column of the units by default


def unit_keys(events: Events, over: str) -> Tensor:
    """Return event, label and particle of each hit, (n_hits, 2 or 3); see `number_units`."""
    assert events.label is not None
    key = [events.event_index(), events.label.long()]
    if over != EVENTS:
        key.append(events.hit[over].long())
    return torch.stack(key, 1)


def number_units(events: Events, over: str) -> Tensor:
    """Number the units of signal hits from 1 in each event, (n_hits,) int32; 0 for noise.

    Args:
        events: events of tensors, with labels.
        over: "events", or a column of hits that names the particle of each.

    Example:
        >>> from dense_imb.hits import Geometry
        >>> x, label = torch.zeros(5, dtype=torch.long), torch.tensor([1, 1, 0, 1, 0])
        >>> events = Events(Geometry(), torch.tensor([0, 3, 5]), x, x, x + 1, label,
        ...                 {"particle": torch.tensor([7, 9, 0, 7, 0])})
        >>> number_units(events, "particle")
        tensor([1, 2, 0, 1, 0], dtype=torch.int32)
    """
    assert events.label is not None
    is_signal = events.label > 0
    key = unit_keys(events, over)[is_signal]
    units, unit = torch.unique(key, dim=0, return_inverse=True)  # in the order of their events
    first = torch.searchsorted(units[:, 0].contiguous(), key[:, 0].contiguous())
    number = torch.zeros_like(events.label, dtype=torch.int32)
    number[is_signal] = (1 + unit - first).int()
    return number


def column_of_units(events: VirtualEvents, over: str) -> str:
    """Return the column of the particles, or "events".

    Args:
        events: training events.
        over: `hits.balance_over`; "hits" takes the column `particle`.
    """
    if over != HITS:
        return over
    if f"/hit/{PARTICLE}" in events.source.columns:
        return PARTICLE
    known = [name.removeprefix("/hit/") for name in events.source.columns if "/hit/" in name]
    raise Refused(
        "the particle of each hit for a loss per instance, in a column of the hits",
        f"only {', '.join(known)}",
        "name another column with {hits.balance_over=COLUMN}, or keep that of the particle when "
        "you convert the file",
    )


def pad_events(output: Tensor, label: Tensor, instance: Tensor, offset: Tensor) -> dict[str, Any]:
    """Return the arguments of a loss for which each event is an image of its own.

    So the noise of an event belongs to its own particles only, in one process and in several.

    Args:
        output: (n_hits, C).
        label: (n_hits,) classes; hits with `IGNORED` are left out.
        instance: (n_hits,) numbers of the particles in their events, 0 for none.
        offset: (n_events + 1,) first hit of each event, and the number of hits.
    """
    size = offset.diff()
    side = max(int(size.max()), 1) if len(size) else 1
    event = torch.repeat_interleave(size)
    place = event, torch.arange(len(label), device=label.device) - offset[event]

    def padded(hits: Tensor) -> Tensor:
        shape = (len(size), side, *hits.shape[1:])
        return hits.new_zeros(shape).index_put(place, hits)

    is_known = label != IGNORED
    return {
        "logits": padded(output).movedim(2, 1),
        "label": padded(label.masked_fill(~is_known, 0)),
        "options": {"mask": padded(is_known), "instance": padded(instance)},
    }
