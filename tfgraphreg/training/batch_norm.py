"""Averages of batch normalization, which inference uses in place of those of a batch.

They begin at 0 and 1 and follow the training batches slowly. After few steps they still reflect
the start, or weights that have changed since. Measuring them anew is the "precise BatchNorm"
of Wu and Johnson (arXiv:2105.07576).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf

# From so many steps on, the running averages have seen enough batches of nearly final weights.
ENOUGH_STEPS = 1000
# More images do not change the averages by anything that counts.
_MOST_IMAGES = 4096


def _trained_layers(model: keras.Model) -> Iterator[Any]:
    """The batch normalizations that use the statistics of the batch in training."""
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            yield layer


def cap_momentum(model: keras.Model, *, steps: int) -> None:
    """Lets running averages forget the start within `steps` steps.

    With a momentum of 0.99 they need some 500 steps to tell anything of the data. The momentum is
    capped at 1 - 10/steps, which leaves longer trainings alone.
    """
    cap = max(0.5, 1 - 10 / max(steps, 1))
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, cap)


class BatchNormAverages:
    """Replaces running averages by the mean and variance over the training images.

    The images go through the network once in training mode, without a gradient; of more than
    4,096 images as many are taken at even distances. Frozen layers keep their averages.

    Args:
        model: A classifier.
        images: `[N, height, width, channels]` uint8, N >= 1, or anything that indexes like it.
        batch_size: Images in one pass, at least 1; the parts are of nearly equal size.
    """

    def __init__(self, model: keras.Model, images: Any, *, batch_size: int):
        self._model, self._images = model, images
        count = min(len(images), _MOST_IMAGES)
        self._chosen = np.linspace(0, len(images) - 1, count).astype(np.int64)
        self._parts = np.array_split(self._chosen, max(1, round(count / batch_size)))
        self._passes: dict[tuple[int, ...], Any] = {}

    def measure(self) -> None:
        """Measures once; in the scope of the strategy that the model was made in."""
        layers = list(_trained_layers(self._model))
        if not layers:
            return
        one_pass = self._pass(layers)
        momenta = [layer.momentum for layer in layers]
        sums: list[list[Any]] = [[0.0, 0.0, 0.0] for _ in layers]
        try:
            for layer in layers:
                # So a pass leaves the statistics of its own batch.
                layer.momentum = 0.0
            for part in self._parts:
                one_pass(tf.convert_to_tensor(np.asarray(self._images[part])))
                share = len(part) / len(self._chosen)
                for total, layer in zip(sums, layers):
                    mean = _numbers(layer.moving_mean)
                    total[0] += share * mean
                    total[1] += share * mean**2
                    total[2] += share * _numbers(layer.moving_variance)
        finally:
            for layer, momentum in zip(layers, momenta):
                layer.momentum = momentum
        for (mean, square, variance), layer in zip(sums, layers):
            layer.moving_mean.assign(mean)
            # The variance over all images: within the parts, and between them.
            layer.moving_variance.assign(variance + np.maximum(square - mean**2, 0.0))

    def _pass(self, layers: list[Any]) -> Any:
        """A compiled pass; which layers are frozen is part of what is compiled."""
        key = tuple(map(id, layers))
        if key not in self._passes:

            @tf.function(reduce_retracing=True)
            def one_pass(batch):
                # Every replica sees the whole batch, so that all hold the same averages.
                strategy = tf.distribute.get_strategy()
                strategy.run(lambda part: self._model(part, training=True), args=(batch,))

            self._passes[key] = one_pass
        return self._passes[key]


def _numbers(variable: tf.Variable) -> np.ndarray:
    return np.asarray(keras.backend.get_value(variable), np.float64)
