"""The report as text for a terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dense_imb.inspection import sensor_text
from dense_imb.inspection.blank import CONFIDENCE
from dense_imb.inspection.formats import (
    QUANTILES,
    counted,
    heading,
    pair_line,
    percent,
    quantile_line,
    shortened,
    spectrum_lines,
    times,
)
from dense_imb.inspection.hits import GAP
from dense_imb.inspection.report import Inspection
from dense_imb.inspection.values_text import value_sections
from dense_imb.losses.foreign.recommended import (
    MILD,
    recommended_for_frames,
    recommended_for_hits,
)

FEW_CLASSES = 10  # up to so many mask values may be classes, with gaps between them
_PARTITIONS = {
    "pixels": "Pixels of the frames",
    "frame": "Classes of a segmentation of the frame",
    "lit": "Lit pixels only",
    "hits": "Hits",
}
_NOISE = 200  # noise hits an event, proposed for files without noise
_THRESHOLD = 127  # proposed for grey masks of bytes
_FED = {
    "values": f"losses of values; frames hold 0 where empty, {GAP} + {1 - GAP} t/T at a hit",
    "logits_frame": "losses of logits, every pixel",
    "logits_hits": "losses of logits, every hit",
    "logits_lit": "losses of logits, lit pixels only (mask = frame > 0)",
}


# how the recommended losses of images compared with others
_MEASURED = {
    "BalancedSoftmaxLoss": "the default of `dense-imb train images` here: it ranked rare pixels "
    "best of 14 losses on cracks and air showers (in long trainings CrossEntropyLoss catches up); "
    "as trained its probabilities are those of equally frequent classes, and finished runs turn "
    "them into natural ones",
    "CrossEntropyLoss": "the default of `dense-imb train images` here, or FocalLoss: both ranked "
    "four long-tailed classes best of 16 losses; where each pixel must get its most probable "
    "class, with a balanced loss + Dice",
}


def text_of(inspection: Inspection) -> str:
    """Return the report for a terminal, as `dense-imb inspect` prints it.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb.inspection import inspect_images, text_of
        >>> path, mask = tempfile.mkdtemp() + "/lines.h5", np.eye(40, dtype=np.uint8)
        >>> with h5py.File(path, "w") as file:
        ...     file["image"], file["mask"] = np.stack([[mask * 200]] * 4), np.stack([mask] * 4)
        >>> text = text_of(inspect_images(path, show_progress=False))
        >>> traps = [line for line in text.splitlines() if line.endswith("blank looks good")]
        >>> [line.split()[0] for line in traps][:2]
        ['CrossEntropyLoss()', 'ComplementCrossEntropyLoss()']
    """
    numbers = inspection.numbers
    sections_of = {"hits": _hit_sections, "images": _image_sections, "values": value_sections}
    sections = sections_of[numbers["kind"]](numbers)
    return "\n\n".join("\n".join(section) for section in sections if section)


def _hit_sections(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    files = numbers["files"]
    named = files[0] if len(files) == 1 else f"{len(files)} files, {files[0]} .."
    sensors = numbers.get("sensors")
    looked = numbers["inspected_events"]
    part = "" if looked == numbers["events"] else f", {looked:,} of them inspected"
    yield [
        named,
        f"  {numbers['events']:,} events, {numbers['hits']:,} hits{part}",
        f"  {sensor_text.table_line(sensors) if sensors else _frame_line(numbers['frame'])}",
        f"  further columns: {', '.join(numbers['columns']) or 'none'};"
        f" labels: {'yes' if numbers['labelled'] else 'no'};"
        f" content hash: {numbers['content_hash']}",
    ]
    if looked == 0:
        yield ["No events: nothing to measure."]
        return
    yield from _first_of_all(numbers)
    yield [
        heading("Per event", ("mean", *QUANTILES.values())),
        *(quantile_line(name, values) for name, values in numbers["per_event"].items()),
        f"  events without hits: {numbers['empty_events']:,}"
        + (
            f"; without signal: {numbers['events_without_signal']:,}" if numbers["labelled"] else ""
        ),
    ]
    if not sensors:
        yield _occupancy_lines(numbers)
    yield from _imbalance(numbers)
    if numbers["hits"] and sensors:
        yield sensor_text.time_lines(numbers["time"])
        yield sensor_text.map_lines(numbers["map"], sensors["number"])
    elif numbers["hits"]:
        yield _time_lines(numbers)
        yield _map_lines(numbers)
    yield from _blank(numbers)
    yield from _closing(numbers)
    yield from _next(numbers)


def _frame_line(frame: Mapping[str, Any]) -> str:
    units = [
        f"{name[0]} step {frame[name]:g} {name[2:]}"
        for name in ("x_mm", "y_mm", "t_ns")
        if frame[name] is not None
    ]
    return (
        f"frame {frame['width']} x {frame['height']} pixels, {frame['time_steps']} time steps"
        f" ({', '.join(units) or 'no physical units'})"
    )


def _occupancy_lines(numbers: Mapping[str, Any]) -> list[str]:
    occluded = numbers["occluded"]
    hidden = f"  {percent(occluded['share'])} of the hits share a pixel and are hidden"
    if numbers["labelled"]:
        hidden += f" ({percent(occluded['share_of_signal'])} of the signal)"
    return [f"Occupancy: {percent(numbers['occupancy'])} of the pixels are lit", hidden]


def _image_sections(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    looked = numbers["inspected_images"]
    part = "" if looked == numbers["files"] else f", {looked:,} of them inspected"
    masks = numbers["masks"]
    yield [
        f"{numbers['images']} with {f'masks in {masks}' if masks else 'its masks'}",
        f"  {numbers['files']:,} images{part}",
        f"  sizes: {counted(numbers['sizes'])}",
        f"  images of {counted(numbers['pixels'])}; masks of {numbers['mask_values']}",
    ]
    yield from _first_of_all(numbers)
    if numbers["grey_values"]:
        yield from _next(numbers)
        return
    objects = numbers["objects_per_image"]
    yield [
        heading("Per image", ("mean", *QUANTILES.values())),
        quantile_line("foreground share", numbers["foreground_share"], share=True),
        *([quantile_line("objects", objects)] if objects else []),
        f"  images without foreground: {numbers['images_without_foreground']:,}",
    ]
    yield from _imbalance(numbers)
    yield from _blank(numbers)
    yield from _closing(numbers)
    yield from _next(numbers)


def _imbalance(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, partition in numbers["partitions"].items():
        lines = [f"{_PARTITIONS[name]}: largest to smallest class {times(partition['imbalance'])}"]
        unit = "images" if numbers["kind"] == "images" else "events"
        one = "hits" if name == "hits" else "pixels"
        width = max(14, *map(len, partition["classes"]))
        for label, counts in partition["classes"].items():
            if counts["pixels"] or len(partition["classes"]) < 10:
                lines.append(
                    f"  {label:{width}} {percent(counts['share']):>9}  {counts['pixels']:>15,}"
                    f" {one}  in {counts['images']:,} {unit}"
                )
        yield lines


def _time_lines(numbers: Mapping[str, Any]) -> list[str]:
    time = numbers["time"]
    edges = time["bin_edges"]
    blocks = f"blocks of {edges[1] - edges[0]} steps, from {edges[0]} to {edges[-1] - 1}"
    return [
        *spectrum_lines("Time steps", time, blocks),
        f"  at the first step {percent(time['share_at_first_step'])}, "
        f"at the last {percent(time['share_at_last_step'])}",
    ]


def _map_lines(numbers: Mapping[str, Any]) -> list[str]:
    defects = numbers["map"]
    mean = defects["mean_hits_per_pixel_and_event"]
    lines = [f"Hottest pixels (hits an event; {mean:.3g} on average)"]
    for one in defects["hottest"]:
        rate = one["hits_per_event"]
        hot = "  HOT" if one["is_hot"] else ""
        place = f"x={one['x']} y={one['y']}"
        lines.append(
            f"  {place:16} {rate:8.3g}, {rate / mean:.3g} x average, lit in "
            f"{percent(one['share_of_events'])} of the events{hot}"
        )
    silent = len(defects["silent_rows"]), len(defects["silent_columns"])
    lines.append(
        f"  pixels without any hit: {defects['silent_pixels']:,}; rows: {silent[0]}, columns: "
        f"{silent[1]}"
    )
    return lines


def _blank(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    accuracy = numbers["accuracy"]
    if "sensors" in numbers:
        yield sensor_text.blank_lines(numbers)
        yield from _loss_tables(numbers)
        return
    lines = ["Scores of a BLANK prediction on these data"]
    if numbers["kind"] == "hits":
        quality = numbers["quality"]
        lines = [f"{lines[0]:34}", f"  {'':26} {'blank':>9} {'input':>9}"]
        lines.append(pair_line("accuracy, every pixel", accuracy, "blank", "input", percent))
        if numbers["labelled"]:
            on = ("blank_on_lit_pixels", "input_on_lit_pixels")
            lines.append(pair_line("accuracy, lit pixels", accuracy, *on, percent))
        if quality["frames"]:
            for score, form in (("ssim", "{:.4f}"), ("psnr", "{:.1f} dB")):
                values = {row: quality[row][score] for row in ("blank", "input")}
                lines.append(pair_line(score.upper(), values, "blank", "input", form.format))
            lines.append(
                f"  (SSIM and PSNR of {quality['frames']} frames against the input"
                f"{' without its noise' if numbers['labelled'] else ' itself'}; values as below)"
            )
    else:
        lines.append(f"  accuracy {percent(accuracy['blank'])}")
    yield lines
    yield from _loss_tables(numbers)


def _loss_tables(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    for fed, rows in numbers["losses"].items():
        if rows:
            yield _loss_table(fed, rows)


def _loss_table(fed: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    has_input = rows[0]["input"] is not None
    blank = "0 everywhere" if has_input else f"class 0 everywhere, at p={CONFIDENCE}"
    columns = ("perfect", "undecided", "blank", *(("input",) if has_input else ()))
    width = max(len(row["loss"]) for row in rows)
    head = " ".join(f"{name:>10}" for name in columns)
    lines = [
        f"{_FED[fed][0].upper()}{_FED[fed][1:]}",
        f"  (blank: {blank}; undecided: {'0.5 everywhere' if has_input else 'all logits 0'}"
        f"{'' if has_input else f'; perfect: the true class, at p={CONFIDENCE}'})",
        f"  {'':{width}} {head}",
    ]
    for row in rows:
        values = " ".join(f"{row[name]:10.4g}" for name in columns)
        lines.append(f"  {row['loss']:{width}} {values}   {row['verdict']}")
    if any("DiceLoss" in row["loss"] for row in rows):
        lines.append(
            f"  (DiceLoss of perfect is not 0: it counts the {1 - CONFIDENCE:.2f} that "
            f"p={CONFIDENCE} leaves to other classes in each pixel)"
        )
    return lines


def _closing(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    lines = ["Weights and priors to paste (from dense_imb.losses import ..)"]
    for name, partition in numbers["partitions"].items():
        if "python" in partition:
            classes = ", ".join(partition["classes"])
            lines.append(
                f"  {_PARTITIONS[name]}: {classes if len(classes) < 60 else 'all classes'}"
            )
            for method, line in partition["python"].items():
                lines.append(f"    {method:26} {shortened(line)}")
    if len(lines) == 1:
        is_open = len(numbers.get("present") or ()) > 1
        why = "the mask values of the classes are not known" if is_open else "only one class"
        lines.append(f"  none: {why}")
    yield lines


def _next(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the next command to type, where there is one."""
    purpose, command = next_command(numbers)
    if command:
        yield [f"Next: {purpose}", f"  {command}"]
        if numbers["kind"] == "hits" and "sensors" not in numbers:
            yield _compare_hits(numbers)


def next_command(numbers: Mapping[str, Any]) -> tuple[str, str]:
    """Return the purpose of the next command, and the command; "" where there is none."""
    if "sensors" in numbers:
        return sensor_text.next_command(numbers)
    return _next_of_hits(numbers) if numbers["kind"] == "hits" else _next_of_images(numbers)


def _next_of_hits(numbers: Mapping[str, Any]) -> tuple[str, str]:
    noise, signal = _counts_of_hits(numbers)
    if not signal:
        return "", ""
    first = shlex.quote(numbers["files"][0])
    command = f"dense-imb train hits --hits.train {first} --out runs/first"
    if noise:
        return "train a network of hits", command
    return (
        "train a network of hits, with as much noise as in yours",
        f"{command} --hits.noise {_NOISE}",
    )


def _compare_hits(numbers: Mapping[str, Any]) -> list[str]:
    """Return the command for after the first network: the comparison of losses."""
    noise, _ = _counts_of_hits(numbers)
    command = f"dense-imb compare {shlex.quote(numbers['files'][0])}"
    return [
        "Then: compare losses on these data, for 20 minutes (--minutes N), and choose one",
        f"  {command}" if noise else f"  {command} --noise {_NOISE}",
    ]


def _counts_of_hits(numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Return the numbers of pixels with noise and with signal."""
    partition = numbers["partitions"].get("pixels", numbers["partitions"]["frame"])
    counts = {name: int(one["pixels"]) for name, one in partition["classes"].items()}
    noise = counts.pop("noise", 0)
    counts.pop("empty")
    return noise, sum(counts.values())


def _next_of_images(numbers: Mapping[str, Any]) -> tuple[str, str]:
    where = shlex.quote(numbers["images"])
    if numbers["masks"]:
        where += f" --masks {shlex.quote(numbers['masks'])}"
    ignored = numbers["ignore_index"]
    ignoring = "" if ignored is None else f" --ignore-index {ignored}"
    if numbers["grey_values"]:
        return (
            "inspect the masks with a threshold: larger values are class 1",
            f"dense-imb inspect {where} --above {_THRESHOLD}{ignoring}",
        )
    if len(present := numbers["present"] or ()) > 1:
        return (
            "name the mask value of each class, in their order",
            f"dense-imb inspect {where} --labels {_joined(present)}{ignoring}",
        )
    if math.isnan(numbers["partitions"]["frame"]["imbalance"]):
        return "", ""
    meaning = ""
    if numbers["labels"]:
        meaning = f" --labels {_joined(numbers['labels'])}"
    elif numbers["above"] is not None:
        meaning = f" --above {numbers['above']:g}"
    return (
        "compare losses on these data, for 20 minutes (--minutes N), and choose one",
        f"dense-imb compare {where}{meaning}{ignoring}",
    )


def _joined(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _first_of_all(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield warnings and advice, which the rest of the report explains."""
    if numbers["warnings"]:
        yield ["Warnings", *(f"  - {line}" for line in numbers["warnings"])]
    if lines := advice(numbers):
        yield ["What to do", *(f"  - {line}" for line in lines)]


def advice(numbers: Mapping[str, Any]) -> list[str]:
    """Return the advice that follows from the numbers, one sentence a line."""
    if numbers.get("grey_values"):
        return []
    if "sensors" in numbers:
        return sensor_text.advice_lines(numbers)
    imbalance = numbers["partitions"]["frame"]["imbalance"]
    is_hits = numbers["kind"] == "hits"
    lines = []
    if numbers.get("labels"):
        line = f"to train on these: --images.labels '{numbers['labels']}'"
        if numbers["ignore_index"] is not None:
            line += f" --images.ignore_index {numbers['ignore_index']}"
        lines.append(line)
    if math.isnan(imbalance):
        lines.append("one class only: nothing to balance; training needs a second class")
    elif imbalance > MILD:
        scores = "noise removal and purity" if is_hits else "IoU or average precision"
        lines.append(f"{imbalance:,.0f} to 1: judge by {scores}, not by accuracy, SSIM or PSNR")
        lines.append(
            "a plain mean over pixels rewards a blank prediction (`blank looks good` below): "
            "choose thresholds on validation data; by natural probabilities the best F1 lies at "
            "half of itself, below 1/2 (train with --calibrate true to fit their slope, too)"
        )
        lines += _losses_to_begin_with(numbers, is_hits)
    else:
        lines.append(f"{imbalance:.2g} to 1 is mild: a plain loss may be enough")
    lit_partition = numbers["partitions"].get("lit", {})
    lit = lit_partition.get("imbalance", math.nan)
    if "noise" in lit_partition.get("never_seen", []):
        line = "no noise (label 0) here: add it in training (dense_imb.hits.degrade)"
        if len(lit_partition["classes"]) > 2:
            line += "; or, if one of the labels means noise, convert with --noise-label K"
        lines.append(line)
    elif not math.isnan(lit) and imbalance > 3 * lit:
        lines.append(
            f"among lit pixels it is only {lit:.2g} to 1: to denoise, train on these only "
            "(loss(.., mask=frame > 0))"
        )
    return lines + sensor_text.feature_lines(numbers)


def _losses_to_begin_with(numbers: Mapping[str, Any], is_hits: bool) -> list[str]:
    """Return the losses that scored best on similar data; see experiments/README.md."""
    if is_hits:
        return [
            "begin with the defaults of `dense-imb train hits`, whose network sees hits only, and "
            f"{recommended_for_hits().loss}",
            f"for networks of frames begin with {recommended_for_frames().loss} on the lit pixels, "
            "the default of `dense-imb train hits` for them, which removed most noise of 11 "
            f"losses; for values with {recommended_for_frames(is_value=True).loss}",
        ]
    recommended = numbers["recommended_loss"]["loss"]
    return [f"begin with {recommended}, {_MEASURED[recommended]}"]
