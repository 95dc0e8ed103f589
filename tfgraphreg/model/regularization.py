"""The graph term for any Keras model: a subclass of NSL's wrapper, and the way to Keras 3."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Any

import attr

from tfgraphreg.compat import keras, nsl, tf
from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.model.graph_term import global_sum
from tfgraphreg.model.regularizer import Wrapper
from tfgraphreg.model.saving import wrapper_arguments, wrapper_config
from tfgraphreg.neighbors import modes
from tfgraphreg.neighbors.modes import NeighborMode, own_inputs

_ALPHA = 0.1
_TRACKED = ("supervised_loss", "graph_loss")


class GraphRegularization(Wrapper, nsl.keras.GraphRegularization):
    """Trains a Keras model with `its loss + alpha * mean over edges of w_uv * d(h_u, h_v)`.

    The edges are those of the batch: see `with_neighbors`. The mean is over edges of weight above
    zero, as in NSL. A batch without neighbors is an error if alpha > 0. All else is Keras':
    `compile`, `fit`, `evaluate`, `predict`, callbacks and metrics do what they do for the base
    model; with alpha = 0 training is that of the base model, bit for bit. `fit` reports
    `graph_loss` (the mean, before alpha) and `supervised_loss` besides. `save` saves the base
    model, which needs neither neighbors nor this package.

    A batch and its neighbors go through the model in *one* pass: batch normalization sees them as
    one batch and moves its averages once a step (NSL: twice). If the batch carries indices
    (`Gathered`), duplicates are computed once, except for up to 15 rows that pad the pass to a
    multiple of 16. With `jit_compile` all rows are computed: XLA needs fixed shapes.

    Over several replicas the loss is the mean over the *global* batch and its edges, even if the
    replicas have unequal shares of it, so training equals training on one replica.

    With NSL's `GraphRegConfig` in place of alpha the computation is NSL's own: the output is
    compared, in two passes.

    A model of Keras 3 gives a wrapper of Keras 3 with the same arguments.

    Args:
        base_model: Functional, sequential or subclassed; gives a tensor or a dictionary.
        alpha: Weight of the graph term, finite and >= 0; or a `nsl.configs.GraphRegConfig`.
        distance: The name of a registered distance, a `Distance`, or a function of two `[E, D]`
            tensors that gives `[E]`. For a distance between distributions the softmax of the rows
            is compared. `mahalanobis` uses a running covariance of what is compared, updated once
            a step.
        embedding: What is compared: the name of an output or layer, a function of the model's
            outputs, or None: the output (of a dictionary: `embedding`).
        mode: `Packed(k)`, `Gathered(k)`, `Paired()` or `Bank(k, size)`; None: found from the keys
            of each batch.
        graph_reg_config: A `GraphRegConfig`, by NSL's name.
        augmenter: Layer that changes the inputs at random in training. Each row gets a draw of
            its own; what goes through the model once is changed once.
        contrast: Temperature above 0 of a term that also pushes apart, see `ContrastTerm`; it
            compares by cosine and needs batches of `Paired(known=True)`. None: the graph term is
            the mean of weight times distance.

    Raises:
        ConfigError: If an argument cannot work with this model.
    """

    _library = keras

    def __new__(cls, base_model: Any = None, *args: Any, **kwargs: Any) -> Any:
        """A wrapper of the Keras that the model belongs to."""
        if _is_keras_3(base_model):
            from tfgraphreg.model.regularization_keras3 import GraphRegularization3

            return GraphRegularization3(base_model, *args, **kwargs)
        return super().__new__(cls, base_model, *args, **kwargs)

    def __init__(
        self,
        base_model: keras.Model,
        alpha: Any = _ALPHA,
        distance: str | Distance | Callable = "cosine",
        embedding: str | Callable | None = None,
        mode: NeighborMode | None = None,
        *,
        graph_reg_config: Any = None,
        augmenter: Any = None,
        contrast: float | None = None,
    ):
        if not isinstance(base_model, keras.Model):
            raise ConfigError(
                "`base_model` must be a keras.Model, of tf.keras or Keras 3.",
                received=type(base_model).__name__,
            )
        if isinstance(alpha, nsl.configs.GraphRegConfig) and graph_reg_config is None:
            graph_reg_config, alpha = alpha, alpha.multiplier
        elif graph_reg_config is not None:
            if alpha not in (_ALPHA, graph_reg_config.multiplier):
                raise ConfigError(
                    "With a GraphRegConfig alpha is its multiplier.",
                    received=f"alpha={alpha!r}, multiplier={graph_reg_config.multiplier}",
                    cure="Use make_graph_reg_config(multiplier=...).",
                )
            alpha = graph_reg_config.multiplier
        self_config = graph_reg_config
        if self_config is None:
            self_config = nsl.configs.make_graph_reg_config(multiplier=alpha)
        else:
            _check_nsl(self_config, distance, embedding, mode, augmenter, contrast)
        super().__init__(base_model, self_config)
        self._autocast = False  # The weights of edges stay float32 under any precision policy.
        self.as_nsl = graph_reg_config is not None
        self._regularized(
            base_model,
            embedding,
            alpha=alpha,
            distance=distance,
            mode=mode,
            augmenter=augmenter,
            contrast=contrast,
        )
        self._adopt()
        # Held in a function, or Keras would count them among the model's weights.
        parts = [] if self.as_nsl else [keras.metrics.Mean(name=name) for name in _TRACKED]
        self._parts = lambda: parts
        self.built = base_model.built

    def __repr__(self) -> str:
        """The arguments, as they would be written."""
        if vars(self).get("as_nsl"):
            return f"GraphRegularization({self.base_model.name}, {self.graph_reg_config})"
        return super().__repr__()

    @property
    def bank(self) -> Any:
        """The table of embeddings of a `Bank`, or None."""
        return self._regularizer.memory

    @property
    def running(self) -> Any:
        """The state of a distance that learns, or None."""
        return self._regularizer.term.running

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Keras' metrics, and the two parts of the loss."""
        return [*super().metrics, *self._parts()]

    def _adopt(self) -> None:
        """Makes the variables of the bank and the distance the model's own, to be saved."""
        if self.bank is not None:
            self._bank = self.bank
        if self.running is not None:
            self._running = [self.running.mean, self.running.covariance]

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Configures training as `keras.Model.compile` does, and the base model alike."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            _check_reductions(loss)
        keras.Model.compile(self, optimizer, loss, *args, **kwargs)
        self.base_model.compile(self.optimizer, loss, *args, **kwargs)

    def call(self, inputs, training=False, **kwargs):
        """The base model's outputs; in training the graph term is added as a loss."""
        with self._refusals.noted():
            if not training:
                return self._infer(inputs)
            if self.as_nsl:
                if self.alpha > 0:
                    _check_nsl_batch(inputs, self._nsl_mode())
                return super().call(inputs, training=training, **kwargs)
            outputs, share = self._regularizer.train(inputs, fold=not self.jit_compile)
        self._adopt()
        if share is not None:
            weight = self._replica_weight(inputs)
            if weight is not None:
                share = tf.math.divide_no_nan(share, weight)
            self.add_loss(self.alpha * share)
        self._graph_share = tf.constant(0.0) if share is None else share
        return outputs

    def _infer(self, inputs: Any) -> Any:
        if self.as_nsl:
            return self.base_model(own_inputs(inputs, self._nsl_mode()), training=False)
        return self._regularizer.infer(inputs)

    def _nsl_mode(self) -> NeighborMode:
        return modes.Packed(max(self.graph_reg_config.neighbor_config.max_neighbors, 1))

    def _replica_weight(self, inputs: Any) -> tf.Tensor | None:
        """The share of the global batch's rows on this replica; None on a single replica."""
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return None
        rows = tf.cast(tf.shape(tf.nest.flatten(inputs)[0])[0], tf.float32)
        return tf.math.divide_no_nan(rows, global_sum(rows))

    def train_step(self, data):
        """One step of gradient descent, see `keras.Model.train_step`."""
        if self.as_nsl:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        weight = self._replica_weight(x)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            graph = self._graph_share  # Read before `minimize`, where replicas start to take turns.
            loss = self.compute_loss(x, y, y_pred, sample_weight)
            self._validate_target_and_loss(y, loss)
            # Keras divides by the number of replicas, as if their shares of a batch were equal.
            minimized = loss if weight is None else loss * weight * replicas
        others = [tf.cast(penalty, loss.dtype) for penalty in self.losses]
        supervised = loss * replicas - (tf.add_n(others) if others else 0.0)
        self.optimizer.minimize(minimized, self.trainable_variables, tape=tape)
        rows = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
        labeled = rows * _any_weight(sample_weight)
        for metric, value, weight in zip(self._parts(), (supervised, graph), (labeled, rows)):
            metric.update_state(value, sample_weight=weight)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data):
        """Loss and metrics of a batch in inference mode, without the graph term."""
        logs = super().test_step(data)
        return {name: v for name, v in logs.items() if name not in (*_TRACKED, "scaled_graph_loss")}

    def get_config(self):
        """What `from_config` needs: the base model's config and the arguments.

        Raises:
            ConfigError: If the distance is not registered by its name.
        """
        if not self.as_nsl:
            return wrapper_config(self._regularizer, keras)
        return {
            "base_model": keras.saving.serialize_keras_object(self.base_model),
            "graph_reg_config": attr.asdict(self.graph_reg_config, value_serializer=_plain),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The wrapper of a config, with new weights."""
        if "graph_reg_config" in config:
            base_model = keras.saving.deserialize_keras_object(
                config["base_model"], custom_objects=custom_objects
            )
            return cls(base_model, _nsl_config(config["graph_reg_config"]))
        return cls(**wrapper_arguments(config, keras, custom_objects))


def _any_weight(sample_weight: Any) -> Any:
    """0.0 if no row of the global batch counts, which then has no supervised loss; else 1.0."""
    if sample_weight is None:
        return 1.0
    sizes = [tf.reduce_sum(tf.abs(w)) for w in tf.nest.flatten(sample_weight)]
    return tf.cast(global_sum(tf.add_n(sizes)) > 0, tf.float32)


def _is_keras_3(model: Any) -> bool:
    loaded: Any = sys.modules.get("keras")
    version = str(getattr(loaded, "__version__", ""))
    return version.startswith("3") and isinstance(model, loaded.Model)


def _check_nsl(config: Any, distance: Any, *others: Any) -> None:
    """Refuses what NSL's computation would not use, and a graph term without neighbors."""
    if distance != "cosine" or any(other is not None for other in others):
        raise ConfigError(
            "With a GraphRegConfig the computation is NSL's, which takes no further arguments.",
            cure="Pass alpha, distance, embedding and mode instead of the GraphRegConfig.",
        )
    if config.multiplier > 0 and config.neighbor_config.max_neighbors < 1:
        raise ConfigError(
            "A GraphRegConfig without neighbors would train without a graph.",
            received=f"max_neighbors={config.neighbor_config.max_neighbors}, "
            f"multiplier={config.multiplier}",
            cure="Use make_graph_reg_config(max_neighbors=1), or multiplier=0.",
        )


def _check_nsl_batch(inputs: Any, mode: NeighborMode) -> None:
    if not isinstance(inputs, dict):
        raise DataError(
            "A batch for NSL's computation must be a dictionary of features.",
            received=type(inputs).__name__,
            cure="Pack neighbors with pack_neighbors or nsl.tools.pack_nbrs.",
        )
    missing = mode.missing(inputs)
    if missing:
        raise DataError(
            "A batch lacks neighbors.",
            received=f"the keys {', '.join(sorted(inputs))}, without {', '.join(missing)}",
            cure="Parse these features too, or lower max_neighbors.",
        )


def _check_reductions(loss: Any) -> None:
    for one in tf.nest.flatten(loss):
        if str(getattr(one, "reduction", "")) in ("sum", "none"):
            raise ConfigError(
                "Over several replicas a loss must be a mean over the batch.",
                received=f"reduction={one.reduction}",
                cure="Leave `reduction` at its default.",
            )


def _plain(_: Any, __: Any, value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _nsl_config(plain: dict[str, Any]) -> Any:
    configs = nsl.configs
    return configs.GraphRegConfig(
        neighbor_config=configs.GraphNeighborConfig(**plain["neighbor_config"]),
        multiplier=plain["multiplier"],
        distance_config=configs.DistanceConfig(**plain["distance_config"]),
    )
