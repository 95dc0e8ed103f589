"""Features for the graph, also those of a network or of a file."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import ConfigError, DataError, ModelError
from tfgraphreg.features.vectors import check_vectors_file, read_vectors
from tfgraphreg.settings import GIVEN

_BATCH = 128
# One for all runs, so that runs that differ in their seed share features and graph.
FEATURE_SEED = 0


def check_features(name: str) -> None:
    """Refuses features that cannot be, before anything is loaded.

    Raises:
        UnknownNameError: If there is no such descriptor or backbone.
        ModelError: If there is no such SavedModel.
        DataError: If there is no such file of vectors.
        ConfigError: If nothing is named.
    """
    kind, network = network_of(name)
    if kind == "file":
        return check_vectors_file(network)
    if kind == "model":
        if not (pathlib.Path(network) / "saved_model.pb").is_file():
            raise ModelError(
                "There is no SavedModel in this folder.",
                received=f"graph_features={name}",
                cure="Name a folder that a training run exported, such as saved_models/NAME.",
            )
    elif kind == "backbone":
        from tfgraphreg.backbones.catalog import BACKBONES

        backbone, weights = _backbone(network)
        BACKBONES.get(backbone)
        if weights not in ("imagenet", "none") and not _weights_file(weights).is_file():
            raise ConfigError(
                "The file with the weights of the backbone does not exist.",
                received=f"graph_features={name}",
                cure="Use backbone:NAME for ImageNet weights, or backbone:NAME=FILE.",
            )
    else:
        from tfgraphreg.features import FEATURES

        FEATURES.get(name)


def features_mark(config: TrainConfig) -> Any:
    """What the features depend on beyond their name and the images: the content of files."""
    kind, name = network_of(config.graph_features)
    if kind == "file":
        return storage.file_digest(name)
    if kind == "model":
        # The graph's file differs from save to save; the variables tell.
        files = sorted((pathlib.Path(name) / "variables").glob("*"))
        return [storage.file_digest(path) for path in files]
    if kind == "backbone":
        from importlib.metadata import version

        backbone, weights = _backbone(name)
        mark = [backbone, weights, config.image_size, version("tensorflow")]
        if weights == "none":
            mark.append(config.seed)
        elif weights != "imagenet":
            mark.append(storage.file_digest(_weights_file(weights)))
        return mark
    return None


def graph_features(config: TrainConfig, dataset: Dataset, progress: Any) -> np.ndarray:
    """Features `[N, D]` of the training images, by the config's `graph_features`.

    Those that take time are kept in the cache.

    `model:PATH` is the embedding of a SavedModel that this project exported. `backbone:NAME` is a
    network of the registry with its ImageNet weights, `backbone:NAME=FILE` with weights of one's
    own, `backbone:NAME=none` with random ones. `file:PATH` are vectors of the user's own; see
    `read_vectors`. All others come from the features room.

    Args:
        config: Names the features; its seed is that of a network with random weights only.
        dataset: Its training images are described.
        progress: Called as ``progress(what, done, total)``.
    """
    from tfgraphreg.features import extract_features
    from tfgraphreg.features.registry import cached_rows

    if config.graph_features.startswith(GIVEN):
        raise DataError(
            "The graph was built from vectors that were passed to `train`, which kept none.",
            received=f"graph_features={config.graph_features}",
            cure="Do this where the vectors are, or name a file of them by `graph_features`.",
        )
    images, checksum = dataset.train.images, dataset.checksum
    folder = storage.cache_folder() / "features"
    kind, name = network_of(config.graph_features)
    if kind == "file":
        return read_vectors(name, dataset.train.ids, others=dataset.ids_beside_train)
    if kind is None:
        return extract_features(
            config.graph_features,
            images,
            seed=FEATURE_SEED,
            progress=progress,
            cache_dir=folder,
            fingerprint_key=checksum,
        )

    def compute() -> np.ndarray:
        embed = embedder(config, images.shape[1:])
        return embed(images, lambda done, *_: progress("embedding", done, len(images)))

    key = storage.fingerprint([kind, features_mark(config), checksum, list(images.shape)])
    return cached_rows(folder / f"features-{kind}-{key}.npy", len(images), compute)


def embedder(config: TrainConfig, image_shape: tuple[int, int, int]) -> Callable[..., np.ndarray]:
    """What embeds images by the network that `graph_features` names.

    Returns:
        A function of `[N, H, W, C]` images and a callback for the number done; gives `[N, D]`.
    """
    kind, name = network_of(config.graph_features)
    return _model(name) if kind == "model" else _with_backbone(name, image_shape, config)


def network_of(name: str) -> tuple[str | None, str]:
    """`model`, `backbone`, `file` or None for a descriptor, and what stands behind the colon.

    Raises:
        ConfigError: If nothing does.
    """
    kind, colon, rest = name.partition(":")
    if kind not in ("model", "backbone", "file"):
        return None, name
    if not colon or not rest:
        raise ConfigError(
            f"`graph_features={kind}:` must name a {'file' if kind == 'file' else 'network'}.",
            received=f"graph_features={name}",
            cure="Try model:saved_models/NAME, backbone:mobilenet or file:vectors.npz.",
        )
    return kind, rest


def _backbone(name: str) -> tuple[str, str]:
    backbone, _, weights = name.partition("=")
    return backbone, weights or "imagenet"


def _weights_file(weights: str) -> pathlib.Path:
    return pathlib.Path(weights.removeprefix("timm:"))


def _model(folder: str) -> Callable[..., np.ndarray]:
    from tfgraphreg.export import Predictor

    predictor = Predictor(folder)
    return lambda images, tell: predictor(images, progress=tell)["embedding"].astype(np.float32)


def _with_backbone(
    name: str, image_shape: tuple[int, int, int], config: TrainConfig
) -> Callable[..., np.ndarray]:
    from tfgraphreg.backbones.build import build_backbone
    from tfgraphreg.compat import keras, tf

    backbone, weights = _backbone(name)
    keras.utils.set_random_seed(config.seed)
    model = build_backbone(
        backbone, input_shape=image_shape, weights=weights, image_size=config.image_size
    )
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)

    def embed(images: Any, tell: Callable[[int], None]) -> np.ndarray:
        rows = np.empty((len(images), model.output_shape[-1]), np.float32)
        for start in range(0, len(images), _BATCH):
            batch = tf.convert_to_tensor(np.asarray(images[start : start + _BATCH]))
            rows[start : start + _BATCH] = forward(batch).numpy()
            tell(min(start + _BATCH, len(images)))
        return rows

    return embed
