"""What a search index holds and is asked: whole images, or regions that a detector finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.local import local_splits
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.average_precision import SURE
from tfgraphreg.evaluation.detection import box_iou
from tfgraphreg.export import BoxPredictor, Detection, Predictor
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.regions import cut_out
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.runs.outputs import ask, load_data, measured_by

NO_OBJECT = "no object"
"""The label of a region in which no true object is."""

_BLOCK = 100
_SAME_OBJECT = 0.5


@dataclasses.dataclass(frozen=True)
class Items:
    """N items for an index.

    Attributes:
        ids: N names.
        embeddings: `[N, D]`.
        images: `[N, height, width, channels]` uint8.
        labels: N class names, or None.
    """

    ids: Sequence[str] | np.ndarray
    embeddings: np.ndarray
    images: np.ndarray
    labels: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True)
class Query:
    """What an image file asks for.

    Attributes:
        guess: The class that the model sees.
        image: `[height, width, channels]` uint8.
        embedding: `[D]`.
        region: The part of the file that is meant; None for all of it.
    """

    guess: str
    image: np.ndarray
    embedding: np.ndarray
    region: Detection | None = None


class Indexed(Protocol):
    """What is searched.

    Attributes:
        what: Names the items in a title.
        votes: Whether an item has one class, so that the nearest can vote.
    """

    what: str
    votes: bool

    @property
    def class_names(self) -> Sequence[str]:
        """The classes that the model can see."""

    @property
    def dim(self) -> int:
        """D."""

    def training(self, run: RunFolder, progress: Progress) -> Items:
        """The items of the training images of a run."""

    def of_files(self, paths: Sequence[str]) -> Items:
        """The items of image files, without labels. DataError of the first unusable file."""

    def query(self, path: str) -> Query:
        """What a file asks for. DataError if it cannot be used."""


class WholeImages:
    """Images by the embedding of a classifier."""

    what = "images"

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.votes = not predictor.meta.get("multilabel")

    @property
    def class_names(self) -> Sequence[str]:
        """See `Indexed`."""
        return self.predictor.class_names

    @property
    def dim(self) -> int:
        """D."""
        return self.predictor.embedding_dim

    def training(self, run: RunFolder, progress: Progress) -> Items:
        """See `Indexed`."""
        data = measured_by(run.config, load_data(run.config, progress))
        train = data.train
        what = "embedding training images"
        found = ask(self.predictor, train.images, data.multilabel, what, progress)
        labels = labels_in_words(data, train.labels)
        return Items(train.ids, found["embedding"], train.images, labels)

    def of_files(self, paths: Sequence[str]) -> Items:
        """See `Indexed`."""
        images = np.stack([self.predictor.read(path) for path in paths])
        return Items(list(paths), self.predictor(images)["embedding"], images)

    def query(self, path: str) -> Query:
        """See `Indexed`."""
        image = self.predictor.read(path)
        outputs = self.predictor.ask(image)
        guess = self.predictor.class_names[int(outputs["probabilities"].argmax())]
        return Query(guess, image, outputs["embedding"])


class Regions:
    """Regions that a detector finds with a score of 0.3 or more, by their embeddings.

    Ids are those of the image with `#` and the number of the region, the best first. A training
    region has the class of the object that it overlaps by IoU 0.5 or more, or `NO_OBJECT`.

    Args:
        predictor: The detector.
        region: Which region of a query is meant, from 1 on.

    Raises:
        ConfigError: If `region` is less than 1.
    """

    what = "regions"
    votes = False

    def __init__(self, predictor: BoxPredictor, region: int = 1):
        if region < 1:
            raise ConfigError("`region` must be at least 1.", received=f"region={region}")
        self._predictor, self._region = predictor, region

    @property
    def class_names(self) -> Sequence[str]:
        """See `Indexed`."""
        return self._predictor.class_names

    @property
    def dim(self) -> int:
        """D."""
        return self._predictor.embedding_dim

    def training(self, run: RunFolder, progress: Progress) -> Items:
        """See `Indexed`."""
        data = load_data(run.config, progress)
        train = local_splits(data)[0]
        parts: list[tuple[str, np.ndarray, np.ndarray, str]] = []
        for start in range(0, len(train), _BLOCK):
            images = np.asarray(train.images[start : start + _BLOCK])
            for row, found in enumerate(self._found(images)):
                objects = train.objects[start + row]
                for number, (box, _, _, embedding) in _distinct(found):
                    overlap = box_iou(box[None], objects.boxes)[0]
                    label = NO_OBJECT
                    if overlap.max(initial=0) >= _SAME_OBJECT:
                        label = data.class_names[objects.classes[overlap.argmax()]]
                    name = f"{train.ids[start + row]}#{number}"
                    parts.append((name, embedding, cut_out(images[row], box), label))
            progress("regions of training images", min(start + _BLOCK, len(train)), len(train))
        if not parts:
            raise DataError(
                f"The model finds nothing in the training images with a score of {SURE:g} or more, "
                "so there is nothing to search.",
                cure="Train it longer.",
            )
        ids, embeddings, images, labels = zip(*parts)
        return Items(ids, np.stack(embeddings), np.stack(images), labels)

    def of_files(self, paths: Sequence[str]) -> Items:
        """See `Indexed`."""
        ids, embeddings, images = [], [], []
        for path in paths:
            image = self._predictor.read(path)
            for number, (box, _, _, embedding) in _distinct(self._of(path, image)):
                ids.append(f"{path}#{number}")
                embeddings.append(embedding)
                images.append(cut_out(image, box))
        return Items(ids, np.stack(embeddings), np.stack(images))

    def query(self, path: str) -> Query:
        """See `Indexed`."""
        image = self._predictor.read(path)
        found = self._of(path, image)
        if len(found) < self._region:
            raise DataError(
                f"{path} has {len(found)} region(s) with a score of {SURE:g} or more.",
                received=f"region={self._region}",
                cure=f"Use at most {len(found)}.",
            )
        box, number, score, embedding = found[self._region - 1]
        guess = self._predictor.class_names[number]
        whole = self._predictor.read_whole(path)
        scale = [whole.shape[1] / image.shape[1], whole.shape[0] / image.shape[0]] * 2
        region = Detection(guess, float(score), tuple((box * scale).tolist()))
        return Query(guess, cut_out(image, box), embedding, region)

    def _of(self, path: str, image: np.ndarray) -> list[tuple[Any, ...]]:
        (found,) = self._found(image[None])
        if not found:
            raise DataError(f"Nothing is found in {path} with a score of {SURE:g} or more.")
        return found

    def _found(self, images: np.ndarray) -> Iterator[list[tuple[Any, ...]]]:
        """Of each image the box, class number, score and embedding of its regions, best first."""
        answer = self._predictor(images)
        names = ("boxes", "classes", "scores", "embedding")
        for count, *parts in zip(answer["count"], *(answer[name] for name in names)):
            rows = zip(*(part[:count] for part in parts))
            yield [row for row in rows if row[2] >= SURE]


def _distinct(found: list[tuple[Any, ...]]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Regions with their numbers from 1 on; one that is reported for several classes once."""
    seen = set()
    for number, row in enumerate(found, start=1):
        mark = row[3].tobytes()
        if mark not in seen:
            seen.add(mark)
            yield number, row


def labels_in_words(data: Dataset, labels: np.ndarray) -> list[str]:
    """The class names of each image; "" where there is none."""
    return [_words(label, data.class_names) for label in labels]


def _words(label: np.ndarray, names: Sequence[str]) -> str:
    if np.ndim(label):
        return ", ".join(names[c] for c in np.flatnonzero(label > 0).tolist())
    return names[int(label)] if label >= 0 else ""
