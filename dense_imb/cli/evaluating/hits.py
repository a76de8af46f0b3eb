"""`dense-imb evaluate` for runs on hits, beside the classical rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from dense_imb.base.refusals import Refused
from dense_imb.cli._aims import aims_of
from dense_imb.cli._device import chosen_device
from dense_imb.cli._parser import Namespace
from dense_imb.cli._scorers import baseline
from dense_imb.cli._script import folder_for_outputs
from dense_imb.hits import (
    Evaluation,
    Scorer,
    available_baselines,
    noise_sweep,
    open_hits,
)
from dense_imb.hits import evaluate as evaluate_hits
from dense_imb.hits.scaling import scaling_note
from dense_imb.runs import Run


def evaluate(
    options: Namespace, runs: list[Run], others: list[str], outputs: list[Path]
) -> Evaluation:
    """Measure runs and classical rules on labelled hits.

    Args:
        options: options of the command.
        runs: runs to measure.
        others: paths that are no runs.
        outputs: files to write later; their folder is made before the work.
    """
    files = [path for path in others if not Path(path).is_dir()]
    folders = [path for path in others if Path(path).is_dir()]
    for typed in folders:
        if any(Path(typed).glob("*.h5")):
            raise ValueError(
                f"Expected RUN ... FILE, got the folder {typed}, which is no run; name its hits "
                f'files: "{Path(typed)}/*.h5".'
            )
    if folders:
        raise ValueError(
            f"Expected folders of runs before the files, got {folders[0]}, which is none; images "
            f"come behind their run: evaluate RUN {folders[0]} --masks MASKS."
        )
    if not files:
        raise ValueError(
            f"Expected a hits file behind the runs, got only {', '.join(options.paths)}."
        )
    if options.signal is not None and not options.noise:
        raise Refused("{noise} beside {signal}", "none", "{noise=200} degrades clean events")
    device = chosen_device(options)
    scorers: list[Scorer] = [one.trained(device=device) for one in runs]
    if not (scorers or options.baselines or options.baseline):
        raise ValueError("Expected a RUN beside --no-baselines, got none.")
    test = open_hits(files)
    notes: tuple[str, ...] = ()
    rules: list[Scorer] = []
    if options.baselines:
        rules, notes = available_baselines(test.geometry)
    for typed in options.baseline:
        rule = baseline(typed, test.geometry, option="--baseline")
        if rule.name not in [one.name for one in rules]:
            rules.append(rule)
    if note := scaling_note(test.geometry, [rule.name for rule in rules]):
        notes = (*notes, f"{note} --baseline 'NAME(OPTION=VALUE)' sets others.")
    scorers += rules
    if outputs:
        folder_for_outputs(outputs[0].parent)
    validation = open_hits(options.validation) if options.validation else None
    most = options.events if options.events is not None else max(len(test), len(validation or ()))
    n_events = sum(min(most, len(source)) for source in (test, validation) if source is not None)
    total = n_events * len(scorers) * max(1, len(options.noise))
    with tqdm(total=total, desc="evaluate", unit="event", disable=options.quiet) as bar:
        common = {
            **aims_of(options),
            "batch_size": options.batch_size,
            "n_events": options.events,
            "progress": bar.update,
        }
        if options.noise:
            table = noise_sweep(
                scorers,
                test,
                options.noise,
                signal=options.signal,
                seed=options.seed,
                validation=validation,
                **common,
            )
        else:
            table = evaluate_hits(scorers, validation, test, **common)
    return replace(table, notes=(*table.notes, *notes))
