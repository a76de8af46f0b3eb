"""Networks: an autoencoder, a fast U-Net, and those of other libraries by name."""

from dense_imb.models.autoencoder import Autoencoder
from dense_imb.models.factory import MODELS, build_model
from dense_imb.models.fast_unet import FastUNet

__all__ = ["MODELS", "Autoencoder", "FastUNet", "build_model"]
