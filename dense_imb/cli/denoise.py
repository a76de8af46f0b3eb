"""`dense-imb denoise`: a score and a verdict for each hit of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dense_imb.base.files import refuse_inputs
from dense_imb.base.refusals import Refused, RefusedFile
from dense_imb.cli._aims import add_aims, aims_of
from dense_imb.cli._device import add_device, chosen_device
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._threads import add_threads
from dense_imb.config import SAVED

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.engine.processes import Processes
    from dense_imb.hits.baselines import Scorer
    from dense_imb.hits.drift import EventProfile
    from dense_imb.metrics import OperatingPoint
    from dense_imb.runs import Run

SUMMARY = "score each hit of a file and decide which hits to keep"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Copy hits files and add a score and a decision (keep) for each hit, and by a "
        "network of more than two classes the most probable class. All other columns stay equal, "
        "to the bit. The threshold is chosen by the retention (signal "
        "efficiency), by the noise hits kept per noise-only event, or by the purity; what it "
        "removes of the noise is the background rejection. Several processes, started as torchrun "
        "--nproc-per-node 4 -m dense_imb denoise ..., or by accelerate launch, share the events; "
        "the output is that of one process.",
        epilog="Examples:\n  dense-imb denoise runs/unet raw.h5 clean.h5 --retention 0.97\n"
        "  dense-imb denoise runs/unet raw.h5 clean.h5 --fakes 0.5 --choose-on 'labelled/*.h5'\n"
        "  dense-imb denoise runs/unet raw.h5 clean.h5 --purity 0.95\n"
        "  dense-imb denoise --pretrained arc raw.h5 clean.h5\n"
        "  dense-imb denoise hit-density raw/*.h5 --out clean --choose-on labelled.h5",
    )
    parser.usage = (
        "dense-imb denoise MODEL IN OUT [OPTION ...]\n"
        "       dense-imb denoise MODEL IN ... --out FOLDER [OPTION ...]"
    )
    parser.add_argument(
        "model",
        type=str,
        metavar="MODEL",
        help="folder of a run, or a classical rule: hit-density, dbscan, median-filter or "
        "blurred-hits; quote a rule with options: 'hit-density(radius_xy=5,radius_t=10)'; omit it "
        "with --pretrained",
    )
    parser.add_argument(
        "files",
        type=str,
        nargs="*",
        metavar="FILE",
        help="hits file, .h5, or a quoted pattern of several, and the file to write; with --out "
        "hits files only",
    )
    parser.add_argument(
        "--pretrained",
        type=str | None,
        metavar="NAME",
        help="network that comes with the package, arc or km3net, instead of MODEL",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="folder to write to, one file for each input; finished files are skipped",
    )
    parser.add_argument("--only-kept", action="store_true", help="write the kept hits only")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace denoised files of an earlier call"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="finish an interrupted call, with any number of processes: finished events are kept. "
        "Several processes, or --resume, write to the folder OUTPUT.shards first",
    )
    parser.add_argument(
        "--shards",
        action="store_true",
        help="leave the folder OUTPUT.shards with several hits files and an index.json, instead of "
        "one file",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="do not compare labelled files with those that the run was trained on",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    add_device(parser)
    add_threads(parser)
    parser.add_argument("--batch-size", type=int, default=256, help="number of events in a batch")
    threshold = parser.add_argument_group("threshold")
    add_aims(threshold, "0.97, or that of the run")
    threshold.add_argument(
        "--choose-on",
        type=str | None,
        metavar="FILE",
        help="labelled hits file, or a quoted pattern of several, to choose the threshold on; by "
        "default the validation data of the run",
    )
    threshold.add_argument(
        "--threshold",
        type=float | Literal["auto"] | None,
        help="smallest score to keep, from 0 to 1; auto takes that with the best F1 that the "
        "scores of the files promise, without labels",
    )
    return parser


def run(options: Namespace) -> int | None:
    """Denoise as the options say."""
    from dense_imb.engine.processes import joined
    from dense_imb.hits.shards import MissingShardsError

    device = chosen_device(options)
    with joined(device) as processes:
        try:
            _denoise(options, processes, processes.device or device)
        except MissingShardsError as problem:
            print(f"dense-imb denoise: error: {make_parser().sentence(problem)}", file=sys.stderr)
            return SAVED
    return None


def _denoise(options: Namespace, processes: Processes, device: str | None) -> None:
    from dense_imb.base.progress import tqdm
    from dense_imb.hits import mask_file, mask_files, open_hits
    from dense_imb.hits.masked import refuse_foreign
    from dense_imb.hits.masking import check_scorer, output_paths
    from dense_imb.hits.reader import expand_patterns
    from dense_imb.hits.scaling import scaling_note
    from dense_imb.hits.shards import mask_in_shards
    from dense_imb.metrics import OperatingPoint
    from dense_imb.tasks import TrainedHits

    if options.pretrained is not None:
        options.files = [options.model, *options.files]
    elif not options.files:
        raise Refused(
            "MODEL and the hits files",
            f"only {options.model}",
            "or take a network of the package, {pretrained=arc}",
        )
    in_shards = processes.n > 1 or options.resume or options.shards
    if options.out is None:
        _check_pair(options)
        sources, targets = options.files[:1], {Path(options.files[1]): options.files[0]}
    else:
        targets = dict(output_paths(options.files, options.out))
        sources = list(targets.values())
    chosen_on = [] if options.choose_on is None else expand_patterns(options.choose_on)
    refuse_inputs(targets, [*sources, *chosen_on])
    if options.overwrite:
        refuse_foreign(targets)
    run, scorer, point, validation = _scorer_and_point(options, sources, processes, device)
    n_events = 0
    geometries = []
    for source in sources:
        with open_hits(source, in_memory=False) as hits:
            check_scorer(scorer, hits.geometry)  # before any file is written
            n_events += len(hits)
            geometries.append(hits.geometry)
    note = None
    if isinstance(scorer, TrainedHits):
        note = next(filter(None, map(scorer.note, geometries)), None)
    else:
        for source, geometry in zip(sources, geometries, strict=True):
            if geometry.size != geometries[0].size:  # the radii of a rule are scaled to one
                raise ValueError(
                    f"Expected files of one geometry for {scorer.name}, got {sources[0]} of "
                    f"{geometries[0].size_text()} and {source} of {geometry.size_text()}; denoise "
                    "them one by one."
                )
        note = scaling_note(geometries[0], [scorer.name])
    few = point.few() if isinstance(point, OperatingPoint) else None
    for sentence in filter(None, (note, few)):
        if processes.is_main:
            print(f"dense-imb denoise: note: {sentence}", file=sys.stderr)
    if processes.is_main and run is not None:
        _warn_of_overlap(options, run, sources)
    is_quiet = options.quiet or not processes.is_main
    with tqdm(total=n_events, desc="denoise", unit="event", disable=is_quiet) as bar:
        common = {
            "only_kept": options.only_kept,
            "overwrite": options.overwrite,
            "batch_size": options.batch_size,
            "validation": validation,
            "progress": bar.update,
        }
        if in_shards:
            if options.out is not None:
                Path(options.out).mkdir(parents=True, exist_ok=True)
            done = mask_in_shards(
                targets,
                scorer,
                point,
                resume=options.resume or options.out is not None,
                keep_shards=options.shards,
                **common,
            )
        elif options.out is not None:
            done = mask_files(sources, options.out, scorer, point, **common)
        else:
            done = [mask_file(sources, options.files[1], scorer, point, **common)]
    for one in done:
        print(one.summary())
        if one.drift:
            print(f"dense-imb denoise: warning: {one.drift}", file=sys.stderr)


def _warn_of_overlap(options: Namespace, run: Run, sources: Sequence[str | Path]) -> None:
    """Print one line if a run was trained on labelled files, whose scores are printed."""
    from dense_imb.cli.evaluating.overlap import warn_of_overlap
    from dense_imb.hits import open_hits

    for source in sources:  # one by one, as their columns may differ
        with open_hits(source, in_memory=False) as hits:
            if "/hit/label" in hits.columns and warn_of_overlap(
                options, [run], hits, command="denoise"
            ):
                return


def _check_pair(options: Namespace) -> None:
    """Refuse files without a clear output, and an output that is there already."""
    from dense_imb.hits.masked import is_denoised

    if len(options.files) != 2:
        raise Refused(
            "a hits file and the file to write",
            f"{len(options.files)} files",
            "name the folder for the outputs of several with {out=FOLDER}",
        )
    target = Path(options.files[1])
    may_exist = options.overwrite or options.resume or options.shards
    if target.exists() and not may_exist:  # choosing the threshold takes long
        cure = "choose another name"
        if is_denoised(target):
            cure += " or {overwrite}"
        raise RefusedFile(f"no file at {target}", "one", cure)


def _scorer_and_point(
    options: Namespace, sources: Sequence[str | Path], processes: Processes, device: str | None
) -> tuple[Run | None, Scorer, OperatingPoint | float, EventProfile | None]:
    """Return the run, the scorer, its threshold, and the profile of its validation events."""
    from dense_imb.cli._scorers import baseline
    from dense_imb.hits import choose_point, open_hits, promised_threshold
    from dense_imb.runs import open_run
    from dense_imb.runs.pretrained import pretrained

    is_run = options.pretrained is not None or Path(options.model).is_dir()
    if options.choose_on is not None and options.threshold is not None:
        raise Refused("{choose_on} or {threshold}", "both", "drop one")
    aims: dict[str, Any] = aims_of(options)
    if aims and options.threshold is not None:
        raise Refused(f"{{{next(iter(aims))}}} or {{threshold}}", "both", "drop one")
    run: Any = None
    if options.pretrained is not None:
        run = pretrained(options.pretrained)
    elif is_run:
        run = open_run(options.model)
        run.require("hits", "denoise")
    if is_run:
        scorer: Scorer = run.trained(device=device)
    else:
        with open_hits(sources[0], in_memory=False) as hits:
            scorer = baseline(options.model, hits.geometry)
    validation = run.validation_events() if is_run else None
    if options.threshold == "auto":
        if not is_run:
            raise Refused(
                "a run for {threshold=auto}",
                f"{scorer.name}, whose scores are no probabilities",
                "choose a threshold with {choose_on=FILE}",
            )
        run.require_natural()
        with _choosing(options, sources, processes) as (hits, bar):
            chosen = promised_threshold(
                scorer,
                hits,
                batch_size=options.batch_size,
                progress=bar.update,
                over_processes=processes.n > 1,
            )
            return run, scorer, chosen, validation
    if options.threshold is not None:
        return run, scorer, options.threshold, validation
    if options.choose_on is not None:
        if is_run and not aims:
            aims = {"retention": run.config.hits.retention}
        with _choosing(options, options.choose_on, processes) as (hits, bar):
            point = choose_point(
                scorer,
                hits,
                **aims,
                batch_size=options.batch_size,
                progress=bar.update,
                over_processes=processes.n > 1,
            )
            return run, scorer, point, validation
    if not is_run:
        raise Refused(
            f"{{choose_on}}, a labelled hits file, for the threshold of {scorer.name}",
            "none",
            "or give the threshold itself, {threshold=0.5}",
        )
    return run, scorer, run.operating_point(**aims), validation


@contextmanager
def _choosing(options: Namespace, source: Any, processes: Processes) -> Iterator[tuple[Any, Any]]:
    """Open the hits that a threshold is chosen on, and a progress bar over their events."""
    from dense_imb.base.progress import tqdm
    from dense_imb.hits import open_hits

    with (
        open_hits(source) as hits,
        tqdm(
            total=-(-len(hits) // processes.n),
            desc="choose threshold",
            unit="event",
            disable=options.quiet or not processes.is_main,
        ) as bar,
    ):
        yield hits, bar
