"""Adam, and Adam as fine-tuning needs it: a pretrained part that moves less, and later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tfgraphreg.compat import keras, tf

# A frozen network with random weights and the statistics it was born with gives features around
# 1e-18. The gradient of a cosine there is 1e18 and more, and Adam's square of it no float32.
LARGEST_GRADIENT = 1e15


class FineTuningAdam(keras.optimizers.Adam):
    """Adam whose steps are smaller for some weights, and begin later for them.

    The steps are scaled, not the gradients: Adam divides the size of a gradient out, so a scaled
    gradient would move a weight as far as before. Kingma and Ba's correction of the two running
    means (arXiv:1412.6980, algorithm 1) counts from a weight's own first step; counted from the
    head's, the first steps of a backbone that joins late would be several times too long.

    Args:
        learning_rate: As in Adam.
        factors: Pairs of a weight and the multiple of the learning rate that it learns at. A
            weight that is not named learns at the rate itself, from the start.
        first_step: Steps of the whole before a named weight takes part.
        weight_decay: Share of a weight that a step takes away, times its learning rate.
        **kwargs: Further arguments of Adam.
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        factors: Iterable[tuple[Any, float]],
        first_step: int = 0,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        # Not Keras' own, which takes no factor into account.
        self._own_decay = weight_decay
        table = {self._var_key(weight): factor for weight, factor in factors}
        # Functions, because Keras would track a dictionary as part of the checkpoint.
        self._factor = lambda key: table.get(key, 1.0)
        self._first_step = lambda key: first_step if key in table else 0

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Moves one weight against its gradient."""
        key = self._var_key(variable)
        gradient = tf.convert_to_tensor(gradient)
        mean = self._momentums[self._index_dict[key]]
        square = self._velocities[self._index_dict[key]]
        steps = tf.cast(self.iterations - self._first_step(key) + 1, variable.dtype)
        mean.assign_add((gradient - mean) * (1 - self.beta_1))
        square.assign_add((tf.square(gradient) - square) * (1 - self.beta_2))
        rate = tf.cast(self.learning_rate, variable.dtype) * self._factor(key)
        if self._own_decay:
            variable.assign_sub(variable * self._own_decay * rate)
        rate *= tf.sqrt(1 - tf.pow(self.beta_2, steps)) / (1 - tf.pow(self.beta_1, steps))
        variable.assign_sub(rate * mean / (tf.sqrt(square) + self.epsilon))


def make_optimizer(
    learning_rate: float,
    *,
    schedule: str,
    steps: int,
    precision: str,
    cycle: int | None = None,
    factors: Iterable[tuple[Any, float]] = (),
    first_step: int = 0,
    bounded: bool = False,
    weight_decay: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Adam with a fixed rate, or one that falls to zero as half a cosine over `steps`.

    Args:
        learning_rate: Of the first step.
        schedule: `cosine` or `fixed`.
        steps: In all.
        cycle: Steps after which a cosine starts over; None: never.
        precision: With `mixed_float16` the loss is scaled.
        factors: Weights with a rate of their own; see `FineTuningAdam`.
        first_step: See `FineTuningAdam`.
        bounded: Whether gradients are cut at `LARGEST_GRADIENT`.
        weight_decay: Share of a weight that a step takes away, times the learning rate, as in AdamW
            (Loshchilov and Hutter, arXiv:1711.05101).
    """
    rate = learning_rate
    if schedule == "cosine":
        schedules = keras.optimizers.schedules
        rate = schedules.CosineDecay(learning_rate, max(steps, 1))
        if cycle is not None:
            rate = schedules.CosineDecayRestarts(learning_rate, cycle, t_mul=1.0, m_mul=1.0)
    factors = list(factors)
    limit = LARGEST_GRADIENT if bounded else None
    if first_step or any(factor != 1 for _, factor in factors):
        optimizer = FineTuningAdam(
            rate,
            factors=factors,
            first_step=first_step,
            weight_decay=weight_decay,
            clipvalue=limit,
        )
    else:
        optimizer = keras.optimizers.Adam(rate, clipvalue=limit, weight_decay=weight_decay or None)
    if precision == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
