"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfgraphreg.compat import keras, tf


def leave_losses_unread(callback: keras.callbacks.Callback) -> None:
    """Lets Keras pass the losses of a step as tensors: to read them would wait for every step.

    All callbacks that are told of steps must ask for it, each after its `super().__init__()`.
    """
    callback._supports_tf_logs = True


class WeightAverage(keras.callbacks.Callback):
    """Keeps a moving average of a network's trainable weights, beside the weights themselves.

    Each step moves the average by 1 - momentum towards the weights; in the first steps by more,
    9 / (10 + step), so that the random start is forgotten.

    Args:
        network: Whose weights are averaged, those that are trainable now.
        optimizer: Counts the steps.
        momentum: In (0, 1).
    """

    def __init__(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, momentum: float
    ):
        super().__init__()
        leave_losses_unread(self)
        self._weights = list(network.trainable_weights)
        self._optimizer, self._momentum = optimizer, momentum
        self.averages = [
            tf.Variable(w, trainable=False, name=f"average_{i}")
            for i, w in enumerate(self._weights)
        ]
        # Traced now, so that the first step does not take a second and Keras warns of it.
        self._step = tf.function(self._move).get_concrete_function()

    def on_train_batch_end(self, batch, logs=None):
        """Moves the average."""
        self._step()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Gives the network the average for as long as the context lasts."""
        kept = [tf.identity(w) for w in self._weights]
        for weight, average in zip(self._weights, self.averages):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self._weights, kept):
                weight.assign(value)

    def _move(self) -> None:
        steps = tf.cast(self._optimizer.iterations, tf.float32)
        momentum = tf.minimum(self._momentum, (1 + steps) / (10 + steps))
        for weight, average in zip(self._weights, self.averages):
            average.assign(momentum * average + (1 - momentum) * tf.cast(weight, average.dtype))


@contextlib.contextmanager
def evaluated_weights(average: WeightAverage | None) -> Iterator[None]:
    """Gives the network the weights by which it is evaluated: the average, if there is one."""
    with average.in_use() if average else contextlib.nullcontext():
        yield
