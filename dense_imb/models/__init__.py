"""Networks by name: our autoencoder, U-Net and classifiers, and networks of other libraries."""

from dense_imb.models.autoencoder import Autoencoder
from dense_imb.models.classifiers import CLASSIFIERS, build_classifier_network
from dense_imb.models.factory import MODELS, build_model
from dense_imb.models.fast_unet import FastUNet
from dense_imb.models.heads import head_of, padded_frame

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "Autoencoder",
    "FastUNet",
    "build_classifier_network",
    "build_model",
    "head_of",
    "padded_frame",
]
