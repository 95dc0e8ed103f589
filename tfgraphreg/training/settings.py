"""How long and how fast a run trains."""

from __future__ import annotations

import dataclasses

from tfgraphreg.errors import ConfigError
from tfgraphreg.model.settings import OBJECTIVES
from tfgraphreg.settings import Settings, at_least, refuse, setting

SCHEDULES = ("cosine", "fixed")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
STRATEGIES = ("auto", "mirrored", "none")
AUGMENTATIONS = ("none", "flip", "flip_shift", "rand_augment", "mixup", "cutmix")
LABEL_MIXING = ("mixup", "cutmix")
# Of the others, KerasCV's layers hold operations without an XLA kernel on any device:
# ImageProjectiveTransformV3 (translation), HistogramFixedWidth (RandAugment), RandomGamma (mixing).
_COMPILED_AUGMENTATIONS = ("none", "flip")


_LARGEST_RATE = 3.4e38  # of float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How long and how fast a run trains, and on what."""

    objective: str = setting(
        "auto",
        "supervised loss: softmax cross-entropy for one class an image, sigmoid cross-entropy for "
        "several (auto: the one that the labels need), or one of the extra addons",
        choices=OBJECTIVES,
    )
    augment: str = setting("none", "random changes of training images", choices=AUGMENTATIONS)
    epochs: int = setting(5, "passes over the training images")
    batch_size: int | None = setting(
        None,
        "images in a step, over all replicas; neighbors not counted. Default: 128, down to 16 if "
        "that would give less than 100 steps in all",
    )
    learning_rate: float | None = setting(None, "Adam's learning rate. Default: the backbone's own")
    schedule: str = setting("cosine", "learning rate over time", choices=SCHEDULES)
    precision: str = setting("float32", "number format of the computation", choices=PRECISIONS)
    strategy: str = setting(
        "auto",
        "auto: MirroredStrategy where there is a GPU; mirrored: over all GPUs (or logical CPUs); "
        "none: one device",
        choices=STRATEGIES,
    )
    jit_compile: bool = setting(
        False, "compile the training step with XLA; of `augment` only flip can be compiled"
    )
    seed: int = setting(0, "seed of everything random; the same seed gives the same run on CPU")

    def check(self) -> None:
        """Checks the ranges, and that XLA can compile what it should.

        Raises:
            ConfigError: If a value, or a combination of values, cannot work.
        """
        at_least(self, 1, "epochs", "batch_size")
        at_least(self, 0, "seed", most=2**63)
        if self.seed >= 2**31:
            refuse("seed", "must be smaller than 2**31", self.seed, "Use a smaller seed.")
        rate = self.learning_rate
        if rate is not None and not 0 < rate < _LARGEST_RATE:
            refuse(
                "learning_rate", "must be a finite number > 0 and below 3.4e38", rate, "Try 0.001."
            )
        if self.jit_compile and self.augment not in _COMPILED_AUGMENTATIONS:
            raise ConfigError(
                f"XLA cannot compile the random changes of `augment={self.augment}`: it lacks "
                "some of their operations.",
                received=f"augment={self.augment}, jit_compile={self.jit_compile}",
                cure="Leave `jit_compile` out, or use `augment=flip`.",
            )
