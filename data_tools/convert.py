"""How do my data become a hits file, and hits become tables or frames again?

The command `dense-imb convert` by another name:
    convert.py frames.npy hits.h5 [--labels labels.npy]      (N, H, W) or (N, 1, H, W), 0 = empty
    convert.py frames.npz hits.h5 [--key frames --labels labels]       .pt and .h5 likewise
    convert.py images/ hits.h5 [--masks masks/ --pattern "real_*"]     PNG or TIFF, grey
    convert.py list.csv hits.h5 --width 88 --height 128 [--columns x=col,t=toa,event=frame]
    convert.py xyc/ hits.h5 --format timepix                 ASCII xyC, a file a frame
    convert.py flat.h5 hits.h5 --width 45 --height 40 --time-offset 1
        --columns x=photon/col,y=photon/row,t=photon/t,offset=event/offset
    convert.py tree.root hits.h5 --width 88 --height 128 [--tree events --keep run]
Back to tables or frames, by the suffix of the target:
    convert.py hits.h5 hits.csv | .root | .parquet
    convert.py hits.h5 frames.npy | .npz | .h5 | folder [--labels labels.npy | folder]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dense_imb.cli import convert
from dense_imb.cli._parser import Parser
from dense_imb.cli._script import run_script


def make_parser() -> Parser:
    parser = convert.make_parser()
    parser.description = __doc__
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("convert.py", make_parser(), convert.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
