"""The 16 golden runs: the config of each kind of data, and what each run changes in it.

Configs are written as in the YAML file of a run, {data} stands for the folder of `golden.data`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_UNET = {"name": "fast_unet", "options": {"widths": [4, 8]}}
_TEACHER = {"rest": True, "threshold": 0.52, "ramp": 0.2, "decay": 0.5}

KINDS: dict[str, dict[str, Any]] = {
    "hits": {
        "data": {
            "train": "{data}/hits.h5", "validation_share": 0.25, "signal": 6, "noise": [15, 25],
            "smear_x": 0.5, "profiles": ["uniform", "blob(width=3.0, weight=0.5)"],
        },
        "model": _UNET, "batch_size": 4, "validate_every": 5,
    },
    "networks": {
        "hits": {
            "train": "{data}/hits.h5", "validation_share": 0.25, "signal": 6, "noise": [15, 25],
        },
        "model": {"name": "hits:tiny", "options": {"window": 16}}, "batch_size": 4,
        "loss": "CrossEntropyLoss", "validate_every": 5,
    },
    "images": {
        "images": {
            "train": "{data}/images", "masks": "{data}/masks", "patch": [32, 32], "patches": 2,
        },
        "model": _UNET, "loss": "CrossEntropyLoss", "batch_size": 4, "validate_every": 5,
    },
    "labels": {
        "table": {
            "train": "{data}/labels.csv", "images": "{data}/pictures",
            "classes": ["nevus", "keratosis", "melanoma"], "many": 12, "few": 6,
        },
        "model": {"name": "resnet32", "options": {"depth": 8, "width": 4}},
        "optimizer": {"learning_rate": 0.03},
        "batch_size": 8, "validate_every": 5,
    },
    "values": {
        "values": {
            "train": "{data}/spots", "targets": "{data}/heights", "patch": [32, 32], "patches": 2,
        },
        "model": _UNET, "loss": "ACBMSELoss", "batch_size": 4, "validate_every": 5,
    },
}  # fmt: skip

RUNS: dict[str, dict[str, Any]] = {
    "hits/plain": {"model": {"output": "both"}},
    "hits/mixing": {"mixing": {"kind": "mixup", "hits": "union"}},
    "hits/sampling": {"sampling": {"kind": "class"}},
    "hits/mean-teacher": {"labelled_share": 0.5, "unlabelled": _TEACHER},
    "networks/grid": {"loss": "BalancedSoftmaxLoss"},
    "networks/sensors": {
        "hits": {
            "train": "{data}/sensors.h5", "signal": None, "noise": 0, "n_classes": 3,
            "features": ["charge", "direction"], "balance_over": "particle",
        },
        "mixing": {"kind": "mixup"},
    },
    "images/plain": {"loss": "FocalLoss(gamma=1.0, balance={})"},
    "images/mixing": {"mixing": {"kind": "balanced-mixup"}},
    "images/sampling": {"sampling": {"kind": "class"}},
    "images/mean-teacher": {"labelled_share": 0.5, "unlabelled": _TEACHER},
    "labels/plain": {"loss": "BalancedSoftmaxLoss", "feature_loss": "RangeLoss"},
    "labels/mixing": {"mixing": {"kind": "unimix", "alpha": 0.5}},
    "labels/sampling": {"sampling": {"kind": "class"}},
    "labels/mean-teacher": {
        "labelled_share": 0.5, "unlabelled": {**_TEACHER, "threshold": 0.6, "sampling": "class"},
    },
    "values/plain": {},
    "values/cells": {
        "values": {"cells": "{data}/parts", "cell_kind": "bits", "cell_names": ["spot", "upper"]},
        "loss": "BalancedRegressionLoss('l1', 'masks')",
    },
}  # fmt: skip


def config_text(name: str, data: Path) -> dict[str, Any]:
    """Return the config of a run as nested dictionaries."""
    merged: dict[str, Any] = {"steps": 10, "seed": 3, **KINDS[name.split("/")[0]]}
    for section, value in RUNS[name].items():
        is_nested = isinstance(value, dict)
        merged[section] = {**merged.get(section, {}), **value} if is_nested else value
    filled: dict[str, Any] = json.loads(json.dumps(merged).replace("{data}", str(data)))
    return filled
