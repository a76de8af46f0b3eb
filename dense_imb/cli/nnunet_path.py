"""`dense-imb nnunet-path`: the folder in which nnU-Net finds trainers with our losses."""

from __future__ import annotations

from dense_imb.cli._parser import Namespace, Parser

SUMMARY = "print the folder of trainers for nnU-Net"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Print the folder in which nnU-Net finds trainers with losses of dense_imb:\n"
        "export nnUNet_extTrainer=$(dense-imb nnunet-path), then nnUNetv2_train ... -tr TRAINER.",
        epilog="Example:\n  dense-imb nnunet-path --list",
    )
    parser.add_argument("--list", action="store_true", help="list of the trainers, no folder")
    return parser


def run(options: Namespace) -> None:
    """Print the folder, or the trainers."""
    from dense_imb.integrations.nnunet import TRAINERS, check_nnunet, trainers_folder

    if options.list:
        width = max(map(len, TRAINERS))
        for name, summary in TRAINERS.items():
            print(f"{name:{width}}  {summary}")
        return
    check_nnunet()
    print(trainers_folder())
