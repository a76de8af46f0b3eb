"""`dense-imb curves`: draw loss-response figures."""

from __future__ import annotations

from dense_imb.base.refusals import Refused
from dense_imb.cli._parser import Namespace, Parser, one_line_warnings
from dense_imb.cli._threads import add_threads

SUMMARY = "draw how losses respond"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Draw how losses respond: figures, their numbers and captions. Without options "
        "the three published figures, and every scenario for our losses.",
        epilog='Example:\n  dense-imb curves --loss "ACBMSELoss(hit_weight=2.0)" '
        "--loss torch.nn:HuberLoss --scenario recovery",
    )
    parser.add_argument(
        "--out", type=str, default="figures", metavar="FOLDER", help="folder of the figures"
    )
    # plain text: `parse_losses` looks the name up, and imports a module only where it is named
    parser.add_argument(
        "--loss",
        type=str,
        action="append",
        default=[],
        metavar="LOSS",
        help="a name of `dense-imb losses` or package.module:Class, with literal options, "
        "balance={} for a Balance(); can be repeated",
    )
    parser.add_argument(
        "--scenario",
        type=str,
        action="append",
        default=[],
        metavar="NAME",
        help="published, signal-size, recovery, probability, class-frequency, value-error, "
        "overlap, collapse[-logits] or gradient-share[-logits]; can be repeated; by default all",
    )
    parser.add_argument(
        "--frame",
        type=str | None,
        metavar="HxW",
        help="height and width of the frame in pixels; by default 128x88",
    )
    parser.add_argument("--value", type=float | None, help="value of a hit; by default 100")
    parser.add_argument(
        "--points", type=int | None, help="number of points of a curve; by default at most 200"
    )
    parser.add_argument(
        "--format",
        type=str,
        nargs="+",
        default=["png", "svg"],
        metavar="FORMAT",
        help="file formats: png, svg, pdf, json; a CSV file holds the numbers in any case",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing figures")
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="print no names of files")
    return parser


def run(options: Namespace) -> None:
    """Draw as the options say."""
    import torch

    from dense_imb.curves import CurveWarning, parse_losses, write_figures

    frame = None
    if options.frame is not None:
        height, by, width = options.frame.partition("x")
        if not (by and height.isdecimal() and width.isdecimal()):
            raise Refused("{frame} as height x width", repr(options.frame), "write {frame=128x88}")
        frame = (int(height), int(width))
    torch.set_num_threads(options.threads or 1)  # threads would wait for each other: small frames
    with one_line_warnings("curves", "always", CurveWarning):
        write_figures(
            options.out,
            losses=parse_losses(options.loss),
            scenarios=options.scenario,
            formats=options.format,
            overwrite=options.overwrite,
            report=(lambda path: None) if options.quiet else print,
            frame=frame,
            value=options.value,
            points=options.points,
        )
