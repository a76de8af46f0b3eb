"""`dense-imb export`: write a run as ONNX or torch.export, with its model card."""

from __future__ import annotations

import sys

from dense_imb.base.refusals import Refused
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._threads import add_threads

SUMMARY = "write the network of a run as ONNX or torch.export, with a model card"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Write the best network of a run as a file that needs no dense_imb: ONNX "
        "(.onnx) or torch.export (.pt2). The network takes pixels as they are in image files, "
        "padded events of hits, or frames of hit times, and returns probabilities, or values. The "
        "file is compared with PyTorch on the run's validation data before it gets its name. A "
        "model card is written beside it: FILE.md for people, FILE.json for machines.",
        epilog="Example:\n  dense-imb export runs/arc arc.onnx --benchmark",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="folder of a run")
    parser.add_argument("out", type=str, metavar="FILE", help="model.onnx or model.pt2")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="largest accepted difference between PyTorch and the file",
    )
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="measure PyTorch against ONNX Runtime on this machine, at batches of 1 and of 16",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def run(options: Namespace) -> None:
    """Export as the options say."""
    if options.benchmark and not options.out.endswith(".onnx"):
        raise Refused("a file name that ends in .onnx with {benchmark}", repr(options.out))
    from dense_imb.export import export_run, throughput

    def say(text: str) -> None:
        print(f"dense-imb export: {text} ...", file=sys.stderr)

    exported = export_run(
        options.run,
        options.out,
        tolerance=options.tolerance,
        overwrite=options.overwrite,
        progress=None if options.quiet else say,
    )
    check, inputs = exported.facts["check"], exported.facts["inputs"]
    takes = ", ".join(f"{one['name']} ({', '.join(map(str, one['shape']))})" for one in inputs)
    print(f"{exported.path}: takes {takes}")
    print(
        f"differs from PyTorch by at most {check['max_difference']:.2g}, on {check['n_inputs']} "
        f"inputs ({check['on']})"
    )
    if "average_precision" in check:
        print(
            f"average precision {check['average_precision']:.4g} on {check['n_images']} whole "
            f"validation images, {check['average_precision_of_segment']:.4g} by segment"
        )
    if "mean_absolute_error" in check:
        print(
            f"mean absolute error {check['mean_absolute_error']:.4g} on {check['n_images']} whole "
            f"validation images, {check['mean_absolute_error_of_predict']:.4g} by predict"
        )
    if "window" in exported.facts:
        print(
            f"answers as dense_imb does for events of at most {exported.facts['window']} hits; "
            "longer ones need dense_imb, which cuts them into windows"
        )
    print(f"{exported.card}: its model card")
    if options.benchmark:
        for row in throughput(options.run, exported.path):
            print(row)
