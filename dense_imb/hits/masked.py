"""Denoised files: what made them, and whether one is finished."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dense_imb.base.refusals import Refused, RefusedFile
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.format import HitsFileError
from dense_imb.hits.provenance import digest_of_scorer, digest_of_source
from dense_imb.hits.reader import HitsFile, HitsFiles, open_hits, verify
from dense_imb.metrics import HitScores, OperatingPoint
from dense_imb.metrics.score_table import percent_digits

_MASK_COLUMNS = {"/", "/hit/score", "/hit/keep", "/hit/class"}


class Masking(NamedTuple):
    """Settings that made a denoised file.

    Args:
        scorer: name of the scorer.
        operating_point: operating point.
        only_kept: whether other hits were dropped.
        scorer_digest: digest of its weights and settings; None if unknown.
        source_digest: digest of the hits that were scored; None if unknown.

    Example:
        >>> from dense_imb.hits import Masking
        >>> from dense_imb.metrics import OperatingPoint
        >>> point = OperatingPoint(0.5, "probability", 1.0, 0.5, 0.5, n_signal=1, n_noise=2)
        >>> mine = Masking("hit density", point, only_kept=False)
        >>> mine.difference(mine), mine.difference(mine._replace(only_kept=True))
        (('', ''), ('hit density at 0.5', 'one by hit density at 0.5 with kept hits only'))
    """

    scorer: str
    operating_point: OperatingPoint
    only_kept: bool
    scorer_digest: str | None = None
    source_digest: str | None = None

    @classmethod
    def of(
        cls,
        scorer: Scorer,
        point: OperatingPoint,
        hits: HitsFile | HitsFiles,
        *,
        only_kept: bool = False,
    ) -> Masking:
        """Return the settings of masking `hits`, with digests of scorer and source."""
        digests = digest_of_scorer(scorer), digest_of_source(hits)
        return cls(scorer.name, point, only_kept, *digests)

    def as_json(self) -> dict[str, Any]:
        """Return the settings for JSON, without the name of the scorer."""
        stored: dict[str, Any] = {
            "operating_point": self.operating_point.as_json(),
            "only_kept": self.only_kept,
        }
        digests = {"scorer_digest": self.scorer_digest, "source_digest": self.source_digest}
        return {**stored, **{name: value for name, value in digests.items() if value is not None}}

    def as_text(self) -> str:
        """Return the settings without the name of the scorer as JSON, as a file stores them."""
        return json.dumps(self.as_json(), allow_nan=False)

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes of a hits file that store the settings."""
        return {"scorer": self.scorer, "masking": self.as_text()}

    def difference(self, other: Masking | None) -> tuple[str, str]:
        """Return how these settings and those of another file differ, as texts; "" if they agree.

        Both digests of the source are left out.
        """
        if other is None:
            return self._text(), "a file of another kind"
        first, second = (m._replace(source_digest=None) for m in (self, other))
        # compared as text, since NaN != NaN
        if (first.scorer, first.as_text()) == (second.scorer, second.as_text()):
            return "", ""
        mine, theirs = self._text(), f"one by {other._text()}"
        if self.scorer_digest != other.scorer_digest:
            weights = [one.scorer_digest or "unknown" for one in (self, other)]
            mine, theirs = f"{mine} (weights {weights[0]})", f"{theirs} (weights {weights[1]})"
        return mine, theirs

    def _text(self) -> str:
        text = f"{self.scorer} at {self.operating_point.threshold:g}"
        return text + " with kept hits only" * self.only_kept


@dataclass(frozen=True)
class MaskedFile:
    """Result of masking one file.

    Args:
        path: path of the denoised file.
        n_events: number of events in the source.
        n_hits: number of hits in the source.
        n_kept: number of kept hits.
        scores: scores of the mask; None for a source without labels, and for a skipped file.
        is_skipped: whether the file was finished before.
        drift: sentence that says how the events differ from the validation events of the
            network; "" if they do not, or if nothing is known of these.

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import HitsWriter, KeepNothing, mask_file, simulate
        >>> folder, arcs = tempfile.mkdtemp(), simulate("arc", 3, seed=1)
        >>> with HitsWriter(folder + "/raw.h5", arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> masked = mask_file(folder + "/raw.h5", folder + "/clean.h5", KeepNothing(), 0.5)
        >>> masked.n_events, masked.n_kept, masked.is_skipped  # fields of a MaskedFile
        (3, 0, False)
    """

    path: Path
    n_events: int
    n_hits: int
    n_kept: int
    scores: HitScores | None = None
    is_skipped: bool = False
    drift: str = ""

    def summary(self) -> str:
        """Return counts and scores in one line."""
        share = f" ({percent_digits(self.n_kept / self.n_hits, 1)} %)" if self.n_hits else ""
        sentence = (
            f"{self.path}: {self.n_events:,} events, {self.n_hits:,} hits, {self.n_kept:,} kept"
        )
        sentence += share + (", finished before" if self.is_skipped else "")
        if self.scores is None:
            return sentence
        values = self.scores.scores()
        names = {"retention": "of the signal kept", "removal": "of the noise removed"}
        names |= {"purity": "purity"}
        measured = [
            f"{percent_digits(values[name], 1)} % {text}"
            for name, text in names.items()
            if not math.isnan(values[name])
        ]
        return "; ".join([sentence, *measured])


def read_masking(hits: HitsFile) -> Masking | None:
    """Return the settings that made a denoised file; None for other files.

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import HitsFile, HitsWriter, Identity
        >>> from dense_imb.hits import mask_file, read_masking, simulate
        >>> folder, arcs = tempfile.mkdtemp(), simulate("arc", 3, seed=1)
        >>> with HitsWriter(folder + "/raw.h5", arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> _ = mask_file(folder + "/raw.h5", folder + "/clean.h5", Identity(), 0.5)
        >>> read_masking(HitsFile(folder + "/clean.h5")).scorer
        'identity'
        >>> print(read_masking(HitsFile(folder + "/raw.h5")))
        None
    """
    if not {"scorer", "masking"} <= hits.attributes.keys():
        return None
    try:
        stored = json.loads(str(hits.attributes["masking"]))
        point = OperatingPoint.from_json(stored["operating_point"])
        digests = stored.get("scorer_digest"), stored.get("source_digest")  # older files lack them
        return Masking(str(hits.attributes["scorer"]), point, bool(stored["only_kept"]), *digests)
    except (ValueError, KeyError, TypeError, RecursionError) as why:
        raise HitsFileError(
            f"Expected attribute `masking` of {hits.path} to be JSON with the operating point, "
            f"got {hits.attributes['masking']!r}; denoise the file again."
        ) from why


def is_denoised(path: Path) -> bool:
    """Tell whether a file is a denoised hits file."""
    try:
        with HitsFile(path, locking=False, in_memory=False) as hits:
            return read_masking(hits) is not None
    except HitsFileError:
        return False


def refuse_foreign(targets: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to replace files that are not denoised ones, such as raw data.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
        >>> _ = path.write_text("my notes")
        >>> refuse_foreign([path])
        Traceback (most recent call last):
        ...
        dense_imb.base.refusals.Refused: Expected `overwrite` to replace a denoised file, got ...
    """
    for target in map(Path, targets):
        if target.is_file() and not is_denoised(target):
            raise Refused(
                "{overwrite} to replace a denoised file",
                f"{target}, which is none",
                "remove it yourself, or choose another name",
            )


def finished_file(
    sources: str | os.PathLike[str] | list[Path],
    target: Path,
    scorer: Scorer,
    point: OperatingPoint,
    *,
    only_kept: bool,
    locking: bool | str | None = None,
) -> MaskedFile:
    """Return the result of an existing output; refuse it if masking the sources gives another.

    Scorer, digest of its weights, operating point and content of the sources must agree. The
    content of both is compared with the stored hashes.
    """
    cure = "choose another name or folder, or pass {overwrite}"
    digests = verify(target, locking=locking)
    with (
        open_hits(sources, locking=locking, in_memory=False) as raw,
        HitsFile(target, locking=locking, in_memory=False) as masked,
    ):
        files = raw.files if isinstance(raw, HitsFiles) else [raw]
        hashes = [verify(f.path, locking=locking) for f in files if "content_hash" in f.attributes]
        wanted, made_by = Masking.of(scorer, point, raw, only_kept=only_kept), read_masking(masked)
        mine, theirs = wanted.difference(made_by)
        if mine:
            cure = cure if made_by is not None else "choose another name or folder"
            raise RefusedFile(f"{target} to be masked by {mine}", theirs, cure)
        is_same = len(raw) == len(masked)
        if made_by is not None and made_by.source_digest is not None:
            is_same &= made_by.source_digest == wanted.source_digest
        elif len(files) == 1 and hashes:  # by an older version
            unchanged = hashes[0].keys() & digests.keys() - _MASK_COLUMNS
            if only_kept:  # hits and offsets differ
                unchanged -= {n for n in unchanged if n.startswith("/hit/")} | {"/event/offset"}
            is_same &= all(hashes[0][name] == digests[name] for name in unchanged)
        if not is_same:
            named = " and ".join(str(file.path) for file in files)
            raise RefusedFile(f"{target} to hold the hits of {named}", "others", cure)
        n_kept = sum(int(events.hit["keep"].sum()) for events in masked.batches())
        return MaskedFile(target, len(raw), raw.n_hits, n_kept, is_skipped=True)
