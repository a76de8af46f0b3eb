"""How do radiotherapy plans become images of values? Writes CT, structures and dose to one file.

    python data_tools/dose.py openkbp64/train.h5 dose_train.h5
    python data_tools/dose.py openkbp64/validation.h5 dose_validation.h5

The source has a group for each patient with the data sets `ct`, `dose` and `structures` (a bit
field), and the structures' names in its attribute `structures`. Data sets of the result: `image`
(N, 1 + structures, D, H, W), the CT divided by --ct-scale and a channel of 0 and 1 for each
structure; `target` (N, 1, D, H, W), the dose in Gy; `cells` (N, D, H, W), the bit field; and
`voxel_mm` and `name` of each patient. The attribute `names` names channels and bits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser

if TYPE_CHECKING:
    from dense_imb.data.values.write import Sample

_NEEDED = ("ct", "dose", "structures")


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("source", type=str, help="HDF5 file with a group for each patient")
    parser.add_argument("target", type=str, help="HDF5 file to write")
    parser.add_argument(
        "--ct-scale", type=float, default=512.0, help="CT value that becomes 1 in the image"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.base.files import refuse_inputs
    from dense_imb.base.hdf5 import list_datasets, open_file
    from dense_imb.base.refusals import Refused
    from dense_imb.data.values.write import write_values

    if not options.ct_scale > 0:
        raise Refused("{ct_scale} above 0", options.ct_scale)
    source = Path(options.source)
    refuse_inputs([options.target], [source])
    with open_file(source) as file:
        datasets = list_datasets(file, source)
        structures = _structures(file, source)
        patients = sorted({place.split("/")[0] for place in datasets if "/" in place})
        names = {
            "image": ["ct", *structures],
            "target": ["dose"],
            "cells": structures,
        }
        samples = _samples(file, patients, len(structures), options.ct_scale)
        n = write_values(options.target, samples, names=names, overwrite=options.overwrite)
    print(f"{options.target}: {n} patients with {', '.join(structures)}")


def _structures(file: Any, source: Path) -> list[str]:
    listed = file.attrs.get("structures")
    names = [] if listed is None else [str(name) for name in listed]
    if not 1 <= len(names) <= 16:
        raise ValueError(
            f"Expected the names of 1 to 16 structures in attribute `structures` of {source}, got "
            f"{len(names)}."
        )
    return names


def _samples(
    file: Any, patients: Sequence[str], n_structures: int, ct_scale: float
) -> Iterator[Sample]:
    import numpy as np

    length = max((len(name.encode()) for name in patients), default=1)
    for name in patients:
        patient = file[name]
        missing = [key for key in _NEEDED if key not in patient]
        if missing or "voxel_mm" not in patient.attrs:
            raise ValueError(
                f"Expected {', '.join(_NEEDED)} and the attribute voxel_mm of patient {name}, got "
                f"no {', '.join(missing) or 'voxel_mm'}."
            )
        ct, dose, field = (patient[key][...] for key in _NEEDED)
        if not ct.shape == dose.shape == field.shape:
            raise ValueError(
                f"Expected CT, dose and structures of patient {name} of one shape, got "
                f"{ct.shape}, {dose.shape} and {field.shape}."
            )
        n_undeclared = int((field.astype(np.int64) >> n_structures != 0).sum())
        if n_undeclared:
            raise ValueError(
                f"Expected bits 0 to {n_structures - 1} in the structures of patient {name}, got "
                f"higher bits in {n_undeclared} voxels; name them in the attribute `structures`."
            )
        masks = [field >> k & 1 for k in range(n_structures)]
        yield {
            "image": np.stack([ct / ct_scale, *masks]).astype(np.float16),
            "target": dose[None].astype(np.float32),
            "cells": field.astype(np.uint16),
            "voxel_mm": np.asarray(patient.attrs["voxel_mm"], np.float64),
            "name": np.array(name.encode(), f"S{length}"),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("dose.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
