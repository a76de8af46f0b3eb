"""Segmentation, autoencoders and hits under dense class imbalance.

    from dense_imb import FocalLoss, Balance, TrainConfig, HitsConfig, train, open_run, denoise

Names are imported when they are first used: importing `dense_imb` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dense_imb.config import HitsConfig as HitsConfig
    from dense_imb.config import ImagesConfig as ImagesConfig
    from dense_imb.config import LabelsConfig as LabelsConfig
    from dense_imb.config import ModelConfig as ModelConfig
    from dense_imb.config import OptimizerConfig as OptimizerConfig
    from dense_imb.config import TrainConfig as TrainConfig
    from dense_imb.config import ValuesConfig as ValuesConfig
    from dense_imb.data.images.instances import label_instances as label_instances
    from dense_imb.data.images.instances import nearest_instance as nearest_instance
    from dense_imb.hits.events import Events as Events
    from dense_imb.hits.geometry import Geometry as Geometry
    from dense_imb.hits.geometry import Sensors as Sensors
    from dense_imb.hits.reader import open_hits as open_hits
    from dense_imb.losses import *  # noqa: F403
    from dense_imb.runs.apply import denoise as denoise
    from dense_imb.runs.apply import predict as predict
    from dense_imb.runs.apply import segment as segment
    from dense_imb.runs.apply import stream as stream
    from dense_imb.runs.pretrained import pretrained as pretrained
    from dense_imb.runs.read import Run as Run
    from dense_imb.runs.read import open_run as open_run
    from dense_imb.runs.train import train as train

__version__ = "0.2.0"

# module of each name
_PLACES = {
    "dense_imb.losses": (
        "ACBMSELoss", "Balance", "BalancedMSELoss",
        "BalancedRegressionLoss", "BalancedSoftmaxLoss",
        "BiasCompensatedLoss", "ClassDependentTemperatureLoss", "ComplementCrossEntropyLoss",
        "CompoundLoss", "CrossEntropyLoss", "DiceLoss", "FocalLoss", "HardMiningLoss", "LDAMLoss",
        "OutcomeBalancedMSELoss", "PixelLoss", "RangeLoss", "RegionLoss", "TverskyLoss",
        "acb_mse_loss", "balanced_mean",
    ),
    "dense_imb.config": (
        "HitsConfig", "ImagesConfig", "LabelsConfig", "ModelConfig", "OptimizerConfig",
        "TrainConfig", "ValuesConfig",
    ),
    "dense_imb.data.images.instances": ("label_instances", "nearest_instance"),
    "dense_imb.hits.events": ("Events",),
    "dense_imb.hits.geometry": ("Geometry", "Sensors"),
    "dense_imb.hits.reader": ("open_hits",),
    "dense_imb.runs.train": ("train",),
    "dense_imb.runs.pretrained": ("pretrained",),
    "dense_imb.runs.read": ("Run", "open_run"),
    "dense_imb.runs.apply": ("denoise", "predict", "segment", "stream"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dense_imb' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
