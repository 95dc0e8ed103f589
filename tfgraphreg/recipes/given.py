"""Objects that a caller passes to `train` in place of what a config names."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import ConfigError, DataError, ModelError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.settings import GIVEN, shown

_HASHED_BYTES = 1 << 30
# The setting that each argument takes the place of.
_NAMED_BY = {
    "dataset": "dataset",
    "graph": "graph",
    "vectors": "graph_features",
    "model": "backbone",
}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Given:
    """What was passed instead of being named by the config.

    Attributes:
        dataset: Takes the place of `config.dataset`.
        graph: Over the training images of the run, in their order; takes the place of
            `config.graph`.
        vectors: `[N, D]`, a row for each training image, in their order; the graph compares these
            instead of `config.graph_features`.
        model: A `keras.Model` from images `[B, H, W, C]` with values 0 to 255 to features `[B, F]`;
            takes the place of `config.backbone`, with the weights that it has.

    Raises:
        ConfigError: If one is an object of another class, or both a graph and vectors are passed.
        DataError: If the vectors are no matrix of finite numbers.
        ModelError: If the model does not map images to vectors.
    """

    dataset: Dataset | None = None
    graph: SimilarityGraph | None = None
    vectors: np.ndarray | None = None
    model: Any = None

    def __post_init__(self):
        for name, kind in (("dataset", Dataset), ("graph", SimilarityGraph)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigError(
                    f"`{name}` must be a {kind.__name__}.", received=_type(name, value)
                )
        if self.graph is not None and self.vectors is not None:
            raise ConfigError("`graph` and `vectors` both make the graph.", cure="Pass one.")
        if self.vectors is not None:
            object.__setattr__(self, "vectors", _matrix(self.vectors))
        if self.model is not None:
            _check_model(self.model)

    def in_config(self, config: TrainConfig) -> TrainConfig:
        """The config that says what was passed, by content, so that a run can be resumed with it.

        Raises:
            ConfigError: If the config names what was passed, or has settings that would then
                change nothing.
        """
        marks = self._marks()
        defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
        for argument, mark in marks.items():
            name = _NAMED_BY[argument]
            named = getattr(config, name)
            if named not in (defaults[name], mark):
                raise ConfigError(
                    f"`{argument}` was passed, and the config names one by `{name}`.",
                    received=shown(name, named),
                    cure=f"Leave `{name}` out of the config.",
                )
        if self.graph is not None or self.vectors is not None:
            _need_term(config, "graph" if self.graph is not None else "vectors")
        values: dict[str, Any] = {_NAMED_BY[k]: mark for k, mark in marks.items()}
        return dataclasses.replace(config, **values)

    def _marks(self) -> dict[str, str]:
        found = {}
        if self.dataset is not None:
            found["dataset"] = f"{self.dataset.name}#{_dataset_digest(self.dataset)}"
        if self.graph is not None:
            graph = self.graph
            found["graph"] = _digest(graph.indptr, graph.indices, graph.weights)
        if self.vectors is not None:
            found["vectors"] = _digest(self.vectors)
        if self.model is not None:
            found["model"] = f"{self.model.name}#{_digest(*self.model.get_weights())}"
        return {name: GIVEN + mark for name, mark in found.items()}

    def check_sizes(self, images: int) -> None:
        """Checks that a graph or vectors have as many rows as there are training images.

        Raises:
            DataError: If they have not.
        """
        rows = None if self.graph is None else self.graph.num_nodes
        rows = rows if self.vectors is None else len(self.vectors)
        if rows not in (None, images):
            raise DataError(
                "`graph` and `vectors` need a row for each training image, in their order.",
                received=f"{rows} rows, {images} training images",
            )


def _need_term(config: TrainConfig, name: str) -> None:
    if not config.regularized:
        raise ConfigError(
            f"`{name}` has an effect only with `alpha` above 0.",
            received=f"alpha={config.alpha}",
            cure=f"Leave `{name}` out.",
        )


def _matrix(vectors: Any) -> np.ndarray:
    try:
        found = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            "`vectors` must be an array of numbers.", received=_type("vectors", vectors)
        ) from error
    if found.ndim != 2 or not found.shape[1] or not np.isfinite(found).all():
        raise DataError(
            "`vectors` must be a matrix [N, D] of finite numbers.", received=f"shape={found.shape}"
        )
    return found


def _check_model(model: Any) -> None:
    from tfgraphreg.compat import keras

    if not isinstance(model, keras.Model):
        raise ConfigError(
            "`model` must be a keras.Model of the Keras that TensorFlow binds as tf.keras.",
            received=_type("model", model),
            cure="Build it with `from tfgraphreg.compat import keras`.",
        )
    try:
        shapes = tuple(model.input_shape), tuple(model.output_shape)
    except (AttributeError, RuntimeError, TypeError):
        shapes = (), ()
    if [len(shape) for shape in shapes] != [4, 2]:
        raise ModelError(
            "`model` must map one batch of images [B, H, W, C] to features [B, F].",
            received=f"input {shapes[0] or 'unknown'}, output {shapes[1] or 'unknown'}",
        )


def _digest(*parts: Any) -> str:
    return storage.fingerprint(list(parts))[:12]


def _dataset_digest(dataset: Dataset) -> str:
    """By content, except for images that are read from files or fill a gigabyte."""
    parts: list[Any] = [dataset.checksum, list(dataset.class_names)]
    for split in (dataset.train, dataset.validation, dataset.test):
        parts += [split.ids.tolist(), split.labels]
        if isinstance(split.images, np.ndarray) and split.images.nbytes <= _HASHED_BYTES:
            parts.append(split.images)
    return _digest(*parts)


def _type(name: str, value: Any) -> str:
    return f"{name}=an object of type {type(value).__name__}"
