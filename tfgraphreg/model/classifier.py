"""From images to an embedding to logits: the network that is trained, served and measured."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf

EMBEDDING = "embedding"
LOGITS = "logits"
_FORWARDS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def build_classifier(backbone: keras.Model, *, embedding_dim: int, num_classes: int) -> keras.Model:
    """Puts an embedding layer and a classifier on a backbone.

    Args:
        backbone: Maps raw images `[B, height, width, channels]` with values 0 to 255 to
            features `[B, F]`.
        embedding_dim: D, the width of the embedding.
        num_classes: C.

    Returns:
        A model of raw images that gives a dictionary: `embedding` `[B, D]` and `logits`
        `[B, C]`, both float32 under any precision policy. As in Graph-RISE (1902.10814) the
        logits are one linear layer on the embedding, so the two share a geometry.
    """
    image = keras.Input(backbone.input_shape[1:], name="image")
    features = backbone(image)
    embedding = keras.layers.Dense(embedding_dim, dtype="float32", name=EMBEDDING)(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name=LOGITS)(embedding)
    return keras.Model(image, {EMBEDDING: embedding, LOGITS: logits}, name="classifier")


def probabilities(logits: tf.Tensor, *, multilabel: bool) -> tf.Tensor:
    """Class probabilities `[B, C]`: a softmax, or a sigmoid for each class if multi-label."""
    return tf.sigmoid(logits) if multilabel else tf.nn.softmax(logits)


def infer(
    model: keras.Model,
    images: Any,
    *,
    multilabel: bool = False,
    batch_size: int = 500,
    progress: Any = None,
) -> dict[str, np.ndarray]:
    """Embeds and classifies N images in inference mode.

    Args:
        model: Of `build_classifier`.
        images: `[N, height, width, channels]` uint8 array, or anything that a slice indexes.
        multilabel: Whether classes are independent.
        batch_size: Images in one forward pass.
        progress: Called with the number of images done after each pass.

    Returns:
        `embedding` `[N, D]` and `probabilities` `[N, C]`, float32.
    """
    forward = _forward(model, multilabel)
    parts = []
    for start in range(0, len(images), batch_size):
        batch = tf.convert_to_tensor(images[start : start + batch_size])
        parts.append([t.numpy() for t in forward(batch)])
        if progress:
            progress(min(start + batch_size, len(images)))
    if not parts:
        widths = [model.output_shape[EMBEDDING][-1], model.output_shape[LOGITS][-1]]
        parts = [[np.zeros((0, w), np.float32) for w in widths]]
    embedding, scores = (np.concatenate(p) for p in zip(*parts))
    return {EMBEDDING: embedding, "probabilities": scores}


def _forward(model: keras.Model, multilabel: bool) -> Any:
    """The compiled forward pass of a model, made once and forgotten with the model."""
    known = _FORWARDS.setdefault(model, {})
    if multilabel not in known:
        # A strong reference here would keep the model in the dictionary for good.
        of: Callable[[], Any] = weakref.ref(model)

        @tf.function(reduce_retracing=True)
        def forward(batch):
            out = of()(batch, training=False)
            return out[EMBEDDING], probabilities(out[LOGITS], multilabel=multilabel)

        known[multilabel] = forward
    return known[multilabel]


def parameters(model: keras.Model) -> int:
    """The number of values in the model's weights."""
    return int(sum(np.prod(w.shape) for w in model.weights))
