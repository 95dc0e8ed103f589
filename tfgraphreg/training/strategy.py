"""Where training runs: one device, or all of them under MirroredStrategy."""

from __future__ import annotations

import functools

from tfgraphreg.compat import tf
from tfgraphreg.errors import ConfigError


def choose_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name.

    Args:
        name: `auto` (MirroredStrategy over all GPUs; one device without a GPU), `mirrored`
            (over all GPUs, else over all logical CPUs) or `none`.
    """
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
