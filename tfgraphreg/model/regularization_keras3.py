"""The graph term for a model of Keras 3, with TensorFlow as its backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfgraphreg.compat import tf
from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.regularizer import Wrapper
from tfgraphreg.model.saving import wrapper_arguments, wrapper_config
from tfgraphreg.neighbors.modes import NeighborMode

_PARTS = ("supervised_loss", "graph_loss")


class GraphRegularization3(Wrapper, keras.Model):
    """Trains a Keras 3 model with `its loss + alpha * mean over edges of w_uv * d(h_u, h_v)`.

    What `tfgraphreg.GraphRegularization` gives for a model of Keras 3; see there for the loss, the
    arguments and what Keras' methods do. On one replica only.
    """

    _library = keras

    def __init__(
        self,
        base_model: keras.Model,
        alpha: float = 0.1,
        distance: str | Distance | Callable = "cosine",
        embedding: str | Callable | None = None,
        mode: NeighborMode | None = None,
        *,
        augmenter: Any = None,
        contrast: float | None = None,
    ):
        if keras.backend.backend() != "tensorflow":
            raise ConfigError(
                "A graph term for Keras 3 needs its TensorFlow backend.",
                received=f"the backend {keras.backend.backend()}",
                cure="Set the environment variable KERAS_BACKEND=tensorflow.",
            )
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ConfigError(
                "A Keras 3 model trains with a graph term on one replica only.",
                received=f"{tf.distribute.get_strategy().num_replicas_in_sync} replicas",
                cure="Leave the strategy's scope, or use a tf.keras model.",
            )
        # The weights of edges stay float32 under any precision policy.
        super().__init__(name="graph_regularization", autocast=False)
        self.base_model = base_model
        self._regularized(
            base_model,
            embedding,
            alpha=alpha,
            distance=distance,
            mode=mode,
            augmenter=augmenter,
            contrast=contrast,
        )
        self._supervised, self._graph = (keras.metrics.Mean(name=name) for name in _PARTS)
        self.built = base_model.built

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Configures training as `keras.Model.compile` does, and the base model alike."""
        super().compile(optimizer, loss, *args, **kwargs)
        self.base_model.compile(self.optimizer, loss, *args, **kwargs)

    def call(self, inputs, training=False):
        """The base model's outputs; in training the graph term is added as a loss."""
        with self._refusals.noted():
            if not training:
                return self._regularizer.infer(inputs)
            outputs, share = self._regularizer.train(inputs, fold=not self.jit_compile)
        rows = tf.shape(tf.nest.flatten(inputs)[0])[0]
        self._graph.update_state(0.0 if share is None else share, sample_weight=rows)
        if share is not None:
            self.add_loss(self.alpha * share)
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The whole loss, see `keras.Model.compute_loss`."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training:
            others = [tf.cast(penalty, loss.dtype) for penalty in self.losses]
            supervised = loss - (tf.add_n(others) if others else 0.0)
            rows = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
            self._supervised.update_state(supervised, sample_weight=rows)
        return loss

    def test_step(self, data):
        """Loss and metrics of a batch in inference mode, without the graph term."""
        logs = super().test_step(data)
        return {name: value for name, value in logs.items() if name not in _PARTS}

    def save(self, *args, **kwargs):
        """Saves the base model, which needs neither neighbors nor this package."""
        self.base_model.save(*args, **kwargs)

    def get_config(self):
        """What `from_config` needs: the base model's config and the arguments.

        Raises:
            ConfigError: If the distance is not registered by its name.
        """
        return wrapper_config(self._regularizer, keras)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The wrapper of a config, with new weights."""
        return cls(**wrapper_arguments(config, keras, custom_objects))
