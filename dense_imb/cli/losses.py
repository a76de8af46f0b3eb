"""`dense-imb losses`: the list of losses, or one of them explained."""

from __future__ import annotations

import inspect
import json
import re
from typing import Literal

from dense_imb.cli._parser import Namespace, Parser

SUMMARY = "list every loss with its formula"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="List the losses with their formulas, or explain one of them.",
        epilog="Example:\n  dense-imb losses acb_mse_loss",
    )
    parser.add_argument(
        "name",
        type=str | None,
        nargs="?",
        metavar="NAME",
        help="public name of dense_imb.losses to explain",
    )
    parser.add_argument(
        "--format", type=Literal["text", "json"], default="text", help="format of the list"
    )
    return parser


def run(options: Namespace) -> None:
    """List the losses as the options say."""
    from dense_imb import losses
    from dense_imb.base.checks import check_choice
    from dense_imb.losses.foreign.catalogue import CATALOGUE
    from dense_imb.losses.foreign.short_names import SHORT_NAMES

    if options.name is not None:
        check_choice("name", options.name, losses.__all__)
        explained = getattr(losses, options.name)
        # annotations are quoted, being strings; the defaults keep their quotes
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(explained)))
        print(f"{options.name}{signature}\n\n{inspect.getdoc(explained)}")
    elif options.format == "json":
        print(json.dumps([entry._asdict() for entry in CATALOGUE], indent=1))
    else:
        width = max(len(entry.name) for entry in CATALOGUE)
        for entry in CATALOGUE:
            print(f"{entry.name:{width}}  {entry.formula}  [{entry.source}]")
        print("\nShort names, accepted wherever a loss is typed:")
        width = max(len(name) for name in SHORT_NAMES)
        for name, text in SHORT_NAMES.items():
            print(f"{name:{width}}  {text}")
