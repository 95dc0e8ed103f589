"""How long and how fast a run trains."""

from __future__ import annotations

import dataclasses

from tfgraphreg.errors import ConfigError
from tfgraphreg.model.settings import OBJECTIVES
from tfgraphreg.settings import Settings, at_least, refuse, setting

SCHEDULES = ("cosine", "fixed")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
STRATEGIES = ("auto", "mirrored", "multiworker", "none")
AUGMENTATIONS = ("none", "flip", "flip_shift", "rand_augment", "mixup", "cutmix")
LABEL_MIXING = ("mixup", "cutmix")
# Of the others, KerasCV's layers hold operations without an XLA kernel on any device:
# ImageProjectiveTransformV3 (translation), HistogramFixedWidth (RandAugment), RandomGamma (mixing).
_COMPILED_AUGMENTATIONS = ("none", "flip")


_LARGEST_RATE = 3.4e38  # of float32
_MOST_PASSES = 1000


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
    epochs: int = setting(
        5, "each passes over the training images once, unless one of the next two says more"
    )
    passes_per_epoch: float | None = setting(
        None,
        "passes over the training images in an epoch; 1.5 ends in the middle of one, where the "
        "next epoch goes on. Default: 1; with `propagate` and 20 or more labels a class 1.5",
    )
    min_steps: int = setting(
        0,
        "steps that an epoch has at least: where images are few, it passes over them several "
        "times. Default: none; for masks and boxes so many that the training takes 380,000 or "
        "240,000 images in all",
    )
    batch_size: int | None = setting(
        None,
        "images in a step, over all replicas; neighbors not counted. Default: 16 for masks and "
        "boxes, else 128, down to 16 if that would give less than 100 steps in all",
    )
    labeled_batch: int | None = setting(
        None,
        "labeled images in every step, drawn again and again, so that few labels among many "
        "images are seen in each; 0: none besides those that the order of the images brings. "
        "Default: where fewer than 1 image in 8 is labeled, an eighth of `batch_size`, or all of "
        "it where nothing is learned from unlabeled images; else 0",
    )
    learning_rate: float | None = setting(None, "Adam's learning rate. Default: the backbone's own")
    weight_decay: float | None = setting(
        None,
        "share of a weight that each step takes away, times the learning rate (AdamW). Default: "
        "0; for masks 0.02",
    )
    schedule: str = setting("cosine", "learning rate over time", choices=SCHEDULES)
    ema_momentum: float = setting(
        0.0,
        "evaluate and export an exponential moving average of the weights, which each step moves "
        "by 1 - this; 0: the weights themselves",
    )
    precision: str | None = setting(
        None,
        "number format of the computation. Default: float32; for masks, boxes and `propagate` "
        "mixed_bfloat16 where the processor multiplies such numbers, without `jit_compile`",
        choices=PRECISIONS,
    )
    strategy: str = setting(
        "auto",
        "auto: MirroredStrategy where there is a GPU; mirrored: over all GPUs (or logical CPUs); "
        "multiworker: over all workers that the environment variable TF_CONFIG lists, each given "
        "the same command; none: one device",
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
        at_least(self, 0, "labeled_batch", "min_steps")
        passes = self.passes_per_epoch
        if passes is not None and not 1 <= passes <= _MOST_PASSES:
            refuse("passes_per_epoch", f"must be from 1 to {_MOST_PASSES}", passes, "Try 1.5.")
        if not 0 <= self.ema_momentum < 1:
            refuse("ema_momentum", "must be in [0, 1)", self.ema_momentum, "Try 0.999.")
        at_least(self, 0, "seed", most=2**63)
        if self.seed >= 2**31:
            refuse("seed", "must be smaller than 2**31", self.seed, "Use a smaller seed.")
        rate = self.learning_rate
        if rate is not None and not 0 < rate < _LARGEST_RATE:
            refuse(
                "learning_rate", "must be a finite number > 0 and below 3.4e38", rate, "Try 0.001."
            )
        decay = self.weight_decay
        if decay is not None and not 0 <= decay < 1:
            refuse("weight_decay", "must be in [0, 1)", decay, "Try 0.02.")
        if self.jit_compile and self.augment not in _COMPILED_AUGMENTATIONS:
            raise ConfigError(
                f"XLA cannot compile the random changes of `augment={self.augment}`: it lacks "
                "some of their operations.",
                received=f"augment={self.augment}, jit_compile={self.jit_compile}",
                cure="Leave `jit_compile` out, or use `augment=flip`.",
            )
