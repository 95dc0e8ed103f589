"""Search by picture: items with ids, labels and thumbnails in an index beside an exported model.

Shapes: N items, Q queries, K results, D width of the embedding.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.search.index import Index
from tfgraphreg.search.measured import as_matrix
from tfgraphreg.search.ranking import nearest
from tfgraphreg.search.saved import (
    FOLDER,
    damaged,
    model_fingerprint,
    read_calibration,
    read_index,
    read_meta,
    steady_index,
    write_index,
)
from tfgraphreg.search.threshold import Calibration, accepting_limit, check_share
from tfgraphreg.search.vote import vote
from tfgraphreg.visualize.thumbnails import thumbnails

DISTANCES = ("cosine", "euclidean")
MAX_THUMBNAIL = 128
# Results that may be asked for, whatever the number of items.
_MOST_RESULTS = 1000

Embed = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search gives.

    Attributes:
        ids: `[Q, K]` strings, nearest first; "" where the index has fewer than K items.
        labels: `[Q, K]` strings, "" where there is none.
        distances: `[Q, K]` float32, infinite where there is no item.
        positions: `[Q, K]` int64 places in the index, -1 where there is no item.
        unknown: `[Q]` bool: whether every item is farther than the limit of `Searcher.calibrate`;
            None if there is no limit.
    """

    ids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    positions: np.ndarray
    unknown: np.ndarray | None = None

    def vote(self) -> tuple[np.ndarray, np.ndarray]:
        """`[Q]` labels that weigh most among the K nearest, and `[Q]` their shares of the weight.

        See `tfgraphreg.search.vote.vote`.
        """
        return vote(self.labels, self.distances)


class Searcher:
    """Finds the nearest of many items by their embedding.

    Args:
        dim: D.
        method: ``"exact"``; ``"ivf"`` or ``"hnsw"``, which are fast and approximate: their recall
            is measured and kept in `recall`. See `tfgraphreg.search.index.build_index`.
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
        if distance not in DISTANCES:
            raise ConfigError(
                f"`distance` must be one of {', '.join(DISTANCES)}.", received=repr(distance)
            )
        self.dim, self.method, self.distance, self.embed = dim, method, distance, embed
        self._index = Index(dim, method=method, distance=distance)
        self._ids: list[str] = []
        self._labels: list[str] = []
        self._known: set[str] = set()
        self._thumbnails: list[np.ndarray] = []
        # What `unit_rows` takes from the embeddings; None of an index that was saved without.
        self._lengths: list[np.ndarray] | None = []
        self._calibration: Calibration | None = None
        self._limit: float | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"Searcher({len(self):,} items, {self.method}, {self.distance}, dim={self.dim})"

    @property
    def recall(self) -> float:
        """Share of the true ten nearest that a search finds, as measured; 1 if exact."""
        return self._index.recall

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

    def embeddings(self, positions: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """`[K, D]` float32 embeddings of the items at K places, up to rounding.

        None if they are not known: an index by cosine distance that was saved before it kept
        the lengths of embeddings has their directions only.
        """
        rows = self._index.vectors(np.asarray(positions))
        if self.distance != "cosine":
            return rows
        if self._lengths is None:
            return None
        return rows * _joined(self._lengths)[positions][:, None]

    def add(
        self,
        ids: Sequence[str] | np.ndarray,
        *,
        embeddings: np.ndarray | None = None,
        images: np.ndarray | None = None,
        labels: Sequence[str] | np.ndarray | None = None,
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
        counts = collections.Counter(ids)
        twice = next((i for i, count in counts.items() if count > 1 or i in self._known), None)
        if twice is not None:
            raise DataError(
                "Ids in an index must differ.", received=f"{twice[:120]!r} more than once"
            )
        small = None if images is None else _small(images, len(ids))
        self._check_thumbnails(small)
        if not ids:
            return
        self._index.add(embeddings)
        # What lies near to what was added is no longer far from everything.
        self._limit = None
        if self._lengths is not None:
            self._lengths.append(np.linalg.norm(embeddings, axis=1).astype(np.float32))
        self._ids += ids
        self._labels += labels
        self._known |= counts.keys()
        if small is not None:
            self._thumbnails.append(small)

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
            k: From 1 to the number of items, or to 1000 where there are fewer.

        Raises:
            ConfigError: If `k` is out of range.
            DataError: If the queries do not fit.
        """
        most = max(len(self), _MOST_RESULTS)
        if not 1 <= k <= most:
            raise ConfigError(
                "`k` must be at least 1."
                if k < 1
                else "`k` must be at most the number of items in the index, or 1000.",
                received=f"k={k}",
                cure=None if k < 1 else f"Use at most {most}.",
            )
        queries = self._embeddings(embeddings, images, "queries")
        if not len(queries):
            empty = np.empty((0, k))
            words = empty.astype(str)
            none = None if self._calibration is None else np.empty(0, bool)
            return Found(words, words, empty.astype(np.float32), empty.astype(np.int64), none)
        values, positions = self._index.search(queries, k)
        # The -1 of a missing item takes the empty string at the end.
        ids, labels = (np.array([*v, ""], dtype=str)[positions] for v in (self._ids, self._labels))
        limit = self.limit
        unknown = None if limit is None else values[:, 0] > np.float32(limit)
        return Found(ids, labels, values, positions, unknown)

    def calibrate(
        self,
        share: float,
        *,
        embeddings: np.ndarray | None = None,
        images: np.ndarray | None = None,
        labels: Sequence[str] | np.ndarray | None = None,
        source: str = "images",
    ) -> None:
        """Sets the limit beyond which a query is unknown, by images that the index does not hold.

        The score of a query is its distance to the nearest item (Sun et al. 2022,
        arXiv:2204.06507, with k = 1, so that one added item is enough to make a class known). The
        limit is kept with the index, and set anew when items are added.

        Args:
            share: Of such images that are accepted, above 0; 1 takes the limit away.
            embeddings: `[M, D]` of images of known classes, of which 5,000 are kept by chance;
                those of the last calibration if neither this nor `images` is given.
            images: `[M, height, width, channels]` uint8, for `embed`.
            labels: M class names.
            source: What images they are, in words.

        Raises:
            ConfigError: If `share` is out of range, or there is nothing to calibrate by.
            DataError: If arrays do not fit, or there are too few images for the share.
        """
        check_share(share)
        before = self._calibration
        if share == 1:
            self._calibration = self._limit = None
            return
        if embeddings is None and images is None and before is not None:
            made = dataclasses.replace(before, share=float(share))
        else:
            rows = self._embeddings(embeddings, images, "embeddings")
            made = Calibration.of(share, rows, labels, source)
        self._limit = accepting_limit(self._to_nearest(made.embeddings), made.share)
        self._calibration = made

    @property
    def calibration(self) -> Calibration | None:
        """By what the limit was set, or None."""
        return self._calibration

    @property
    def limit(self) -> float | None:
        """The distance to the nearest item beyond which a query is unknown; None: no query is."""
        if self._calibration is not None and self._limit is None:
            distances = self._to_nearest(self._calibration.embeddings)
            self._limit = accepting_limit(distances, self._calibration.share)
        return self._limit

    def _to_nearest(self, embeddings: np.ndarray) -> np.ndarray:
        return self._index.search(embeddings, 1)[0][:, 0]

    def nearest_of_each_label(self, embeddings: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The distance to the nearest item of each label, by an exact search.

        Args:
            embeddings: `[Q, D]`.

        Returns:
            G labels in alphabetical order, without ""; `[Q, G]` float32 distances.
        """
        embeddings, labels = self._embeddings(embeddings, None, "embeddings"), self.labels
        names = sorted(set(self._labels) - {""})
        found = np.empty((len(embeddings), len(names)), np.float32)
        for column, name in enumerate(names):
            rows = self._index.vectors(np.flatnonzero(labels == name))
            for part, _, distances in nearest(embeddings, rows, 1, distance=self.distance):
                found[part, column] = distances[:, 0]
        return names, found

    def save(self, model_folder: os.PathLike[str] | str) -> pathlib.Path:
        """Writes the index into `<model_folder>/search`, whole or not at all.

        The folder holds index.faiss, items.npz (ids, labels, thumbnails, lengths of embeddings),
        known.npz if there is a limit (what it was set by), and meta.json, which names the model
        that the index belongs to. Gives the folder.
        """
        folder = pathlib.Path(model_folder) / FOLDER
        arrays = {"ids": self.ids, "labels": self.labels}
        if self.thumbnails is not None:
            arrays["thumbnails"] = self.thumbnails
        if self._lengths is not None:
            arrays["lengths"] = _joined(self._lengths)
        write_index(
            folder,
            self._index,
            arrays,
            {"model": model_fingerprint(model_folder)},
            calibration=self._calibration,
            limit=self.limit or 0.0,
        )
        return folder

    @classmethod
    def load(cls, model_folder: os.PathLike[str] | str, *, embed: Embed | None = None) -> Searcher:
        """Reads the index that was saved beside a SavedModel.

        Raises:
            DataError: If there is none, it is damaged, or it belongs to another model.
        """
        folder = pathlib.Path(model_folder) / FOLDER
        with steady_index(folder) as at:
            meta = read_meta(folder, at)
            if meta["model"] != model_fingerprint(model_folder):
                raise DataError(
                    "The search index does not belong to this model.",
                    received=f"an index of model {meta['model'][:40]} in {folder}",
                    cure="Build the index again with this model: `rebuild=True`.",
                )
            index, arrays = read_index(folder, at, meta)
            kept = read_calibration(folder, at, meta)
        if {"ids", "labels"} - arrays.keys() or index.distance not in DISTANCES:
            raise damaged(folder, "items.npz lacks what an index needs")
        made = cls(index.dim, method=index.method, distance=index.distance, embed=embed)
        made._index = index
        made._ids = arrays["ids"].astype(str).tolist()
        made._labels = arrays["labels"].astype(str).tolist()
        made._known = set(made._ids)
        if len(made._known) < len(made):
            raise damaged(folder, "two items have one id")
        if "thumbnails" in arrays:
            made._thumbnails = [arrays["thumbnails"]]
        lengths = arrays.get("lengths")
        made._lengths = None if lengths is None else [lengths.astype(np.float32).reshape(-1)]
        made._calibration, made._limit = kept or (None, None)
        return made

    def _embeddings(
        self, embeddings: np.ndarray | None, images: np.ndarray | None, name: str
    ) -> np.ndarray:
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


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *parts])


def _small(images: np.ndarray, count: int) -> np.ndarray:
    small = thumbnails(np.asarray(images), most=MAX_THUMBNAIL)
    if len(small) != count:
        raise DataError("Every item needs an image.", received=f"{len(small)} of {count}")
    return small
