"""The network that a config names, wrapped for training."""

from __future__ import annotations

import logging

from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.backbones.records import plan_input
from tfgraphreg.compat import keras
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import ModelError
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.recipes.batches import neighbor_mode
from tfgraphreg.recipes.start import RUN, start_from
from tfgraphreg.training.augmentation import build_augmenter, build_label_mixer

logger = logging.getLogger(__name__)


def build_model(
    config: TrainConfig, dataset: Dataset, backbone: keras.Model | None = None
) -> RegularizedClassifier:
    """The config's classifier, or one on a backbone that was passed, wrapped for training."""
    if backbone is None:
        backbone = named_backbone(config, dataset)
    elif backbone.input_shape[1:] != dataset.image_shape:
        raise ModelError(
            "`model` takes other images than the dataset has.",
            received=f"input {backbone.input_shape[1:]}, images {dataset.image_shape}",
        )
    base = _classifier(config, dataset, backbone)
    if config.weights.startswith(RUN):
        start_from(base, config, dataset.class_names)
    return RegularizedClassifier(
        base,
        config.alpha,
        config.distance,
        regularize=config.regularize,
        mode=neighbor_mode(config, size=len(dataset.train)) if config.regularized else None,
        multilabel=dataset.multilabel,
        objective=config.objective,
        contrast=config.contrast,
        augmenter=build_augmenter(config.augment, seed=config.seed),
        label_mixer=build_label_mixer(config.augment, seed=config.seed),
    )


def untrained(
    config: TrainConfig, dataset: Dataset, backbone: keras.Model | None = None
) -> keras.Model:
    """The config's classifier for the weights of a trained one, or one on a backbone passed."""
    if backbone is None:
        backbone = _backbone(config, dataset, "none")
    return _classifier(config, dataset, backbone)


def named_backbone(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """The config's backbone; says what it does to the images."""
    record = BACKBONES.get(config.backbone)
    plan = plan_input(record, dataset.image_shape, image_size=config.image_size)
    for note in plan.notes:
        logger.info(f"  {note}")
    return _backbone(config, dataset, "none" if config.weights.startswith(RUN) else config.weights)


def _backbone(config: TrainConfig, dataset: Dataset, weights: str) -> keras.Model:
    return build_backbone(
        config.backbone,
        input_shape=dataset.image_shape,
        weights=weights,
        image_size=config.image_size,
    )


def _classifier(config: TrainConfig, dataset: Dataset, backbone: keras.Model) -> keras.Model:
    return build_classifier(
        backbone, embedding_dim=config.embedding_dim, num_classes=dataset.num_classes
    )
