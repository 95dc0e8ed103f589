"""The record of one network of one family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a registry, a table or a weight loader must know about one network.

    Attributes:
        name: The name of the network here, and of its builder.
        builder: ``builder(input_shape=(224, 224, 3), pooling="avg") -> keras.Model``. The model
            takes preprocessed float images [B, height, width, channels] and returns the pooled
            feature vector [B, width], or the map [B, h, w, width] with ``pooling=None``.
        width: Width of the feature vector.
        parameters_with_classifier: Parameters of timm's model, its classifier for 1000 classes
            included. Moving means and variances do not count.
        timm: The name of timm's model; None if timm lacks this variant.
        min_size: Smallest height and width of an input image in pixels.
        default_size: The input size of the paper or of timm's weights, in pixels.
        learning_rate: A learning rate at which Adam trains the network from random weights.
        paper: arXiv number and title.
        family: The family, as people write it: ``"ReXNet"``.
        classifier: Prefixes of timm's classifier in a state dict, which features do not need.
        heads: Linear classifiers of timm's model (a distilled DeiT has two).
        mean: Mean of each channel, for images in [0, 1], that pretrained weights expect.
        std: Standard deviation of each channel, likewise.
    """

    name: str
    builder: Callable[..., Any]
    width: int
    parameters_with_classifier: int
    timm: str | None
    min_size: int
    default_size: int
    learning_rate: float
    paper: str
    family: str
    classifier: tuple[str, ...] = ("classifier",)
    heads: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def classifier_parameters(self, num_classes: int = 1000) -> int:
        """Parameters of timm's classifier for `num_classes`: weights and biases of each head."""
        return self.heads * (self.width + 1) * num_classes


def named_builder(build: Callable[..., Any], name: str, **settings: Any) -> Callable[..., Any]:
    """A builder of one variant: `build` with its name and `settings` filled in.

    Args:
        build: Called as ``build(name, input_shape, pooling, **settings)``.
        name: The name of the variant and of its builder.
        settings: What sets this variant apart.

    Returns:
        ``builder(input_shape=(224, 224, 3), pooling="avg") -> keras.Model``.
    """

    def builder(
        input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
        pooling: str | None = "avg",
    ) -> Any:
        return build(name, input_shape, pooling, **settings)

    builder.__name__ = builder.__qualname__ = name
    builder.__doc__ = f"The network {name}, without its classifier."
    return builder


def tabulate(
    rows: Iterable[tuple[Callable[..., Any], int, int]], **shared: Any
) -> dict[str, Variant]:
    """Records by name for variants that timm knows by the same name.

    Args:
        rows: Builder, width, and parameters with the classifier, of each variant.
        shared: Fields that all variants have in common.
    """
    return {
        builder.__name__: Variant(
            name=builder.__name__,
            builder=builder,
            width=width,
            parameters_with_classifier=parameters,
            timm=builder.__name__,
            **shared,
        )
        for builder, width, parameters in rows
    }
