"""Noise removed against signal kept, of a network of hits and of classical rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from style import BLUE, GREEN, GREY, ORANGE, RED, soften

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

SIZE = (10.0, 4.6)
STYLES = {  # colour and dashes
    "network `arc`": (BLUE, "-"),
    "hit density": (RED, "--"),
    "DBSCAN": (GREEN, "-."),
    "blurred hits": (ORANGE, ":"),
    "median filter": ("#000000", (0, (6, 2, 1.5, 2))),
}
N_EVENTS = 1000
RETENTIONS = [k / 200 for k in range(1, 199)] + [0.99 + k / 1000 for k in range(11)]


def measure() -> dict[str, Any]:
    """Score 1,000 simulated events of 30 signal and 200 noise hits; 10 s."""
    from dense_imb import pretrained
    from dense_imb.hits import BASELINES, Degradation, degrade, simulate
    from dense_imb.metrics import ScoreHistogram

    noisy = Degradation(signal=30, noise=200)
    events = degrade(simulate("arc", N_EVENTS, seed=41), noisy, seed=41).torch()
    scorers = {name: BASELINES[name]() for name in list(STYLES)[1:]}
    scorers["network `arc`"] = pretrained("arc").trained(device="cpu")
    removal = {}
    for name in STYLES:
        histogram = ScoreHistogram(4000, scale="logit")
        for first in range(0, N_EVENTS, 100):
            part = events[first : first + 100]
            histogram.update(scorers[name].score(part), part.label > 0)
        removal[name] = [round(histogram.removal_at(one), 5) for one in RETENTIONS]
    return {"retention": RETENTIONS, **removal}


def draw(figure: Figure, numbers: dict[str, Any]) -> None:
    """Draw the whole curve, and on a logarithmic scale the noise left at high retention."""
    whole, zoom = figure.subplots(1, 2)
    kept = [100 * one for one in numbers["retention"]]
    for name, (colour, dashes) in STYLES.items():
        removed = [100 * one for one in numbers[name]]
        style = {"color": colour, "linestyle": dashes, "label": name.replace("`", "")}
        whole.plot(kept, removed, **style)
        zoom.plot(kept, [max(100 - one, 1e-3) for one in removed], **style)
    for axes in (whole, zoom):
        axes.axvline(97, color=GREY, linewidth=1)
        axes.set_xlabel("signal kept (%)")
        soften(axes)
    whole.set(xlim=(0, 100.5), ylim=(0, 102), ylabel="noise removed (%)", title="whole curve")
    zoom.set(xlim=(90, 100.1), ylim=(0.1, 110), ylabel="noise left (%)", title="high retention")
    zoom.set_yscale("log")
    zoom.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=5)
