"""What a run's model makes of its images, as tables for other programs.

Shapes: N images, C classes, D width of the embedding, E edges.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Dataset
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.parquet import write_parquet
from tfgraphreg.graph.tsv import write_tsv
from tfgraphreg.progress import Progress, silent
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.runs.outputs import ask, load_data, within_budget
from tfgraphreg.storage import atomic_path, user_path

if TYPE_CHECKING:
    import pyarrow

    from tfgraphreg.export import Predictor
    from tfgraphreg.graph.similarity import SimilarityGraph

logger = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".npz")
EDGE_SUFFIXES = (".parquet", ".tsv")
# From here on a class of several counts as seen in an image.
_SEEN = 0.5


@dataclasses.dataclass(frozen=True)
class Embedded:
    """N images as a model sees them: of all splits, training images first.

    Attributes:
        ids: `[N]` strings.
        splits: `[N]` strings: train, validation or test.
        labels: `[N]` int64, -1 where unknown, or `[N, C]` int8 with -1 in rows that are unknown;
            all that the dataset has, also those that were hidden from training.
        given: `[N]` bool: training used the label.
        probabilities: `[N, C]` float32.
        vectors: `[N, D]` float32, the embedding.
        class_names: C names.
    """

    ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    given: np.ndarray
    probabilities: np.ndarray
    vectors: np.ndarray
    class_names: tuple[str, ...]

    def to_arrow(self) -> pyarrow.Table:
        """The table of docs/handover.md, a row for each image."""
        import pyarrow

        names = np.array(self.class_names, object)
        if self.labels.ndim == 2:
            words = pyarrow.list_(pyarrow.string())
            known = [None if row[0] < 0 else names[row > 0].tolist() for row in self.labels]
            seen = [names[row >= _SEEN].tolist() for row in self.probabilities]
        else:
            words = pyarrow.string()
            known = [None if label == UNLABELED else names[label] for label in self.labels]
            seen = names[self.probabilities.argmax(axis=1)].tolist()
        columns = {
            "id": pyarrow.array(self.ids.tolist(), pyarrow.string()),
            "split": pyarrow.array(self.splits.tolist(), pyarrow.string()),
            "label": pyarrow.array(known, words),
            "given": pyarrow.array(self.given),
            "prediction": pyarrow.array(seen, words),
            "probability": pyarrow.array(self.probabilities.max(axis=1)),
            "probabilities": _lists(self.probabilities),
            "vector": _lists(self.vectors),
        }
        about = {"class_names": json.dumps(self.class_names)}
        return pyarrow.table(columns).replace_schema_metadata(about)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of docs/handover.md, by name."""
        return {
            "ids": self.ids.astype(str),
            "splits": self.splits,
            "labels": self.labels,
            "given": self.given,
            "probabilities": self.probabilities,
            "vectors": self.vectors,
            "class_names": np.array(self.class_names, str),
        }


def _lists(rows: np.ndarray) -> pyarrow.Array:
    import pyarrow

    flat = pyarrow.array(np.ascontiguousarray(rows, np.float32).ravel())
    return pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def write_embeddings(
    run: RunFolder,
    out: os.PathLike[str] | str,
    *,
    edges: os.PathLike[str] | str | None = None,
    progress: Progress = silent,
) -> Embedded:
    """Writes what a run's model makes of every image, and the edges of its training graph.

    Args:
        run: A finished run.
        out: File ending with .parquet or .npz.
        edges: File for the edges, ending with .parquet or .tsv; None for none.
        progress: Called while work goes on.

    Returns:
        What was written to `out`.

    Raises:
        ConfigError: If a file ends with anything else, or both are one.
        ModelError: If the run has no usable SavedModel.
        DataError: If its data cannot be loaded, or a file cannot be written.
    """
    target, beside = check_files(out, edges)
    from tfgraphreg.export import Predictor

    predictor = Predictor(run.export_path)
    dataset = load_data(run.config, progress)
    found = embedded(predictor, dataset, within_budget(run.config, dataset), progress)
    _write(found, target)
    logger.info(f"Embeddings: {target}, {len(found.ids)} images, width {found.vectors.shape[1]}")
    if beside is not None:
        from tfgraphreg.recipes.graphs import training_graph

        graph = training_graph(run.config, within_budget(run.config, dataset), progress)
        _write_edges(graph, dataset.train.ids, beside)
        logger.info(f"Edges: {beside}, {graph.num_edges} of {len(dataset.train)} training images")
    return found


def embedded(
    predictor: Predictor, dataset: Dataset, trained_on: Dataset, progress: Progress = silent
) -> Embedded:
    """Asks an exported model about every image of a dataset.

    Args:
        predictor: The model.
        dataset: The images with all their labels.
        trained_on: The same with the labels that training used.
        progress: Called while work goes on.
    """
    splits = {
        name: getattr(dataset, name)
        for name in ("train", "validation", "test")
        if len(getattr(dataset, name))
    }
    seen = [
        ask(predictor, split.images, dataset.multilabel, f"embedding {name} images", progress)
        for name, split in splits.items()
    ]
    sizes = [len(split) for split in splits.values()]
    given = np.zeros(sum(sizes), bool)
    given[: len(dataset.train)] = trained_on.train.labeled
    return Embedded(
        ids=np.concatenate([split.ids for split in splits.values()]),
        splits=np.repeat(list(splits), sizes),
        labels=np.concatenate([split.labels for split in splits.values()]),
        given=given,
        probabilities=np.concatenate([answer["probabilities"] for answer in seen]),
        vectors=np.concatenate([answer["embedding"] for answer in seen]),
        class_names=predictor.class_names,
    )


def check_files(
    out: os.PathLike[str] | str, edges: os.PathLike[str] | str | None
) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The files of `write_embeddings`.

    Raises:
        ConfigError: If one ends with what is not written, or both are one.
    """
    target = _checked("out", out, SUFFIXES)
    beside = None if edges is None else _checked("edges", edges, EDGE_SUFFIXES)
    if beside is not None and beside.absolute() == target.absolute():
        raise ConfigError("`out` and `edges` must be two files.", received=str(target))
    return target, beside


def _checked(setting: str, path: Any, suffixes: tuple[str, ...]) -> pathlib.Path:
    found = user_path(path)
    if found.suffix not in suffixes:
        raise ConfigError(
            f"`{setting}` must be a file that ends with {' or '.join(suffixes)}.",
            received=f"{setting}={str(path)[:200]}",
        )
    return found


def _write(found: Embedded, path: pathlib.Path) -> None:
    with atomic_path(path) as part:
        if path.suffix == ".npz":
            with open(part, "wb") as file:
                np.savez_compressed(file, **found.arrays())  # type: ignore[arg-type]
        else:
            _write_parquet(found.to_arrow(), part)


def _write_edges(graph: SimilarityGraph, ids: np.ndarray, path: pathlib.Path) -> None:
    if path.suffix == ".tsv":
        write_tsv(graph, ids, path)
        return
    write_parquet(graph, ids, path)


def _write_parquet(table: pyarrow.Table, path: pathlib.Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table, path, compression="zstd")
