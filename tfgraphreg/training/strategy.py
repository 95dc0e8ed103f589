"""Where training runs: one device, all of them under MirroredStrategy, or several workers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tfgraphreg.compat import tf
from tfgraphreg.errors import ConfigError, TrainingError, first_line

# Seconds in which a worker that has met the others must reach TensorFlow's service, and after
# which one that no longer answers counts as gone.
_CONNECTED, _SILENT = 120, 30


def choose_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name.

    Args:
        name: `auto` (MirroredStrategy over all GPUs; one device without a GPU), `mirrored`
            (over all GPUs, else over all logical CPUs), `multiworker` (the workers of `TF_CONFIG`,
            see `join_workers`) or `none`.
    """
    if name == "multiworker":
        return join_workers()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "none" or (name == "auto" and not gpus):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return _mirrored(tuple(d.name for d in devices))


@functools.lru_cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # Two of them in one process number their collective operations alike, and TensorFlow
    # then takes the operations of one for those of the other.
    return tf.distribute.MirroredStrategy(list(devices))


@functools.lru_cache
def join_workers() -> tf.distribute.Strategy:
    """The MultiWorkerMirroredStrategy of this process, made once.

    It must be made before TensorFlow computes anything, and waits for all other workers.

    Raises:
        ConfigError: If TensorFlow was used before.
        TrainingError: If the others cannot be reached.
    """
    _bound_waiting()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(
            "`strategy=multiworker` must start before TensorFlow computes anything in this process "
            f"({first_line(error)}).",
            cure="Call `train` first, or use the command line.",
        ) from error
    except tf.errors.OpError as error:
        raise TrainingError(
            f"The workers cannot reach each other ({first_line(error)}).",
            cure="Check that the ports of TF_CONFIG are free and open between them.",
        ) from error


def _bound_waiting() -> None:
    """Lets TensorFlow's service wait for minutes only, where it can be told so."""
    from tensorflow.python.eager import context

    # Private, so the defaults (an hour until the workers meet) stay where it is missing.
    service: Any = context.context()
    original = getattr(service, "configure_coordination_service", None)
    if original is None:
        return
    service.configure_coordination_service = functools.partial(
        original,
        cluster_register_timeout_in_ms=_CONNECTED * 1000,
        heartbeat_timeout_in_ms=_SILENT * 1000,
        shutdown_barrier_timeout_in_ms=_SILENT * 1000,
    )


def gather(strategy: tf.distribute.Strategy) -> Callable[[int], list[int]]:
    """Returns what every worker calls with a number of its own, to get those of all of them.

    Who calls it waits for the others. Numbers are from -2**63 to 2**63 - 1.
    """

    @tf.function
    def together(value):
        # An operation of its own for each gather, or TensorFlow takes one for another.
        own = strategy.run(
            lambda: tf.distribute.get_replica_context().all_gather(
                tf.identity(tf.reshape(value, [1])), axis=0
            )
        )
        return strategy.experimental_local_results(own)[0]

    def call(value: int) -> list[int]:
        return [int(n) for n in together(tf.constant(value, tf.int64)).numpy()]

    return call


def share_by_rows(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches of which each worker takes its own rows, and all workers together every row.

    By default TensorFlow may give each worker other files, which changes what a batch is.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


def check_batch_size(batch_size: int, replicas: int, *, paired: bool) -> None:
    """Refuses a batch that the replicas cannot share.

    Raises:
        ConfigError: If it is no multiple of the replicas, or of twice as many for pairs.
    """
    unit = replicas * (2 if paired else 1)
    if batch_size % unit:
        raise ConfigError(
            f"`batch_size` must be a multiple of {unit}"
            + (", so that no pair is torn apart." if paired else ", the number of replicas."),
            received=f"batch_size={batch_size}, replicas={replicas}",
            cure=f"Use {max(unit, batch_size // unit * unit)}.",
        )
