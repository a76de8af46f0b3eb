"""`dense-imb denoise`: a score and a verdict for each hit of a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_imb.base.refusals import Refused, RefusedFile
from dense_imb.cli._parser import Namespace, Parser

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.hits.baselines import Scorer
    from dense_imb.metrics import OperatingPoint

SUMMARY = "score the hits of files, and say which to keep"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Write hits files again with a score and a verdict (keep) for each hit; all "
        "other columns stay as they are, to the bit.",
        epilog="Examples:\n  dense-imb denoise runs/unet raw.h5 clean.h5 --retention 0.97\n"
        "  dense-imb denoise hit-density raw/*.h5 --out clean --choose-on labelled.h5",
    )
    parser.add_argument(
        "model",
        type=str,
        metavar="MODEL",
        help="the folder of a run, or hit-density, dbscan, median-filter, blurred-hits; a rule's "
        "reaches follow the frame, or are given: hit-density(radius_xy=5,radius_t=10), quoted",
    )
    parser.add_argument(
        "files",
        type=str,
        nargs="+",
        metavar="FILE",
        help="a hits file (or a quoted pattern, as one) and the file to write; with --out any "
        "number of hits files",
    )
    parser.add_argument(
        "--out", type=str | None, help="folder to write to, one file for each; skips finished ones"
    )
    parser.add_argument("--retention", type=float, default=0.97, help="share of signal to keep")
    parser.add_argument(
        "--choose-on",
        type=str | None,
        help="labelled hits file to choose the threshold on; a run has chosen already",
    )
    parser.add_argument(
        "--threshold", type=float | None, help="keep what scores at least this, in [0, 1]"
    )
    parser.add_argument("--only-kept", action="store_true", help="write kept hits only")
    parser.add_argument("--batch-size", type=int, default=256, help="events scored together")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    from tqdm.auto import tqdm

    from dense_imb.hits import mask_file, mask_files, open_hits
    from dense_imb.hits.masking import check_scorer, output_paths
    from dense_imb.hits.scaling import scaling_note

    if options.out is None:
        _check_pair(options)
    sources = options.files[:1]
    if options.out is not None:
        sources = list(output_paths(options.files, options.out).values())
    scorer, point = _scorer_and_point(options, sources[0])
    n_events = 0
    frames = []
    for source in sources:
        with open_hits(source, in_memory=False) as hits:
            check_scorer(scorer, hits.geometry)  # before the first of many
            n_events += len(hits)
            frames.append(hits.geometry)
    if not Path(options.model).is_dir():
        for source, frame in zip(sources, frames, strict=True):
            if frame.size != frames[0].size:  # the reaches of a rule are those of one frame
                raise ValueError(
                    f"Expected files of one frame for {scorer.name}, got {sources[0]} of "
                    f"{frames[0].size_text()} and {source} of {frame.size_text()}; denoise them "
                    "apart."
                )
        if note := scaling_note(frames[0], [scorer.name]):
            print(f"dense-imb denoise: note: {note}", file=sys.stderr)
    with tqdm(total=n_events, desc="denoise", unit="event", disable=options.quiet) as bar:
        common = {
            "only_kept": options.only_kept,
            "overwrite": options.overwrite,
            "batch_size": options.batch_size,
            "progress": bar.update,
        }
        if options.out is not None:
            done = mask_files(sources, options.out, scorer, point, **common)
        else:
            done = [mask_file(sources, options.files[1], scorer, point, **common)]
    for one in done:
        print(one.summary())


def _check_pair(options: Namespace) -> None:
    """Refuse to guess which of several files is the output, and to replace raw data."""
    from dense_imb.hits import HitsFile, HitsFileError, read_masking

    if len(options.files) != 2:
        raise Refused(
            "a hits file and the file to write",
            f"{len(options.files)} files",
            "name the folder for the outputs of several with {out=FOLDER}",
        )
    target = Path(options.files[1])
    if target.exists() and not options.overwrite:  # before the threshold is chosen, that may take
        raise RefusedFile(f"no file at {target}", "one", "choose another name or {overwrite}")
    if options.overwrite and target.is_file():
        try:
            with HitsFile(target, in_memory=False) as hits:
                is_ours = read_masking(hits) is not None
        except HitsFileError:
            is_ours = False
        if not is_ours:
            raise Refused(
                "{overwrite} to replace a denoised file",
                f"{target}, which is none",
                "remove it yourself, or name a folder for the outputs with {out=FOLDER}",
            )


def _scorer_and_point(
    options: Namespace, source: str | Path
) -> tuple[Scorer, OperatingPoint | float]:
    from tqdm.auto import tqdm

    from dense_imb.cli._scorers import baseline
    from dense_imb.hits import choose_point, open_hits
    from dense_imb.runs import open_run

    is_run = Path(options.model).is_dir()
    if options.choose_on is not None and options.threshold is not None:
        raise Refused("{choose_on} or {threshold}", "both", "drop one")
    run: Any = open_run(options.model) if is_run else None
    if is_run:
        run.require("hits", "denoise")
    if is_run:
        scorer: Scorer = run.trained()
    else:
        with open_hits(source, in_memory=False) as hits:
            scorer = baseline(options.model, hits.geometry)
    if options.threshold is not None:
        return scorer, options.threshold
    if options.choose_on is not None:
        with (
            open_hits(options.choose_on) as hits,
            tqdm(
                total=len(hits), desc="choose threshold", unit="event", disable=options.quiet
            ) as bar,
        ):
            return scorer, choose_point(
                scorer,
                hits,
                retention=options.retention,
                batch_size=options.batch_size,
                progress=bar.update,
            )
    if not is_run:
        raise Refused(
            f"{{choose_on}}, a labelled hits file, for the threshold of {scorer.name}",
            "none",
            "or give the threshold itself, {threshold=0.5}",
        )
    point: OperatingPoint = run.operating_point(options.retention)
    return scorer, point
