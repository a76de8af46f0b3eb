"""Further columns of hits that a network may see, such as the charge."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dense_imb.hits.events import Events
from dense_imb.hits.reader import HitsFile, HitsFiles

_OF_OURS = ("label", "score", "keep", "class", "is_occluded")
_LOOKED_AT = 16  # events


def unseen_columns(hits: HitsFile | HitsFiles, seen: Collection[str] = ()) -> list[str]:
    """Return the numeric columns of hits that a network could see, and does not.

    Places, times, labels and results of an earlier denoising are left out.

    Args:
        hits: data set.
        seen: names of columns that it sees.
    """
    own = {*hits.geometry.columns, "t", *_OF_OURS, *seen}
    return [
        name.removeprefix("/hit/")
        for name, kind in hits.columns.items()
        if name.startswith("/hit/") and kind.kind in "iuf" and name.removeprefix("/hit/") not in own
    ]


def columns_of_truth(events: Events, names: Collection[str]) -> list[str]:
    """Return the columns that give the label away, such as the number of the particle.

    They have one value for all noise, and other values for all signal.

    Example:
        >>> label = np.array([0, 1, 0, 1])
        >>> from dense_imb.hits.geometry import Geometry
        >>> hit = {"particle": 3 * label, "charge": np.array([1.0, 2.0, 1.0, 1.0])}
        >>> events = Events(Geometry(), np.array([0, 4]), label, label, label + 1, label, hit)
        >>> columns_of_truth(events, ["particle", "charge"])
        ['particle']
    """
    events = events.numpy()
    if events.label is None:
        return []
    is_signal = np.asarray(events.label) > 0
    of_truth = []
    for name in names:
        of_noise, of_signal = (np.unique(events.hit[name][one]) for one in (~is_signal, is_signal))
        if len(of_noise) == 1 and len(of_signal) and of_noise[0] not in of_signal:
            of_truth.append(name)
    return of_truth


def describe_unseen(hits: HitsFile | HitsFiles, seen: Collection[str] = ()) -> tuple[str, str]:
    """Return the unseen columns as text, and those of them worth seeing as typed; "" for none.

    Columns that give the label away are in the first text only.
    """
    unseen = unseen_columns(hits, seen)
    if not unseen or not len(hits):
        return "", ""
    truth = columns_of_truth(hits[:_LOOKED_AT], unseen)
    return ", ".join(unseen), " ".join(name for name in unseen if name not in truth)
