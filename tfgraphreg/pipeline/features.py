"""Features for the graph, also those that a network makes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig


def graph_features(config: TrainConfig, images: Any, checksum: str, progress: Any) -> np.ndarray:
    """Features `[N, D]` of the config's `graph_features`.

    `model:PATH` is the embedding of a SavedModel that this project exported; `backbone:NAME`
    a network of the registry with its published weights; all others come from the features
    room.
    """
    kind, _, name = config.graph_features.partition(":")
    if kind == "model":
        from tfgraphreg.export import Predictor

        return Predictor(name)(
            images, progress=lambda done, total: progress("embedding", done, total)
        )["embedding"]
    if kind == "backbone":
        return _backbone_features(name, images, config, progress)
    from tfgraphreg.features import extract

    return extract(
        config.graph_features,
        images,
        seed=config.seed,
        progress=progress,
        cache_dir=storage.cache_folder() / "features",
        fingerprint_key=checksum,
    )


def _backbone_features(name: str, images: Any, config: TrainConfig, progress: Any) -> np.ndarray:
    from tfgraphreg.backbones.build import build_backbone
    from tfgraphreg.compat import tf

    weights = "imagenet" if config.weights == "none" else config.weights
    model = build_backbone(
        name, input_shape=images.shape[1:], weights=weights, image_size=config.image_size
    )
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    parts = []
    for start in range(0, len(images), 128):
        parts.append(forward(tf.convert_to_tensor(images[start : start + 128])).numpy())
        progress("embedding", min(start + 128, len(images)), len(images))
    return np.concatenate(parts).astype(np.float32)
