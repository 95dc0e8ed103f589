"""Ways to train one network: this project's, NSL's and plain Keras.

Each trainer walks through its epochs in turns of a few steps, with the step function that
`fit` itself calls, so that all are measured alike and without callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from tfgraphreg.compat import keras, nsl, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.model.classifier import LOGITS
from tfgraphreg.recipes.batches import batch_source
from tfgraphreg.recipes.defaults import settled_precision
from tfgraphreg.recipes.network import build_model
from tfgraphreg.training.optimizer import make_optimizer

EPOCHS = 1000  # The datasets go on for longer than any measurement.


class Trainer:
    """A compiled Keras model that goes on through its batches.

    Args:
        model: Compiled.
        batches: Endless for the purpose of a measurement.
    """

    def __init__(self, model: Any, batches: Any):
        strategy = model.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            batches = strategy.experimental_distribute_dataset(batches)
        self.model = model
        self._batches: Iterator[Any] = iter(batches)
        self._step = model.make_train_function()

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        start = time.perf_counter()
        logs: Any = {}
        for _ in range(steps):
            logs = self._step(self._batches)
        float(logs["loss"])  # Waits for the last step.
        return time.perf_counter() - start


def ours(
    config: TrainConfig,
    dataset: Dataset,
    graph: SimilarityGraph | None,
    *,
    strategy: Any = None,
) -> Trainer:
    """Gives the trainer of this project, as the training recipe builds it."""
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(config.seed)
    precision = settled_precision(config)
    keras.mixed_precision.set_global_policy(precision)
    with strategy.scope():
        model = build_model(config, dataset)
        optimizer = make_optimizer(1e-3, schedule="fixed", steps=1, precision=precision)
        model.compile(optimizer=optimizer, jit_compile=config.jit_compile)
        model.optimizer.build(model.trainable_variables)
    keras.mixed_precision.set_global_policy("float32")
    replicas = strategy.num_replicas_in_sync
    source = batch_source(config, dataset, graph, replicas=replicas)
    return Trainer(model, source(0))


def plain_keras(config: TrainConfig, dataset: Dataset) -> Trainer:
    """Keras' own `Model.fit` step of the same network on shuffled arrays: no graph, no wrapper."""
    model = _logits(config, dataset)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=_loss(), metrics=["accuracy"])
    with tf.device("CPU:0"):
        rows = tf.data.Dataset.from_tensor_slices((dataset.train.images, dataset.train.labels))
    rows = rows.shuffle(len(dataset.train), seed=0).repeat().batch(config.batch_size)
    return Trainer(model, rows.prefetch(tf.data.AUTOTUNE))


def nsl_wrapper(config: TrainConfig, dataset: Dataset, graph: SimilarityGraph) -> Trainer:
    """`nsl.keras.GraphRegularization` around the same network, on the same packed batches."""
    settings = nsl.configs.make_graph_reg_config(
        max_neighbors=config.max_neighbors,
        multiplier=config.alpha,
        distance_type="l2",
        sum_over_axis=-1,
    )
    model = nsl.keras.GraphRegularization(_logits(config, dataset), settings)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=_loss(), metrics=["accuracy"])
    return Trainer(model, batch_source(config, dataset, graph)(0))


def _logits(config: TrainConfig, dataset: Dataset) -> Any:
    keras.utils.set_random_seed(config.seed)
    base = build_model(config, dataset).base_model
    return keras.Model(base.input, base.output[LOGITS])


def _loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batches_alone(batches: Any, steps: int) -> Callable[[], float]:
    """A turn that takes so many batches and trains on none."""
    rows = iter(batches)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            next(rows)
        return time.perf_counter() - start

    return turn
