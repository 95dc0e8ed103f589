"""Search by picture: a FAISS index beside an exported model.

Shapes: N items, Q queries, K results, D width of the embedding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError, first_line
from tfgraphreg.evaluation.arrays import as_matrix
from tfgraphreg.evaluation.nearest import unit_rows
from tfgraphreg.storage import UNREADABLE_NPZ, atomic_folder, write_json
from tfgraphreg.visualize.thumbnails import thumbnails

FOLDER = "search"
METHODS = ("exact", "hnsw")
DISTANCES = ("cosine", "euclidean")
MAX_THUMBNAIL = 128
_FORMAT = 1
_SAMPLE = 500
_MAX_ITEMS = 100_000_000

Embed = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search gives.

    Attributes:
        ids: `[Q, K]` strings, nearest first; "" where the index has fewer than K items.
        labels: `[Q, K]` strings, "" where there is none.
        distances: `[Q, K]` float32, infinite where there is no item.
        positions: `[Q, K]` int64 places in the index, -1 where there is no item.
    """

    ids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    positions: np.ndarray


def model_fingerprint(folder: os.PathLike[str] | str) -> str:
    """A name for the content of a SavedModel: its graph and its weights.

    Raises:
        DataError: If there is no SavedModel in the folder.
    """
    folder = pathlib.Path(folder)
    if not (folder / "saved_model.pb").is_file():
        raise DataError(
            "An index belongs beside a SavedModel, and there is none.", received=str(folder)
        )
    digest = hashlib.sha256()
    for path in [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]:
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:20]


def check_choices(*, method: str, distance: str) -> None:
    """Refuses a kind of index that there is not.

    Raises:
        ConfigError: If an argument is none of `METHODS` or `DISTANCES`.
    """
    for name, value, known in (("method", method, METHODS), ("distance", distance, DISTANCES)):
        if value not in known:
            raise ConfigError(f"`{name}` must be one of {', '.join(known)}.", received=repr(value))


def saved_ids(model_folder: os.PathLike[str] | str) -> list[str]:
    """The ids in the index beside a model, also where it belongs to another model.

    Raises:
        DataError: If they cannot be read.
    """
    folder = pathlib.Path(model_folder) / FOLDER
    try:
        with np.load(folder / "items.npz", allow_pickle=False) as items:
            return [str(identity) for identity in items["ids"]]
    except UNREADABLE_NPZ as error:
        raise _damaged(folder, first_line(error)) from error


class Searcher:
    """Finds the nearest of many items by their embedding.

    Args:
        dim: D.
        method: ``"exact"``, or ``"hnsw"`` (Malkov and Yashunin 2018), which is fast and
            approximate; its recall is measured and kept in `recall`.
        distance: ``"cosine"`` or ``"euclidean"``.
        embed: Turns uint8 images `[B, height, width, channels]` into `[B, D]` embeddings;
            needed only to add or to search images.

    Raises:
        ConfigError: If an argument is none of these.
    """

    def __init__(
        self,
        dim: int,
        *,
        method: str = "exact",
        distance: str = "cosine",
        embed: Embed | None = None,
    ):
        check_choices(method=method, distance=distance)
        if dim < 1:
            raise ConfigError("`dim` must be at least 1.", received=f"dim={dim}")
        self.dim, self.method, self.distance, self.embed = dim, method, distance, embed
        self.recall = 1.0
        self._index = self._empty_index()
        self._ids: list[str] = []
        self._labels: list[str] = []
        self._known: set[str] = set()
        self._thumbnails: list[np.ndarray] = []
        # What `unit_rows` takes from the embeddings; None of an index that was saved without.
        self._lengths: list[np.ndarray] | None = []

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> np.ndarray:
        """`[N]` ids in the order in which they were added."""
        return np.array(self._ids, dtype=str)

    @property
    def thumbnails(self) -> np.ndarray | None:
        """`[N, height, width, channels]` uint8 in the order of `ids`, or None."""
        return np.concatenate(self._thumbnails) if self._thumbnails else None

    @property
    def labels(self) -> np.ndarray:
        """`[N]` labels in the order of `ids`, "" where there is none."""
        return np.array(self._labels, dtype=str)

    def embeddings(self, positions: Sequence[int]) -> np.ndarray | None:
        """`[K, D]` float32 embeddings of the items at K places, up to rounding.

        None if they are not known: an index by cosine distance that was saved before it kept
        the lengths of embeddings has their directions only.
        """
        rows = np.asarray(self._index.reconstruct_batch(np.asarray(positions, np.int64)))
        if self.distance != "cosine":
            return rows
        if self._lengths is None:
            return None
        return rows[:, : self.dim] * _joined(self._lengths)[positions][:, None]

    def add(
        self,
        ids: Sequence[str] | np.ndarray,
        *,
        embeddings: np.ndarray | None = None,
        images: np.ndarray | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Adds items to the index as it is, without building it again.

        Args:
            ids: N strings that are new to the index.
            embeddings: `[N, D]`; made from `images` by `embed` if not given.
            images: `[N, height, width, channels]` uint8. They are kept as thumbnails, halved
                until no side is above 128 pixels. Either all items of an index have one or
                none.
            labels: N strings, such as class names, which a search gives back.

        Raises:
            DataError: If an id is there already or arrays do not fit; nothing is added then.
        """
        ids = [str(identity) for identity in ids]
        embeddings = self._embeddings(embeddings, images, "embeddings")
        if len(embeddings) != len(ids):
            raise DataError(
                "Every item needs an id.", received=f"{len(embeddings)} items, {len(ids)} ids"
            )
        labels = [""] * len(ids) if labels is None else [str(label) for label in labels]
        if len(labels) != len(ids):
            raise DataError(
                "Every item needs a label, or none has one.",
                received=f"{len(labels)} labels, {len(ids)} items",
            )
        new = set(ids)
        if len(new) < len(ids) or new & self._known:
            twice = sorted(new & self._known) or sorted(i for i in new if ids.count(i) > 1)
            raise DataError("Ids in an index must differ.", received=f"{twice[0]!r} more than once")
        small = None if images is None else _small(images, len(ids))
        self._check_thumbnails(small)
        if not ids:
            return
        self._index.add(self._rows(embeddings))
        if self._lengths is not None:
            self._lengths.append(np.linalg.norm(embeddings, axis=1).astype(np.float32))
        self._ids += ids
        self._labels += labels
        self._known |= new
        if small is not None:
            self._thumbnails.append(small)
        if self.method == "hnsw":
            self.recall = self._measure_recall()

    def search(
        self,
        embeddings: np.ndarray | None = None,
        *,
        images: np.ndarray | None = None,
        k: int = 10,
    ) -> Found:
        """The `k` nearest items of each query.

        Args:
            embeddings: `[Q, D]`; made from `images` by `embed` if not given.
            images: `[Q, height, width, channels]` uint8.
            k: At least 1.
        """
        if k < 1:
            raise ConfigError("`k` must be at least 1.", received=f"k={k}")
        queries = self._embeddings(embeddings, images, "queries")
        if not len(queries):
            empty = np.empty((0, k))
            words = empty.astype(str)
            return Found(words, words, empty.astype(np.float32), empty.astype(np.int64))
        values, positions = self._index.search(self._rows(queries), k)
        missing = positions < 0
        values = np.maximum(values, 0)
        # Between rows of length one the squared distance is twice the cosine distance.
        values = values / 2 if self.distance == "cosine" else np.sqrt(values)
        # The -1 of a missing item takes the empty string at the end.
        ids, labels = (np.array([*v, ""], dtype=str)[positions] for v in (self._ids, self._labels))
        values = np.where(missing, np.inf, values).astype(np.float32)
        return Found(ids, labels, values, positions)

    def save(self, model_folder: os.PathLike[str] | str) -> pathlib.Path:
        """Writes the index into `<model_folder>/search`, whole or not at all.

        The folder holds index.faiss, items.npz (ids, labels, thumbnails, lengths of embeddings)
        and meta.json, which names the model that the index belongs to. Gives the folder.
        """
        import faiss

        meta = {
            "format": _FORMAT,
            "model": model_fingerprint(model_folder),
            "dim": self.dim,
            "method": self.method,
            "distance": self.distance,
            "recall": self.recall,
            "items": len(self),
            "thumbnails": bool(self._thumbnails),
        }
        folder = pathlib.Path(model_folder) / FOLDER
        with atomic_folder(folder) as part:
            faiss.write_index(self._index, str(part / "index.faiss"))
            arrays = {"ids": self.ids, "labels": self.labels}
            if self._thumbnails:
                arrays["thumbnails"] = self.thumbnails
            if self._lengths is not None:
                arrays["lengths"] = _joined(self._lengths)
            np.savez(part / "items.npz", **arrays)
            write_json(part / "meta.json", meta)
        return folder

    @classmethod
    def load(cls, model_folder: os.PathLike[str] | str, *, embed: Embed | None = None) -> Searcher:
        """Reads the index that was saved beside a SavedModel.

        Raises:
            DataError: If there is none, it is damaged, or it belongs to another model.
        """
        import faiss

        folder = pathlib.Path(model_folder) / FOLDER
        meta = _read_meta(folder)
        if meta["model"] != model_fingerprint(model_folder):
            raise DataError(
                "The search index does not belong to this model.",
                received=f"an index of model {meta['model']} in {folder}",
                cure="Build the index again with this model: `rebuild=True`.",
            )
        try:
            made = cls(meta["dim"], method=meta["method"], distance=meta["distance"], embed=embed)
            made._index = faiss.read_index(str(folder / "index.faiss"))
            with np.load(folder / "items.npz", allow_pickle=False) as items:
                made._ids = [str(identity) for identity in items["ids"]]
                made._labels = [str(label) for label in items["labels"]]
                if meta["thumbnails"]:
                    made._thumbnails = [items["thumbnails"]]
                made._lengths = None
                if "lengths" in items:
                    made._lengths = [np.asarray(items["lengths"], np.float32).reshape(-1)]
            made.recall = float(meta["recall"])
        except UNREADABLE_NPZ as error:
            raise _damaged(folder, first_line(error)) from error
        made._known = set(made._ids)
        sizes = {made._index.ntotal, len(made._ids), len(made._known), meta["items"]}
        sizes.add(len(made._labels))
        sizes |= {len(t) for t in [*made._thumbnails, *(made._lengths or [])]}
        if len(sizes) > 1 or made._index.d != made._empty_index().d:
            raise _damaged(folder, "its files do not fit together")
        return made

    def _empty_index(self) -> Any:
        import faiss

        # Rows of cosine have a column more, see `unit_rows`.
        width = self.dim + (self.distance == "cosine")
        if self.method == "exact":
            return faiss.IndexFlatL2(width)
        index = faiss.IndexHNSWFlat(width, 32)
        index.hnsw.efConstruction = 80
        index.hnsw.efSearch = 96
        return index

    def _rows(self, embeddings: np.ndarray) -> np.ndarray:
        return unit_rows(embeddings) if self.distance == "cosine" else embeddings

    def _embeddings(self, embeddings, images, name: str) -> np.ndarray:
        if embeddings is None:
            if images is None or self.embed is None:
                raise ConfigError(
                    "A search needs `embeddings`, or `images` and a Searcher with `embed`."
                )
            embeddings = self.embed(np.asarray(images))
        embeddings = as_matrix(name, embeddings)
        if embeddings.shape[1] != self.dim:
            raise DataError(
                f"`{name}` must have the width of the index.",
                received=f"{embeddings.shape[1]} and {self.dim}",
                cure="Use the model that the index was built with.",
            )
        return embeddings

    def _check_thumbnails(self, small: np.ndarray | None) -> None:
        if not len(self):
            return
        before = self._thumbnails[0].shape[1:] if self._thumbnails else None
        now = None if small is None else small.shape[1:]
        if before != now:
            raise DataError(
                "All items of an index need images of one size, or none.",
                received=f"{now} after {before}",
            )

    def _measure_recall(self) -> float:
        """Share of the true ten nearest of a sample of items that the index finds."""
        import faiss

        k = min(10, len(self))
        sample = np.random.default_rng(0).permutation(len(self))[:_SAMPLE]
        # Packages that extend FAISS for PyTorch let it give tensors.
        rows = np.asarray(self._index.reconstruct_n(0, len(self)))
        _, found = self._index.search(rows[sample], k)
        exact = faiss.IndexFlatL2(rows.shape[1])
        exact.add(rows)
        _, truth = exact.search(rows[sample], k)
        hits = sum(len(np.intersect1d(f, t)) for f, t in zip(found, truth))
        return hits / truth.size


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *parts])


def _small(images: np.ndarray, count: int) -> np.ndarray:
    small = thumbnails(np.asarray(images), most=MAX_THUMBNAIL)
    if len(small) != count:
        raise DataError("Every item needs an image.", received=f"{len(small)} of {count}")
    return small


def _read_meta(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        raise DataError(
            "There is no search index beside this model.",
            received=str(folder),
            cure="Build one with `tfgraphreg search`.",
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"dim": int, "items": int, "model": str, "method": str, "distance": str}
        fits = all(isinstance(meta[name], kind) for name, kind in kinds.items())
        fits = fits and meta["format"] == _FORMAT and 0 <= meta["items"] <= _MAX_ITEMS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, "meta.json cannot be read") from error
    if not fits:
        raise _damaged(folder, "meta.json has values that cannot be")
    return meta


def _damaged(folder: pathlib.Path, why: str) -> DataError:
    return DataError(
        "The search index is damaged.",
        received=f"{folder}: {why}",
        cure="Build it again: `rebuild=True`.",
    )
