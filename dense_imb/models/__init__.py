"""Networks of hits, frames and images by name: ours, and those of other libraries.

Example:
    >>> from dense_imb.models import CLASSIFIERS, MODELS
    >>> MODELS
    ('autoencoder', 'fast_unet', 'smp:ARCHITECTURE/ENCODER', 'monai:NETWORK')
    >>> CLASSIFIERS
    ('resnet32', 'timm:NAME')
"""

from dense_imb.models.autoencoder import Autoencoder
from dense_imb.models.classifiers import CLASSIFIERS, build_classifier_network
from dense_imb.models.factory import MODELS, build_hit_network, build_model, hit_network_sizes
from dense_imb.models.fast_unet import FastUNet
from dense_imb.models.heads import head_of, padded_frame
from dense_imb.models.hit_transformer import HitInput, HitTransformer

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "Autoencoder",
    "FastUNet",
    "HitInput",
    "HitTransformer",
    "build_classifier_network",
    "build_hit_network",
    "build_model",
    "head_of",
    "hit_network_sizes",
    "padded_frame",
]
