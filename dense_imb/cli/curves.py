"""`dense-imb curves`: loss-response figures."""

from __future__ import annotations

from dense_imb.cli._parser import Namespace, Parser, one_line_warnings

SUMMARY = "draw how losses respond"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Draw how losses respond: figures, their numbers and captions. Without options "
        "the three published figures and a gallery of every scenario for our losses.",
        epilog='Example:\n  dense-imb curves --loss "ACBMSELoss(hit_weight=2.0)" '
        "--loss torch.nn:HuberLoss --scenario recovery",
    )
    parser.add_argument("--out", type=str, default="figures", help="the folder to write to")
    # plain strings: what they name is looked up, and imported where they say so, by our own code
    parser.add_argument(
        "--loss",
        type=str,
        action="append",
        default=[],
        help="a name of `dense-imb losses` or package.module:Class, with options as literals, "
        "balance={} for a Balance(); may be repeated",
    )
    parser.add_argument(
        "--scenario",
        type=str,
        action="append",
        default=[],
        help="published, signal-size, recovery, probability, class-frequency, value-error, "
        "collapse[-logits] or gradient-share[-logits]; may be repeated; all by default",
    )
    parser.add_argument("--frame", type=str | None, help="frame size, 128x88 by default")
    parser.add_argument("--value", type=float | None, help="value of a hit, 100 by default")
    parser.add_argument("--points", type=int | None, help="points of a curve, 200 at most")
    parser.add_argument(
        "--format",
        type=str,
        nargs="+",
        default=["png", "svg"],
        help="of png, svg, pdf, json; the numbers come as CSV, too",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace figures that exist")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    import torch

    from dense_imb.curves import CurveWarning, parse_losses, write_figures

    frame = None
    if options.frame is not None:
        height, by, width = options.frame.partition("x")
        if not (by and height.isdecimal() and width.isdecimal()):
            raise ValueError(f"Expected `--frame` as 128x88, got {options.frame!r}.")
        frame = (int(height), int(width))
    torch.set_num_threads(1)  # frames are small: on a busy machine threads wait for each other
    with one_line_warnings("curves", "always", CurveWarning):
        write_figures(
            options.out,
            losses=parse_losses(options.loss),
            scenarios=options.scenario,
            formats=options.format,
            overwrite=options.overwrite,
            report=print,
            frame=frame,
            value=options.value,
            points=options.points,
        )
