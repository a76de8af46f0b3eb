"""Files of simulated events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dense_imb.base.checks import check_at_least
from dense_imb.base.progress import tqdm
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.hits import Degradation, Geometry, HitsWriter, degrade, simulate

_AT_ONCE = 256  # events whose arrays still fit the cache


def write_simulated(
    path: PathLike,
    n_events: int,
    *,
    pattern: str | Sequence[str],
    seed: int,
    geometry: Geometry | None = None,
    first_event: int = 0,
    patterns_per_event: int | tuple[int, int] = 1,
    frequency: Sequence[float] | None = None,
    n_photons: int = 1500,
    degradation: Degradation | None = None,
    overwrite: bool = False,
    progress: bool = True,
    on_shortage: Callable[[str], object] | None = None,
) -> HitsWriter:
    """Write simulated events, clean and filled or degraded, to a hits file.

    Event i of a seed is the same in every file; files with other event numbers share none.

    Args:
        path: the hits file.
        n_events: number of events.
        pattern: see `simulate`.
        seed: random seed.
        geometry: the frame.
        first_event: number of the first event.
        patterns_per_event: see `simulate`.
        frequency: see `simulate`.
        n_photons: see `simulate`.
        degradation: degradation of the clean events; None for none.
        overwrite: replace a file that exists.
        progress: show a bar.
        on_shortage: called with a sentence if events have fewer signal hits than wanted.
    """
    check_at_least("events", n_events, 0)
    geometry = Geometry() if geometry is None else geometry
    wanted = 0 if degradation is None or degradation.signal is None else degradation.signal
    wanted = wanted if isinstance(wanted, int) else min(wanted)
    n_short, most_short = 0, wanted
    writer = HitsWriter(path, geometry, overwrite=overwrite)
    with writer, tqdm(total=n_events, desc="simulate", unit="event", disable=not progress) as bar:
        for start in range(0, max(n_events, 1), _AT_ONCE):
            count, first = min(_AT_ONCE, n_events - start), first_event + start
            events = simulate(
                pattern,
                count,
                seed,
                geometry,
                first_event=first,
                patterns_per_event=patterns_per_event,
                frequency=frequency,
                n_photons=n_photons,
            )
            if degradation is not None:
                index = [*range(first, first + count)]
                events = degrade(events, degradation, seed=seed, event_index=index)
                # a pattern with fewer hits than wanted keeps them all
                is_signal = np.append(0, np.cumsum(np.asarray(events.numpy().label) > 0))
                n_signal = np.diff(is_signal[events.offset])
                n_short += int((n_signal < wanted).sum())
                most_short = min(most_short, int(n_signal.min(initial=wanted)))
            writer.append(events)
            bar.update(count)
    if n_short and on_shortage is not None:
        on_shortage(
            f"{n_short:,} of {n_events:,} events have fewer than the {wanted:,} signal hits asked "
            f"for, the least {most_short:,}; more photons a pattern fill more."
        )
    return writer
