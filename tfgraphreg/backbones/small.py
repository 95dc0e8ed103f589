"""Two small networks of this package: dense layers, and a convolutional net for small images."""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.records import Backbone


def build_fcnn(
    *,
    input_shape: tuple[int, int, int],
    weights: str | None = None,
    units: tuple[int, ...] = (512, 256),
    activation: str = "relu",
    dropout: float = 0.0,
) -> Any:
    """Builds dense layers on the flattened pixels.

    Args:
        input_shape: (H, W, C) of the preprocessed images.
        weights: There are none to load.
        units: Width of each layer; the last is the number of features.
        activation: Name of the activation after each layer.
        dropout: Share of features dropped after each layer in training, 0 to below 1.

    Returns:
        A model from images [B, H, W, C] to features [B, units[-1]].
    """
    from tfgraphreg.compat import keras

    image = keras.Input(input_shape)
    x = keras.layers.Flatten()(image)
    for number, width in enumerate(units, start=1):
        x = keras.layers.Dense(width, activation=activation, name=f"dense_{number}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout_{number}")(x)
    return keras.Model(image, x, name="fcnn")


def build_cnn(
    *,
    input_shape: tuple[int, int, int],
    weights: str | None = None,
    filters: tuple[int, ...] = (32, 64, 128),
    convolutions: int | tuple[int, ...] = 1,
    dropout: float = 0.0,
    stem_stride: int = 1,
) -> Any:
    """Builds stages of 3x3 convolutions, each with batch normalization, with pooling between.

    Args:
        input_shape: (H, W, C) of the preprocessed images.
        weights: There are none to load.
        filters: Width of each stage; the last is the number of features.
        convolutions: In each stage, or one number for each. Two cost four times the time of one.
        dropout: Share of features dropped after each pooling in training, 0 to below 1.
        stem_stride: Stride of the first convolution.

    Returns:
        A model from images [B, H, W, C] to a feature map [B, h, w, filters[-1]].
    """
    from tfgraphreg.compat import keras

    layers = keras.layers
    each = (convolutions,) * len(filters) if isinstance(convolutions, int) else convolutions
    image = keras.Input(input_shape)
    x = image
    for stage, width in enumerate(filters, start=1):
        if stage > 1:
            # "same" keeps a last row, so that any size down to one pixel works.
            x = layers.MaxPooling2D(padding="same", name=f"pool_{stage}")(x)
            if dropout:
                x = layers.SpatialDropout2D(dropout, name=f"dropout_{stage}")(x)
        for number in range(1, each[stage - 1] + 1):
            name = f"conv_{stage}_{number}"
            # Batch normalization brings its own bias.
            strides = stem_stride if (stage, number) == (1, 1) else 1
            x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False, name=name)(x)
            x = layers.BatchNormalization(name=f"{name}_bn")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(image, x, name="cnn")


def build_cnn5(*, input_shape: tuple[int, int, int], weights: str | None = None) -> Any:
    """Builds `build_cnn` with one convolution in the first stage and two in the others.

    Args:
        input_shape: (H, W, C) of the preprocessed images.
        weights: There are none to load.
    """
    return build_cnn(input_shape=input_shape, weights=weights, convolutions=(1, 2, 2))


def build_cnn_pyramid(*, input_shape: tuple[int, int, int], weights: str | None = None) -> Any:
    """Builds `build_cnn` with maps at strides 2, 4, 8 and 16, for boxes and masks.

    Args:
        input_shape: (H, W, C) of the preprocessed images.
        weights: There are none to load.
    """
    return build_cnn(
        input_shape=input_shape,
        weights=weights,
        # Where items are told apart: two convolutions at stride 2 bring more than a wide last map.
        filters=(32, 64, 128, 192),
        convolutions=(2, 2, 2, 1),
        stem_stride=2,
    )


_SHARED: dict[str, Any] = {
    "library": "tfgraphreg",
    "preprocessing": "zero_to_one",
    "default_size": 28,
    "min_size": 8,
    "channels": None,
}

RECORDS: tuple[Backbone, ...] = (
    Backbone(
        name="fcnn",
        family="fcnn",
        builder="tfgraphreg.backbones.small:build_fcnn",
        width=256,
        parameters=533_248,
        paper="Rosenblatt 1958, doi:10.1037/h0042519",
        **_SHARED,
    ),
    Backbone(
        name="cnn",
        family="cnn",
        builder="tfgraphreg.backbones.small:build_cnn",
        width=128,
        parameters=92_896,
        learning_rate=3e-3,
        paper="LeCun et al. 1998, doi:10.1109/5.726791",
        **_SHARED,
    ),
    Backbone(
        name="cnn5",
        family="cnn",
        builder="tfgraphreg.backbones.small:build_cnn5",
        width=128,
        parameters=277_600,
        learning_rate=3e-3,
        paper="LeCun et al. 1998, doi:10.1109/5.726791",
        **_SHARED,
    ),
    Backbone(
        name="cnn_pyramid",
        family="cnn",
        builder="tfgraphreg.backbones.small:build_cnn_pyramid",
        width=192,
        parameters=510_304,
        learning_rate=3e-3,
        paper="LeCun et al. 1998, doi:10.1109/5.726791",
        **{**_SHARED, "default_size": 96, "min_size": 32},
    ),
)
