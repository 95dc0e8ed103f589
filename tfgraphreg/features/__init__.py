"""What a graph compares: descriptors of images as rows of numbers."""

from tfgraphreg.features import color, patches, pixels, sequence, shape, texture
from tfgraphreg.features.registry import FEATURES, Feature, extract_features

__all__ = [
    "FEATURES",
    "Feature",
    "color",
    "extract_features",
    "patches",
    "pixels",
    "sequence",
    "shape",
    "texture",
]
