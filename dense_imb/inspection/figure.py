"""The figure of an inspection."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import write_whole
from dense_imb.hits import Sensors
from dense_imb.inspection.report import Inspection

if TYPE_CHECKING:  # the report as text must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours; noise is dark grey, signals also differ in their markers
_NOISE, _EMPTY = "#888888", "#BBBBBB"
_SIGNAL = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "o^sDvP"
BRIGHT = 64  # a uint8 image with a larger value is drawn as it is, others are stretched
_RC: dict[Any, Any] = {"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}


def save_figure(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Draw an inspection to a file, whole or not at all; the suffix is the format.

    Example:
        >>> import h5py, numpy as np, pathlib, tempfile
        >>> from dense_imb.inspection import inspect_images, save_figure
        >>> folder, mask = pathlib.Path(tempfile.mkdtemp()), np.eye(10, dtype=np.uint8)
        >>> with h5py.File(folder / "lines.h5", "w") as file:
        ...     file["image"], file["mask"] = np.stack([[mask * 200]] * 4), np.stack([mask] * 4)
        >>> inspection = inspect_images(folder / "lines.h5", show_progress=False)
        >>> save_figure(inspection, folder / "lines.svg")
        >>> (folder / "lines.svg").read_text().count("<svg")
        1
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    form = path.suffix.removeprefix(".")
    with rc_context(_RC):
        figure = Figure(figsize=(16, 8.5), layout="constrained")
        FigureCanvasAgg(figure)
        draw(inspection, figure)
        write_whole(path, lambda to: figure.savefig(to, format=form, dpi=120))


def draw(inspection: Inspection, figure: Figure) -> None:
    """Draw an inspection on an empty figure."""
    numbers, pictures = inspection.numbers, inspection.pictures
    if "sensors" in numbers:
        _draw_sensors(numbers, pictures, figure)
    elif numbers["kind"] == "hits":
        _draw_hits(numbers, pictures, figure)
    elif numbers["kind"] == "values":
        _draw_values(numbers, pictures, figure)
    else:
        _draw_images(numbers, pictures, figure)


def _draw_hits(numbers: Mapping[str, Any], pictures: Mapping[str, Any], figure: Figure) -> None:
    looked = _title(numbers, figure)
    axes = [figure.add_subplot(2, 4, k + 1) for k in range(4)]
    _hit_map(figure, axes[0], pictures["hit_map"], looked)
    _per_event(axes[1], pictures)
    _time(axes[2], numbers)
    partition = numbers["partitions"].get("pixels", numbers["partitions"]["frame"])
    _class_shares(axes[3], partition["classes"])
    for k, event in enumerate(pictures["samples"]):
        _sample(figure, 2 * k + 5, event, k)
    if not pictures["samples"]:
        _say(figure.add_subplot(2, 1, 2), "no event with hits to show")


def _title(numbers: Mapping[str, Any], figure: Figure) -> int:
    """Write files and events above the figure; return the number of inspected events."""
    names = [Path(name).name for name in numbers["files"]]
    title = names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} .."
    looked: int = numbers["inspected_events"]
    figure.suptitle(f"{title}: {looked:,} of {numbers['events']:,} events", fontsize=12)
    return looked


def _draw_sensors(numbers: Mapping[str, Any], pictures: Mapping[str, Any], figure: Figure) -> None:
    looked = _title(numbers, figure)
    sensors: Sensors = pictures["sensors"]
    axes = [figure.add_subplot(2, 4, k + 1) for k in range(4)]
    pairs = [(0, 1)] if sensors.n_axes == 2 else [(0, 1), (0, 2)]
    for place, pair in zip(axes, pairs, strict=False):
        _sensor_map(figure, place, sensors, pictures["by_sensor"] / max(looked, 1), pair)
    _per_event(axes[-2], pictures)
    if numbers["time"]:
        _time(axes[-1], numbers, unit="ns")
    else:
        _say(axes[-1], "no hits")
    # the second map leaves its room
    classes = axes[1] if sensors.n_axes == 2 else figure.add_subplot(2, 4, 8)
    _class_shares(classes, numbers["partitions"]["hits"]["classes"], unit="hits")
    wanted = pictures["samples"] if sensors.n_axes == 2 else pictures["samples"][:1]
    for k, event in enumerate(wanted):
        _sensor_sample(figure, 2 * k + 5, event, k)
    if sensors.n_axes == 3 and wanted:
        _sensor_sample_in_time(figure.add_subplot(2, 4, 7), wanted[0])
    if not wanted:
        _say(figure.add_subplot(2, 2, 3), "no event with hits to show")


def _sensor_map(
    figure: Figure, axes: Axes, sensors: Sensors, rate: NDArray[np.float64], pair: tuple[int, int]
) -> None:
    """Draw the sum of the hits of all sensors at one place of a projection."""
    names = "xyz"[pair[0]], "xyz"[pair[1]]
    axes.set_title(f"Hits by place, {names[0]}-{names[1]}", loc="left")
    cell = 0.3 * sensors.spacing
    seen = sensors.position[:, pair]
    _, first, place = np.unique(
        np.round(seen / cell), axis=0, return_index=True, return_inverse=True
    )
    total = np.bincount(place.reshape(-1), weights=rate)
    order = np.argsort(total, kind="stable")  # those with most hits are drawn last
    x, y = seen[first[order]].T
    top = float(np.quantile(total, 0.999)) or float(total.max()) or 1.0
    size = float(np.clip(6000 / len(total), 2, 30))
    image = axes.scatter(x, y, c=total[order], s=size, cmap="viridis", vmin=0, vmax=top)
    bar = figure.colorbar(image, ax=axes, extend="max" if total.max() > top else "neither")
    bar.set_label("hits per event")
    axes.set(xlabel=f"{names[0]} (m)", ylabel=f"{names[1]} (m)")
    width, height = np.ptp(seen, axis=0)
    axes.set_aspect("equal" if 0.4 < height / max(width, 1e-9) < 2.5 else "auto")


def _sensor_sample(figure: Figure, place: int, event: Any, k: int) -> None:
    """Draw an event: x and the last coordinate, and in 3-D."""
    flat: Any = figure.add_subplot(2, 4, place)
    deep: Any = figure.add_subplot(2, 4, place + 1, projection="3d", computed_zorder=False)
    where, last = event.position(), "xyz"[event.geometry.n_axes - 1]
    for chosen, style, name in _groups(event):
        flat.scatter(*where[chosen][:, [0, -1]].T, label=name, **style)
        at = tuple(where[chosen].T)
        if len(at) == 2:
            at = (at[0], event.t[chosen], at[1])
        deep.scatter(*at, depthshade=False, **style)
    flat.set_title(f"Sample event {k + 1}: {event.n_hits} hits", loc="left")
    flat.set(xlabel="x (m)", ylabel=f"{last} (m)")
    flat.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    middle = "y (m)" if last == "z" else "time (ns)"
    deep.set(xlabel="x (m)", ylabel=middle, zlabel=f"{last} (m)")
    deep.set_box_aspect((4, 4, 3), zoom=0.78)
    deep.set_anchor("W")
    deep.locator_params(nbins=5)
    deep.set_title("the same in 3-D", loc="left")


def _sensor_sample_in_time(axes: Axes, event: Any) -> None:
    axes.set_title("the same in time and z", loc="left")
    for chosen, style, _ in _groups(event):
        axes.scatter(event.t[chosen], event.position()[chosen][:, 2], **style)
    axes.set(xlabel="time (ns)", ylabel="z (m)")


def _groups(event: Any) -> Iterator[tuple[NDArray[np.bool_], dict[str, Any], str]]:
    """Yield the hits, the look and the name of each class of an event."""
    label = event.label if event.label is not None else np.ones(event.n_hits, np.int64)
    size = float(np.clip(4000 / max(event.n_hits, 1), 1, 16))
    for value in np.unique(label):
        colour = _NOISE if value == 0 else _SIGNAL[(int(value) - 1) % len(_SIGNAL)]
        marker = "x" if value == 0 else _MARKERS[(int(value) - 1) % len(_MARKERS)]
        name = "noise" if value == 0 else "signal" if label.max() == 1 else f"signal {value}"
        style = {"c": colour, "marker": marker, "linewidths": 0.7, "zorder": 2 + int(value > 0)}
        style["s"] = size if value == 0 else max(size, 5)
        yield label == value, style, name if event.label is not None else "hits"


def _hit_map(figure: Figure, axes: Axes, hits: NDArray[np.int64], n_events: int) -> None:
    axes.set_title("Hits of all events", loc="left")
    rate = hits / max(n_events, 1)
    # a few hot pixels must not make all others black
    top = float(np.quantile(rate, 0.999)) or float(rate.max()) or 1.0
    image = axes.imshow(rate, origin="lower", cmap="viridis", vmin=0, vmax=top, aspect="equal")
    bar = figure.colorbar(image, ax=axes, extend="max" if rate.max() > top else "neither")
    bar.set_label("hits per pixel and event")
    axes.set(xlabel="x (pixels)", ylabel="y (pixels, upwards)")


def _per_event(axes: Axes, pictures: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Hits per event", loc="left")
    shown = [("hits", pictures["hits_per_event"], "#000000")]
    if pictures["signal_per_event"] is not None:
        shown.append(("signal among them", pictures["signal_per_event"], _SIGNAL[0]))
    top = max([int(values[-1]) for _, (values, _), _ in shown if len(values)], default=1)
    edges = np.linspace(-0.5, top + 0.5, min(top + 1, 60) + 1)
    for (name, (values, counts), colour), style in zip(shown, ("-", "--"), strict=False):
        height, _ = np.histogram(values, edges, weights=counts)
        axes.stairs(height, edges, color=colour, label=name, linestyle=style, linewidth=1.5)
    axes.set(xlabel="hits", ylabel="events", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # numbers may be long
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def _time(axes: Axes, numbers: Mapping[str, Any], unit: str = "steps") -> None:
    axes.set_title("Time spectrum", loc="left")
    axes.locator_params(axis="x", nbins=5)
    edges = np.asarray(numbers["time"]["bin_edges"]) - 0.5 * (unit == "steps")
    histogram = numbers["time"]["histogram"]
    n_events = max(numbers["inspected_events"], 1)
    colours = {"hits": "#000000", "noise": _NOISE, "signal": _SIGNAL[0]}
    for name, style in (("noise", "-"), ("signal", "--")) if numbers["labelled"] else (
        ("hits", "-"),
    ):  # fmt: skip
        height = np.asarray(histogram[name]) / n_events
        axes.stairs(height, edges, color=colours[name], label=name, linestyle=style, linewidth=1.5)
    axes.set(xlabel=f"time ({unit})", ylabel="hits per bin and event", ylim=(0, None))
    if (outside := numbers["time"]["share_outside_bins"]) > 0:
        axes.set_xlabel(f"time ({unit}); {100 * outside:.2g} % of the hits lie outside")
    axes.legend(frameon=False)


def _class_shares(
    axes: Axes,
    classes: Mapping[str, Mapping[str, float]],
    *,
    is_hits: bool = True,
    unit: str = "pixels",
) -> None:
    from matplotlib.ticker import NullFormatter

    axes.set_title(f"Share of the {unit}", loc="left")
    shares_of = {name: one["share"] for name, one in classes.items() if one["share"] > 0}
    places = {name: k for k, name in enumerate(classes)}
    if not shares_of:
        _say(axes, f"no {unit}")
        return
    names, shares = [*shares_of][:16], np.array([*shares_of.values()][:16])
    colours = (
        [_colour_of(name, places[name]) for name in names]
        if is_hits
        else [
            _SIGNAL[(places[name] - 1) % len(_SIGNAL)] if places[name] else _EMPTY for name in names
        ]
    )
    names = [name.replace("$", r"\$") for name in names]
    low = 10.0 ** np.floor(np.log10(shares.min()) - 0.3)
    axes.barh(names, shares, left=0, color=colours)
    for k, share in enumerate(shares):
        inside = share > 0.03
        axes.text(
            share * (0.8 if inside else 1.2), k, f"{100 * share:.3g} %", va="center",
            ha="right" if inside else "left",
        )  # fmt: skip
    axes.set(xscale="log", xlim=(low, 1.0), xlabel=f"share of all {unit}")
    axes.xaxis.set_minor_formatter(NullFormatter())  # labels within a decade overlap
    axes.invert_yaxis()


def _colour_of(name: str, place: int) -> str:
    if name in ("empty", "empty or noise", "background"):
        return _EMPTY
    if name == "noise":
        return _NOISE
    number = name.rpartition(" ")[2]
    k = int(number) - 1 if number.isdecimal() else 0
    return _SIGNAL[k % len(_SIGNAL)]


def _sample(figure: Figure, place: int, event: Any, k: int) -> None:
    flat: Any = figure.add_subplot(2, 4, place)
    deep: Any = figure.add_subplot(2, 4, place + 1, projection="3d")
    geometry = event.geometry
    size = float(np.clip(4000 / max(event.n_hits, 1), 1, 16))
    for chosen, style, name in _groups(event):
        x, y, t = event.x[chosen], event.y[chosen], event.t[chosen]
        flat.scatter(x, y, label=name, **{**style, "s": size})
        deep.scatter(x, t, y, depthshade=False, **{**style, "s": size * 0.7})
    flat.set_title(f"Sample event {k + 1}: {event.n_hits} hits", loc="left")
    flat.set(xlim=(-0.5, geometry.width - 0.5), ylim=(-0.5, geometry.height - 0.5),
             xlabel="x (pixels)", ylabel="y (pixels, upwards)", aspect="equal")  # fmt: skip
    flat.legend(
        frameon=False,
        markerscale=max(1.0, 4 / size**0.5),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=3,
    )
    deep.set(xlim=(0, geometry.width), ylim=(0, geometry.time_steps), zlim=(0, geometry.height),
             xlabel="x (pixels)", ylabel="time (steps)", zlabel="y (pixels)")  # fmt: skip
    # layouts ignore the labels of 3-D axes: they get room inside their own panel
    deep.set_box_aspect((4, 4, 3), zoom=0.78)
    deep.set_anchor("W")
    deep.locator_params(nbins=5)
    deep.set_title("the same in x, y and time", loc="left")


def _draw_values(numbers: Mapping[str, Any], pictures: Mapping[str, Any], figure: Figure) -> None:
    _title_of_images(numbers, figure)
    axes = figure.add_subplot(2, 3, 3)
    axes.set_title("Values that are not 0", loc="left")
    histogram = numbers["histogram"]
    axes.stairs(histogram["counts"], histogram["edges"], color="#000000", linewidth=1.5)
    axes.axvline(numbers["level"], color=_SIGNAL[0], linestyle="--", label="level of lit pixels")
    axes.set(xlabel="value", ylabel="pixels", yscale="log")
    axes.legend(frameon=False)
    axes = figure.add_subplot(2, 3, 6)
    has_cells = numbers["cells"] is not None
    _class_shares(axes, numbers["classes"], is_hits=not has_cells)
    for k, sample in enumerate(pictures["samples"]):
        plain, valued = (figure.add_subplot(2, 3, 3 * k + column) for column in (1, 2))
        title = ("median lit share", "largest lit share")[k]
        plain.set_title(f"{sample['name']}: {title}", loc="left")
        valued.set_title("its map of values", loc="left")
        plain.imshow(displayed(sample["image"]), cmap="gray")
        shown = valued.imshow(sample["target"], cmap="viridis")
        figure.colorbar(shown, ax=valued)
        for one in (plain, valued):
            one.set(xticks=[], yticks=[])
            one.spines[:].set_visible(False)


def _title_of_images(numbers: Mapping[str, Any], figure: Figure) -> None:
    name = Path(numbers["images"]).resolve()
    figure.suptitle(
        f"{name.parent.name}/{name.name}: {numbers['inspected_images']:,} of "
        f"{numbers['files']:,} images",
        fontsize=12,
    )


def _draw_images(numbers: Mapping[str, Any], pictures: Mapping[str, Any], figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    _title_of_images(numbers, figure)
    share = pictures["foreground_share"]
    axes = figure.add_subplot(2, 3, 3)
    axes.set_title("Foreground share of an image", loc="left")
    axes.hist(100 * share, bins=30, color=_SIGNAL[1])
    axes.margins(y=0.2)  # room for the legend above the bars
    axes.axvline(100 * share.mean(), color="#000000", linestyle="--", label="mean")
    axes.set(xlabel="foreground (% of the pixels)", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    axes = figure.add_subplot(2, 3, 6)
    _class_shares(axes, numbers["partitions"]["frame"]["classes"], is_hits=False)
    for k, sample in enumerate(pictures["samples"]):
        plain, labelled = (figure.add_subplot(2, 3, 3 * k + column) for column in (1, 2))
        title = ("median foreground share", "largest foreground share")[k]
        plain.set_title(f"{sample['name']}: {title}", loc="left")
        labelled.set_title("its mask", loc="left")
        image = displayed(sample["image"])
        for one in (plain, labelled):
            one.imshow(image, cmap="gray")
            one.set(xticks=[], yticks=[])
            one.spines[:].set_visible(False)
        labelled.imshow(overlay(sample["mask"]), interpolation="nearest")


def displayed(image: NDArray[Any]) -> NDArray[Any]:
    """Return grey or RGB values from 0 to 1; dark images are stretched to their 95 % quantile."""
    if image.ndim == 3:  # more than four channels are no colours: the first one is drawn
        image = image[..., :3] if image.shape[2] in (3, 4) else image[..., 0]
    values = image.astype(np.float64)
    if image.dtype == np.uint8 and image.max(initial=0) > BRIGHT:
        return values / 255
    lit = values[values > values.min()] if values.size else values
    top = float(np.quantile(lit, 0.95)) if lit.size else 1.0
    low = float(values.min())
    return np.clip((values - low) / max(top - low, 1e-12), 0, 1)


def overlay(mask: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return colours (H, W, 4) of the classes above 0, transparent elsewhere."""
    from matplotlib.colors import to_rgba

    colours = np.array([(0, 0, 0, 0), *(to_rgba(colour, 0.85) for colour in _SIGNAL)])
    shown: NDArray[np.float64] = colours[np.where(mask > 0, 1 + (mask - 1) % len(_SIGNAL), 0)]
    return shown


def _say(axes: Axes, sentence: str) -> None:
    axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()
