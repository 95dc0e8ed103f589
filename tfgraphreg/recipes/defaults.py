"""The settings that a config leaves open, chosen by the size of the training set."""

from __future__ import annotations

import dataclasses
import logging

from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Split
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.settings import AUTO_BACKBONE
from tfgraphreg.neighbors.order import steps_per_epoch
from tfgraphreg.propagation.pseudo import many_labels
from tfgraphreg.propagation.settings import OFF
from tfgraphreg.recipes.start import RUN, backbone_of_start

logger = logging.getLogger(__name__)

# Chosen for Fashion-MNIST, see docs/default_backbone.md. It needs many steps: on 252 photos of
# four classes it memorizes the training images and gets 0.83 of the test right, `cnn` 0.98.
_BACKBONE = "mobilenet_v3_small_minimalistic"
_SMALL_BACKBONE = "cnn"
# For boxes and masks: maps of every stride from 2 to 16, at a cost that suits two cores.
_BACKBONE_OF_PARTS = "cnn_pyramid"
_SMALL_SET = 2000
_BATCH_SIZES = (128, 64, 32, 16)
ENOUGH_STEPS = 100  # of a training
# Where parts of images are learned, an image has many examples.
_BATCH_OF_PARTS = 16
# Images in all steps together: as many as two cores take in less than ten minutes.
_SEEN_OF_PARTS = {"segment": 380_000, "detect": 240_000}
# Chosen on held-out training images of Fashion-MNIST, see docs/propagation.md.
_PASSES_OF_MANY_LABELS = 1.5
# Chosen on scenes of training items that were held out, see docs/local.md.
_DECAY_OF_MASKS = 0.02
_CROPPED = 3 / 5


def choose_backbone(config: TrainConfig, images: int | None = None) -> str:
    """The network of a config: its own, or for `auto` one that suits the number of training images.

    Args:
        config: The config; weights to start from and frozen stages need the large network.
        images: Number of training images; None if it is not known yet.
    """
    if config.backbone != AUTO_BACKBONE:
        return config.backbone
    if config.task != "classify":
        return _BACKBONE_OF_PARTS
    if config.weights.startswith(RUN):
        return backbone_of_start(config)
    from_scratch = config.weights == "none" and config.freeze == "none"
    small = images is not None and images < _SMALL_SET and from_scratch
    return _SMALL_BACKBONE if small else _BACKBONE


def choose_batch_size(images: int, epochs: int) -> int:
    """128, or the largest of 64, 32 and 16 that gives 100 steps in all; 16 if none does."""
    fitting = (b for b in _BATCH_SIZES if epochs * steps_per_epoch(images, b) >= ENOUGH_STEPS)
    return next(fitting, _BATCH_SIZES[-1])


def settled_batch_size(config: TrainConfig) -> int:
    """The batch size of a config that `fill_in` gave, or that names one.

    Raises:
        ConfigError: If it is still open.
    """
    if config.batch_size is None:
        raise ConfigError("`batch_size` must be chosen before batches are made.")
    return config.batch_size


def settled_precision(config: TrainConfig) -> str:
    """The precision policy of a config: its own, or one that suits task and machine.

    Masks and boxes take 1.4 times as long in float32, the recipe for few labels twice; what is
    exported computes in float32 anyway. With `jit_compile` it is float32: XLA fails on some of
    these networks in bfloat16 on a processor.
    """
    if config.precision is not None:
        return config.precision
    plain = config.task == "classify" and config.propagate == OFF
    if plain or config.jit_compile:
        return "float32"
    from tfgraphreg.training.processor import multiplies_bfloat16

    return "mixed_bfloat16" if multiplies_bfloat16() else "float32"


def settled_weight_decay(config: TrainConfig) -> float:
    """The weight decay of a config: its own, or one that suits the task."""
    if config.weight_decay is not None:
        return config.weight_decay
    return _DECAY_OF_MASKS if config.task == "segment" else 0.0


def settled_passes(config: TrainConfig, split: Split, num_classes: int) -> float:
    """Passes over the images in an epoch: the config's own, or as many as its labels are worth.

    Labels from the graph are right more often if more are given, and then worth learning longer.
    """
    if config.passes_per_epoch is not None:
        return config.passes_per_epoch
    many = many_labels(split.labeled, num_classes)
    return _PASSES_OF_MANY_LABELS if many and config.propagate != OFF else 1.0


def fill_in(config: TrainConfig, images: int, *, epochs: int | None = None) -> TrainConfig:
    """The config with backbone and batch size chosen by the number of training images; logs them.

    Where parts of images are learned, epochs pass over few images several times (`min_steps`).

    Args:
        config: The config.
        images: Number of training images.
        epochs: Epochs that the run began with, if it was continued for more.
    """
    backbone = choose_backbone(config, images)
    epochs = epochs or config.epochs
    of_parts = config.task != "classify"
    suits = _BATCH_OF_PARTS if of_parts else choose_batch_size(images, epochs)
    batch_size = config.batch_size or suits
    chosen = [f"backbone={backbone}"] * (backbone == _SMALL_BACKBONE != config.backbone)
    chosen += [f"batch_size={batch_size}"] * (config.batch_size is None)
    precision = settled_precision(config)
    chosen += [f"precision={precision}"] * (precision not in (config.precision, "float32"))
    if chosen and (images < _SMALL_SET or batch_size != _BATCH_SIZES[0]):
        logger.info(f"Chosen for {images} training images: {', '.join(chosen)}")
    least = config.min_steps
    if of_parts and not least:
        least = -(-_SEEN_OF_PARTS[config.task] // (epochs * batch_size))
    cropped = config.crop_epochs
    if cropped is None and config.task == "segment":
        cropped = int(epochs * _CROPPED)
    return dataclasses.replace(
        config, backbone=backbone, batch_size=batch_size, min_steps=least, crop_epochs=cropped
    )
