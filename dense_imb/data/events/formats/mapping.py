"""Names of columns: those a source has, and those a hits file needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dense_imb.base.refusals import Refused, literal, refusal, suggest

Names = Mapping[str, str | Sequence[str]]  # ours: theirs; several for the key of an event
PLACES = ("x", "y", "t")
_SIMILAR = {
    "x": ("col", "column", "ix", "px"),
    "y": ("row", "iy", "py"),
    "t": (
        "time",
        "toa",
        "tof",
        "tdc",
        "tns",
        "timens",
        "timestamp",
        "hittime",
        "toans",
        "tofns",
        "tdcns",
    ),
    "event": ("evt", "ev", "eventid", "eventnumber", "eventno", "eventnum", "frame"),
    "offset": ("offsets", "eventoffset"),
    "sensor": ("sensorid", "channel", "pmt", "pmtid", "chid", "pixel", "pixelid"),
    "label": ("truth", "labels", "target", "issignal", "truelabel"),
}


def read_columns(words: Iterable[str]) -> dict[str, str | list[str]]:
    """Return names by name from words like "x=padx,y=pady" and "event=run,event".

    Example:
        >>> read_columns(["x=padx,y=pady", "event=run,event"])
        {'x': 'padx', 'y': 'pady', 'event': ['run', 'event']}
    """
    lists: dict[str, list[str]] = {}
    last = None
    for word in words:
        for part in filter(None, word.split(",")):
            ours, mark, theirs = part.partition("=")
            if mark and ours and theirs:
                if ours in lists:
                    raise refusal(f"{{columns}} names `{literal(ours)}` twice; write it once.")
                lists[last := ours] = [theirs]
            elif not mark and last == "event":
                lists[last].append(part)
            else:
                raise Refused("{columns} like x=padx,y=pady or event=run,event", repr(word))
    return {ours: names if ours == "event" else names[0] for ours, names in lists.items()}


def key_names(columns: Names) -> list[str]:
    """Return the names of the columns that number the events, the most significant first."""
    names = columns.get("event", "event")
    return [names] if isinstance(names, str) else [*names]


def match_columns(
    where: str,
    known: Sequence[str],
    columns: Names,
    needed: Sequence[str] | None = None,
    also: Sequence[str] = (),
    places: Sequence[str] | None = None,
) -> dict[str, str]:
    """Return the name in the source of each column that is needed, or named in `columns`.

    A name that `columns` lacks is the name in the source, or the last part of one only.

    Args:
        where: name of the source in errors.
        known: names of its columns.
        columns: names by our name.
        needed: our names that must be there; by default x, y and t, or sensor and t.
        also: further names that must be there, such as event or offset.
        places: columns among which the last parts of names are looked up; by default `known`.
    """
    chosen = {
        ours: resolve_column(where, str(theirs), known)
        for ours, theirs in columns.items()
        if ours != "event"
    }
    for ours in (*(needed or ("x", "y", "t", "sensor")), *also, "label"):
        near = find_column(ours, known if places is None else places)
        if ours not in chosen and near is not None:
            chosen[ours] = near
    if needed is None:
        is_table = "sensor" in chosen and not {"x", "y"} <= chosen.keys()
        needed = ("sensor", "t") if is_table else PLACES
    missing = [ours for ours in (*needed, *also) if ours not in chosen]
    if missing:
        taken = set(chosen.values())
        free = [name for name in known if name not in taken]
        likely = "label" not in chosen and similar_column("label", free) is not None
        wanted = [*missing, *(["label"] if likely else [])]
        hint = ",".join(
            f"{ours}={literal(similar_column(ours, free) or 'NAME')}" for ours in wanted
        )
        raise Refused(
            f"columns {', '.join((*needed, *also))} in {where}",
            f"{_listed(known)}, without {', '.join(missing)}",
            f"name them with {{columns={hint}}}",
        )
    used = (*needed, *also, "label", *(ours for ours in columns if ours != "event"))
    return {ours: chosen[ours] for ours in dict.fromkeys(used) if ours in chosen}


def missing_column(where: str, name: str, known: Sequence[str]) -> Refused:
    """Return the refusal of a column that a source lacks."""
    sentence = f"Expected a column {name!r} in {where}, got only {_listed(known)}."
    return refusal(literal(sentence + suggest(name, known)))


def needed_columns(needed: Sequence[str] | None, chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns that place the hits, out of those that were chosen."""
    return tuple(needed) if needed else ("x", "y", "t") if "x" in chosen else ("sensor", "t")


def resolve_column(where: str, name: str, known: Sequence[str]) -> str:
    """Return the column with a name, or the only one whose last part it is; refuse no column."""
    theirs = find_column(name.strip("/"), known)
    if theirs is None:
        raise missing_column(where, name, known)
    return theirs


def find_column(ours: str, known: Sequence[str]) -> str | None:
    """Return the column with a name, or the only one whose last part is this name."""
    if ours in known:
        return ours
    ends = [name for name in known if last_part(name) == ours]
    return ends[0] if len(ends) == 1 else None


def last_part(name: str) -> str:
    """Return the last part of a name like `photon/x` or `pad.x`."""
    return re.split(r"[/.]", name)[-1]


def further_columns(
    known: Iterable[str], used: Iterable[str], keep: Sequence[str] | None, where: str
) -> dict[str, str]:
    """Return new names of the columns to keep, and their names in the source.

    The last part of a name becomes the name, unless it is taken.

    Args:
        known: names of columns in the source that can be kept.
        used: names in the hits file that are taken.
        keep: names in the source to keep; None keeps all of `known`.
        where: name of the source in errors.
    """
    taken = {*used, "offset"}
    places: dict[str, str] = {}
    for place in known if keep is None else keep:
        name = last_part(place.strip("/"))
        if name in taken or name in places:
            if keep is not None and name in places:
                raise ValueError(f"Expected kept columns of other names, got `{name}` twice.")
            name = re.sub(r"[/.]", "_", place.strip("/"))
            name = f"{name}_" if name in taken or name in places else name
        places[name] = place
    return places


def similar_column(ours: str, known: Sequence[str]) -> str | None:
    """Return the column that is probably meant, or None."""

    def plain(name: str) -> str:
        return re.sub(r"[\W_]", "", last_part(name)).lower()

    likely = {*_SIMILAR.get(ours, ()), ours}
    if len(ours) == 1:  # a coordinate
        likely |= {f"{before}{ours}" for before in ("pad", "pix", "pos", "position", "hit")}
        likely |= {f"{ours}{after}" for after in ("mm", "cm", "m", "pos", "pad", "pixel")}
    return next((name for name in known if plain(name) in likely), None)


def _listed(known: Sequence[str]) -> str:
    text = ", ".join(known)
    return text if len(text) <= 300 else f"{text[:300]}.."
