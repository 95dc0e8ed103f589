"""From images to the class of every pixel: a head like LR-ASPP on the maps of a backbone.

Shapes: B batch, K classes with the background, D width of the embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.model.classifier import EMBEDDING, LOGITS
from tfgraphreg.model.maps import ResizeLike, head_block, merged_maps, takes_any_size

SCORES = "scores"
# Width of the head.
_WIDTH = 128
# The coarsest map has at least so many positions a side, so that a mask can follow an outline.
COARSEST = 6
# No map below this stride takes part: it costs more than it says of classes.
_FINEST_STRIDE = 4


def build_segmenter(pyramid: keras.Model, *, embedding_dim: int, num_classes: int) -> keras.Model:
    """Puts a segmentation head on the maps of a backbone.

    The head follows LR-ASPP (Howard et al. 2019, arXiv:1905.02244, section 6.4): a map is gated,
    channel by channel, by the mean of the coarsest map over the image, then enlarged and
    classified together with finer maps. Three things differ, since the images here are smaller
    than the paper's, and what fills a hundredth of one must be told apart. The gated map has the
    resolution of the second coarsest: the three coarsest are brought to it and added
    (`merged_maps`), and a 3x3 convolution follows. All maps from stride 4 on take part. And the
    mean passes through D values on its way to the gate: these are the embedding of the image,
    which a graph compares.

    Args:
        pyramid: Of `tfgraphreg.backbones.pyramid.build_pyramid`, with `COARSEST` positions.
        embedding_dim: D.
        num_classes: K.

    Returns:
        A model of raw images that gives a dictionary, float32 under any precision policy:
        `embedding` `[B, D]`; `logits` `[B, H, W, K]` at the size of the images; and `scores`
        `[B, h, w, K]`, the same before they are enlarged. It takes images of other sizes too,
        where the backbone does.
    """
    layers = keras.layers
    image = keras.Input(pyramid.input_shape[1:], name="image")
    maps = _used(pyramid(image), image.shape[1])
    finer = maps[-3] if len(maps) > 2 else None
    x = merged_maps(maps[-2], finer=finer, coarser=maps[-1], width=_WIDTH)
    x = head_block(x, _WIDTH, "head_conv")
    mean = layers.GlobalAveragePooling2D(name="head_mean")(maps[-1])
    embedding = layers.Dense(embedding_dim, dtype="float32", name=EMBEDDING)(mean)
    gate = layers.Dense(_WIDTH, activation="sigmoid", name="head_gate")(embedding)
    x = layers.Multiply(name="head_gated")([x, layers.Reshape((1, 1, _WIDTH))(gate)])
    scores = _classes(num_classes, "coarse", bias=True)(x)
    for number, found in enumerate(reversed(maps[:-2]), start=1):
        scores = ResizeLike(name=f"head_resize_{number}")([scores, found])
        own = _classes(num_classes, f"fine_{number}", bias=False)(found)
        scores = layers.Add(name=f"head_add_{number}")([scores, own])
    scores = layers.Activation("linear", dtype="float32", name=SCORES)(scores)
    logits = ResizeLike(dtype="float32", name=LOGITS)([scores, image])
    outputs = {EMBEDDING: embedding, SCORES: scores, LOGITS: logits}
    model = keras.Model(image, outputs, name="segmenter")
    takes_any_size(model)
    return model


def masks_of(
    model: keras.Model, images: Any, *, batch_size: int = 100, progress: Any = None
) -> np.ndarray:
    """`[N, H, W]` uint8: the class of every pixel, 0 for the background.

    Args:
        model: Of `build_segmenter`.
        images: `[N, H, W, C]` uint8, or anything that a slice indexes.
        batch_size: Images in one forward pass.
        progress: Called with the number of images done after each pass.
    """
    masks = np.empty(images.shape[:3], np.uint8)
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        logits = model(tf.convert_to_tensor(part), training=False)[LOGITS]
        masks[start : start + len(part)] = tf.argmax(logits, -1).numpy()
        if progress:
            progress(start + len(part))
    return masks


def _used(maps: list[Any], height: int) -> list[Any]:
    """The maps from stride 4 on; of images so small that these are fewer than two, the last two."""
    used = [found for found in maps if found.shape[1] * _FINEST_STRIDE < height + _FINEST_STRIDE]
    return used if len(used) > 1 else maps[-2:]


def _classes(count: int, name: str, *, bias: bool) -> Any:
    return keras.layers.Conv2D(count, 1, use_bias=bias, name=f"classes_{name}")
