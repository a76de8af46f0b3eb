"""Figures of a report on images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.data.images.labelled import IGNORED
from dense_imb.inspection.figure import displayed, overlay
from dense_imb.metrics import ScoreHistogram
from dense_imb.report.drawing import (
    BLUE,
    RED,
    Panel,
    Rows,
    Values,
    bin_counts,
    column,
    draw_panels,
    line_style,
    logit,
    loss_panel,
    plain_label,
    plain_log_ticks,
    probability_ticks,
    rate_panel,
    score_axis,
    share_axis,
    write_message,
)
from dense_imb.report.images.measures import VERDICTS, ImageMeasures, ImageSample

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 8  # classes with a curve
# for each of `VERDICTS`; no colour of a class in the truth, and the image beneath is pale
VERDICT_COLOURS = (None, "#7E57C2", "#B0122B", "#000000", "#5FA60C", "#8A8A8A")
_PALEST = 0.8  # brightness of black in that image
_FEW = 100  # pixels; the share in a bin of fewer is luck
_EDGE = 0.1  # a threshold this near to 0 or 1 can't be seen on a linear scale
_WIDEST, _NARROWEST = 13.9, 5.0  # logits of a scale: up to 1e-6 of 0 and 1; at least two ticks


def precision_recall(histogram: ScoreHistogram) -> tuple[Values, Values]:
    """Return recall, rising, and precision at every threshold that at least one pixel reaches."""
    curve = histogram.curve()
    is_known = curve.purity.isfinite() & curve.retention.isfinite()
    points = np.stack([curve.retention[is_known].numpy(), curve.purity[is_known].numpy()])
    recall, precision = points[:, ::-1]
    return recall, precision


def reliability(histogram: ScoreHistogram) -> dict[str, Values]:
    """Return mean probability, share of the class and pixels, in bins of one logit.

    Example:
        >>> import torch
        >>> histogram = ScoreHistogram(scale="logit")
        >>> is_class = torch.tensor([True, False, False, False])
        >>> histogram.update(torch.full((4,), -1.1), is_class)
        >>> bins = reliability(histogram)
        >>> bins["probability"].round(2).tolist(), bins["share"].tolist()
        ([0.25], [0.25])
    """
    edges, signal, noise = bin_counts(histogram)
    middle = (edges[:-1] + edges[1:]) / 2
    place = np.floor(middle + 0.5).astype(np.int64)
    place -= place.min()
    pixels, hits, probability = (
        np.bincount(place, weights)
        for weights in (signal + noise, signal, (signal + noise) / (1 + np.exp(-middle)))
    )
    some = pixels > 0
    return {
        "probability": probability[some] / pixels[some],
        "share": hits[some] / pixels[some],
        "pixels": pixels[some].astype(np.float64),
    }


def draw_precision_recall(measured: ImageMeasures, names: Sequence[str], figure: Figure) -> None:
    """Draw precision against recall of each class, with its threshold and its share."""
    axes = figure.add_subplot()
    average = measured.scores.average_precision()
    names = [plain_label(name) for name in names]
    for k, name in enumerate(names[:MOST_CLASSES], 1):
        histogram = measured.scores.histograms[k]
        style = line_style(k - 1)
        mark = {"color": style["color"], "marker": style.pop("marker"), "markersize": 9}
        recall, precision = precision_recall(histogram)
        if histogram.n_signal == 0:
            axes.plot([], [], label=f"{name}: not in these images", **style)
            continue
        axes.plot(recall, precision, label=f"{name}, AP {average[k]:.3f}", linewidth=2, **style)
        point = histogram.at(measured.thresholds[k])
        if point.purity == point.purity:
            axes.plot(
                [point.retention], [point.purity], markeredgecolor="#FFFFFF", linestyle="none",
                zorder=4, **mark,
            )  # fmt: skip
        share = histogram.n_signal / (histogram.n_signal + histogram.n_noise)
        axes.axhline(share, color=style["color"], linestyle=(0, (1, 2)), linewidth=1.2)
    axes.plot(
        [], [], color="#555555", marker="o", linestyle="none", markersize=8,
        label="at the chosen threshold",
    )  # fmt: skip
    axes.plot([], [], color="#555555", linestyle=(0, (1, 2)), label="blank answer")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid(color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3)


def draw_calibration(
    measured: ImageMeasures, names: Sequence[str], figure: Figure, *, is_probability: bool = True
) -> None:
    """Draw the share of a class against its probability, and the histogram of probabilities.

    Args:
        measured: measurements of the network.
        names: names of the foreground classes.
        figure: empty figure.
        is_probability: whether the outputs are probabilities; else they are called scores.
    """
    curves, counts = figure.subplots(1, 2)
    labels = [plain_label(name) for name in names[:MOST_CLASSES]]
    histograms = measured.scores.histograms[1 : len(labels) + 1]
    classes = [reliability(histogram) for histogram in histograms]
    low, high = _logit_range(classes)
    if is_probability:
        curves.plot([low, high], [low, high], color="#777777", linewidth=0.9, label="calibrated")
    for k, (name, bins) in enumerate(zip(labels, classes, strict=True)):
        is_sure = bins["pixels"] >= _FEW
        x, y = (_logits(bins[key][is_sure]) for key in ("probability", "share"))
        inside, beyond = np.isfinite(y), ~np.isfinite(y) & (x >= low) & (x <= high)
        style = line_style(k)
        curves.plot(x[inside], y[inside], label=name, markersize=5, linewidth=1.6, **style)
        # shares of 0 and of 1 have no logit
        edge = np.where(y > 0, high, low)
        curves.plot(
            x[beyond], edge[beyond], color=style["color"], marker=style["marker"],
            markersize=5, markerfacecolor="#FFFFFF", linestyle="none", clip_on=False,
        )  # fmt: skip
    ticks = probability_ticks(low, high)
    for axis in (curves.xaxis, curves.yaxis):
        axis.set_ticks(*ticks)
    curves.tick_params(axis="x", rotation=45)
    curves.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    curves.set(title="Calibration" if is_probability else "Scores, no probabilities")
    curves.set(ylabel="share of the class")
    curves.grid(color="#E4E4E4", linewidth=0.7)
    curves.set_axisbelow(True)
    _draw_counts(counts, labels, histograms, low, high)
    by_truth = " by truth" if len(labels) == 1 else ""
    counts.set(title=f"Predicted {'probabilities' if is_probability else 'scores'}{by_truth}")
    for axes in (curves, counts):
        axes.set(xlabel=f"predicted {'probability' if is_probability else 'score'}")
    figure.legend(loc="outside lower center", ncols=4)


def _draw_counts(
    axes: Axes, names: Sequence[str], histograms: Sequence[ScoreHistogram], low: float, high: float
) -> None:
    """Draw the histogram of probabilities, in bins of a quarter logit."""
    edges, *_ = bin_counts(histograms[0])
    wide = np.linspace(low, high, round(4 * (high - low)) + 1)
    middle = np.clip((edges[:-1] + edges[1:]) / 2, low + 1e-9, high - 1e-9)
    top = 1.0
    is_binary = len(histograms) == 1
    for k, (name, histogram) in enumerate(zip(names, histograms, strict=True)):
        _, signal, noise = bin_counts(histogram)
        kinds = [(signal if is_binary else signal + noise, "" if is_binary else name)]
        kinds += [(noise, "background")] if is_binary else []
        for j, (values, name_of_kind) in enumerate(kinds):
            height, _ = np.histogram(middle, wide, weights=values)
            top = max(top, float(height.max()))
            style = line_style(k) if j == 0 else {"color": "#000000", "linestyle": "--"}
            style.pop("marker", None)
            if j == 0 and is_binary:
                axes.stairs(height, wide, color=style["color"], fill=True, alpha=0.25, linewidth=0)
            # classes have their line in the legend already
            label = name_of_kind if j == 1 else "_"
            axes.stairs(height, wide, linewidth=1.6, label=label, **style)
    axes.set(yscale="log", ylim=(0.7, 3 * top), ylabel="pixels", xlim=(low, high))
    axes.set_xticks(*probability_ticks(low, high))
    axes.tick_params(axis="x", rotation=45)


def _logits(probability: Values) -> Values:
    with np.errstate(divide="ignore"):
        logits: Values = np.log(probability) - np.log1p(-probability)
    return logits


def _logit_range(classes: Sequence[dict[str, Values]]) -> tuple[float, float]:
    """Return the range of the bins with enough pixels: at least 1 % to 99 %, at most 1e-6."""
    logits = [
        _logits(bins[key][bins["pixels"] >= _FEW])
        for bins in classes
        for key in ("probability", "share")
    ]
    values = np.concatenate([*logits, [-4.6, 4.6]])
    values = values[np.isfinite(values)]
    return max(float(values.min()) - 0.3, -13.9), min(float(values.max()) + 0.3, 13.9)


def draw_image_training(
    history: Rows, names: Sequence[str], figure: Figure, second: float | None = None
) -> None:
    """Draw the validation scores against the step; for `second` see `draw_panels`."""
    names = [plain_label(name) for name in names]
    precisions = {"average precision": column(history, "average_precision")}
    if len(names) > 1:
        precisions = {"mean": precisions["average precision"]}
        for k, name in enumerate(names[:MOST_CLASSES], 1):
            precisions[name] = column(history, f"average_precision_{k}")
    shares = {"background": column(history, "gradient_share_class_0")}
    for k, name in enumerate(names[:MOST_CLASSES], 1):
        shares[name] = column(history, f"gradient_share_class_{k}")
    panels = [
        loss_panel(history),
        Panel("Average precision", precisions, score_axis),
        Panel(
            "Overlap of the likeliest classes, as trained",
            {
                "Dice": column(history, "dice"),
                "IoU": column(history, "iou"),
                "Dice at the best threshold": column(history, "best_f1"),
            },
            score_axis,
        ),
        Panel("Share of the loss's gradient", shares, share_axis),
        Panel(
            "Likeliest as trained: collapsed if both are 0 or 1",
            {
                "foreground found": column(history, "recall_at_half"),
                "pixels called foreground": column(history, "lit_at_half"),
            },
            share_axis,
        ),
        rate_panel(history),
    ]
    draw_panels(column(history, "step"), panels, figure, second)


def draw_images(measured: ImageMeasures, figure: Figure) -> None:
    """Draw the F1 of single images, and F1 against the share of foreground."""
    from matplotlib.ticker import MaxNLocator

    spread, against = figure.subplots(1, 2)
    f1, share = (column(measured.images, name) for name in ("f1", "share"))
    known = f1[np.isfinite(f1)]
    spread.hist(known, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, alpha=0.8)
    if len(known):
        middle = float(np.median(known))
        spread.axvline(middle, color="#000000", linestyle="--", label=f"median {middle:.2f}")
        figure.legend(loc="outside lower center")
    spread.set(title="Single images", xlabel="F1 of an image", ylabel="images", xlim=(0, 1))
    spread.yaxis.set_major_locator(MaxNLocator(integer=True))
    has_some = np.isfinite(f1) & (share > 0)
    against.scatter(100 * share[has_some], f1[has_some], s=22, color=BLUE, alpha=0.7, clip_on=False)
    against.set(title="Against the share of foreground", ylim=(0, 1.02), ylabel="F1 of an image")
    if has_some.any():
        against.set_xscale("log")
        plain_log_ticks(against, "x", 100 * share[has_some])
    else:
        write_message(against, "no image has foreground")
    against.set_xlabel("foreground (% of the pixels)")


def sample_layout(shape: tuple[int, ...]) -> tuple[int, int, tuple[float, float]]:
    """Return rows and columns of the four panels of an image (H, W), and the figure's size."""
    ratio = shape[1] / shape[0]
    n_rows, n_columns = (4, 1) if ratio > 2.5 else (1, 4) if ratio < 0.4 else (2, 2)
    width = 9.5
    panel_width = (width - 0.6) / n_columns  # beside a scale
    height = n_rows * (panel_width / ratio + 0.3) + 0.5
    return n_rows, n_columns, (width, float(np.clip(height, 3, 12)))


def draw_sample(
    sample: ImageSample,
    names: Sequence[str],
    threshold: float | None,
    figure: Figure,
    *,
    is_probability: bool = True,
) -> None:
    """Draw an image, its truth, the probability of foreground and the errors.

    Args:
        sample: sample to draw.
        names: names of the foreground classes.
        threshold: probability threshold to mark; None with several foreground classes.
        figure: empty figure.
        is_probability: see `draw_calibration`.
    """
    from matplotlib.patches import Patch

    n_rows, n_columns, _ = sample_layout(sample.truth.shape)
    plain, truth, chance, errors = figure.subplots(n_rows, n_columns).ravel()
    grey = displayed(sample.image)
    is_ignored = sample.truth == IGNORED
    output = "Probability" if is_probability else "Score"
    for axes, title in ((plain, "Image"), (truth, "Truth"), (chance, f"{output} of foreground"),
                        (errors, "Errors")):  # fmt: skip
        axes.set_title(title)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes in (plain, truth):
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    truth.imshow(
        overlay(np.where(is_ignored, 0, sample.truth).astype(np.int64)), interpolation="nearest"
    )
    present = np.unique(sample.truth[~is_ignored & (sample.truth > 0)]).tolist()
    if present:
        colours = overlay(np.array([present]))[0]
        named = [
            Patch(color=colour, label=plain_label(names[k - 1]))
            for colour, k in zip(colours, present, strict=True)
        ]
        truth.legend(handles=named, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
    if _draw_probability(sample.probability, threshold, chance, figure):
        chance.set_title(f"{output} of foreground, logit scale")
    errors.imshow(pale(grey), vmin=0, vmax=1)
    errors.imshow(_verdict_colours(sample.verdict), interpolation="nearest")
    n = sample.n_pixels[0]
    handles = [Patch(facecolor="#DDDDDD", edgecolor="#8A8A8A", label=f"background (pale): {n:,}")]
    for k, name in enumerate(VERDICTS[1:], 1):
        n = sample.n_pixels[k]
        if n or k < 4:
            handles.append(Patch(color=VERDICT_COLOURS[k], label=f"{name}: {n:,}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _draw_probability(
    probability: NDArray[np.float32], threshold: float | None, axes: Axes, figure: Figure
) -> bool:
    """Draw a map of probabilities with its scale; return whether in logits.

    Logits are drawn where a linear scale shows little.
    """
    limits = _logit_limits(probability, threshold)
    if limits is None:
        drawn = axes.imshow(probability, cmap="viridis", vmin=0, vmax=1)
    else:
        low, high = limits
        logits = np.clip(_logits(probability.astype(np.float64)), low, high)
        drawn = axes.imshow(logits, cmap="viridis", vmin=low, vmax=high)
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1.03, 0, 0.025, 1)))
    if limits is not None:
        places, labels = probability_ticks(*limits)
        bar.set_ticks(places, labels=labels)
    if threshold is not None:
        place = threshold if limits is None else float(np.clip(logit(threshold), *limits))
        bar.ax.plot([-0.5], [place], color=RED, marker=">", markersize=8, clip_on=False)
    return limits is not None


def _logit_limits(
    probability: NDArray[np.float32], threshold: float | None
) -> tuple[float, float] | None:
    """Return the range of a scale in logits; None where a linear scale shows enough.

    It does if the threshold lies far from 0 and 1; without a threshold, if the brightest
    thousandth of the pixels does.
    """
    bounds = np.quantile(probability.astype(np.float64), [0.01, 0.999])
    mark = float(bounds[1]) if threshold is None else threshold
    if _EDGE <= mark <= 1 - _EDGE:
        return None
    values = np.clip([*_logits(bounds), logit(mark)], -_WIDEST, _WIDEST)
    low, high = float(values.min()), float(values.max())
    margin = max(_NARROWEST - (high - low), 1.0) / 2
    return low - margin, high + margin


def pale(grey: NDArray[Any]) -> NDArray[Any]:
    """Return a grey image (H, W, 3) so light that black stands out."""
    flat = grey if grey.ndim == 2 else grey.mean(-1)
    return np.repeat((_PALEST + (1 - _PALEST) * flat)[..., None], 3, -1)


def _verdict_colours(verdict: NDArray[np.uint8]) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgba

    colours = np.array([(0, 0, 0, 0) if c is None else to_rgba(c) for c in VERDICT_COLOURS])
    pixels: NDArray[np.float64] = colours[verdict]
    return pixels
