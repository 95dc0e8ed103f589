"""From a dataset to audit.csv, audit.json and audit.html: what is wrong with images and labels."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.audit.findings import ISSUES, Audit, Finding, audit
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.data.joined import joined
from tfgraphreg.data.tables import table_text
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.graph.settings import kinds
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.features import graph_features
from tfgraphreg.recipes.material import prepare_data, prepare_graph
from tfgraphreg.search.index import LISTED_DISTANCES
from tfgraphreg.visualize.cards import Card, Cell, Group, write_cards

logger = logging.getLogger(__name__)

COLUMNS = ("id", "split", "issue", "score", "label", "suggested", "other", "action")
IMAGES = ("all", "train")
TABLE = "audit.csv"
_LOCK = ".audit.lock"
LISTED_FROM = 20_000
"""Images from which an audit searches neighbors by lists."""
_CARDS = 60
_NEIGHBORS = 5
# Title of each issue on the page, and what to do.
WORDS = {
    "label_error": (
        "Likely label errors",
        "The other images say that another class fits better. If they are right, correct the label "
        "or leave the action in audit.csv at drop; if the label is right, write keep there.",
    ),
    "leak": (
        "Leaks",
        "Training images with a copy outside the training images: what was trained on is measured "
        "by. Drop the training image; the other one stays.",
    ),
    "exact_duplicate": ("Exact duplicates", "Equal to the byte. One of them is enough."),
    "near_duplicate": (
        "Near duplicates",
        "Almost the same picture, saved or cut again, or two very similar things. If it is the "
        "same picture, one is enough.",
    ),
    "outlier": (
        "Outliers",
        "Far from their own neighbors. If the picture does not belong here, write drop in "
        "audit.csv.",
    ),
    "isolated": ("Isolated images", "No edge reaches them, so the graph cannot say anything."),
    "hub": (
        "Hubs",
        "Neighbors of very many images, usually plain or empty ones. Look whether they are "
        "pictures of anything.",
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Audited:
    """A dataset and what was found in it.

    Attributes:
        dataset: As it was loaded.
        items: The images that were looked at; findings count them from 0.
        splits: `[N]` the split of each.
        graph: Over them.
        found: The findings.
    """

    dataset: Dataset
    items: Split
    splits: np.ndarray
    graph: SimilarityGraph
    found: Audit

    def rows(self) -> Iterator[tuple[str, ...]]:
        """One row of `COLUMNS` for each finding; what does not apply is empty."""
        ids = self.items.ids
        for one in self.found.findings:
            yield (
                str(ids[one.item]),
                str(self.splits[one.item]),
                one.issue,
                f"{one.score:.4f}",
                self.label(one.item),
                self.dataset.class_names[one.suggested] if one.suggested >= 0 else "",
                str(ids[one.other]) if one.other >= 0 else "",
                one.action,
            )

    def label(self, item: int) -> str:
        """The class of an image in words, "" without one."""
        found, names = self.items.labels[item], self.dataset.class_names
        if np.ndim(found):
            return ";".join(names[c] for c in np.flatnonzero(found == 1))
        return names[found] if found >= 0 else ""

    def summary(self) -> dict[str, Any]:
        """What audit.json holds."""
        names = self.dataset.class_names
        return {
            "dataset": self.dataset.name,
            "source": self.dataset.source,
            "images": {name: int((self.splits == name).sum()) for name in np.unique(self.splits)},
            "classes": list(names),
            "counts": self.found.counts(),
            "blended_classes": [
                {"first": names[b.first], "second": names[b.second], "share": round(b.share, 4)}
                for b in self.found.blends
            ],
            "findings": [dict(zip(COLUMNS, row)) for row in self.rows()],
        }


def audit_dataset(
    config: TrainConfig,
    *,
    out: os.PathLike[str] | str | None = None,
    images: str | None = None,
    progress: Progress = silent,
) -> Audited:
    """Looks for wrong labels, copies and odd images in the config's dataset.

    Args:
        config: Dataset and graph; nothing else of it has an effect.
        out: Folder for audit.csv, audit.json and audit.html; None for none.
        images: ``"all"``: of all splits, also copies across them; ``"train"``: training images
            only. By default all, but with edges or vectors from a file those of training.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        ConfigError: If `images` is neither.
        DataError: If an audit.csv is there in which somebody has decided what to drop.
        TFGraphRegError: If the data, the graph or the folder is in the way.
    """
    folder = None if out is None else storage.user_path(out)
    if folder is not None:
        _keep_decisions(folder / TABLE)
    from_file = not kinds(config) or config.graph_features.startswith("file:")
    images = images or ("train" if from_file else "all")
    if images not in IMAGES:
        raise ConfigError(f"`images` must be one of {', '.join(IMAGES)}.", received=images)
    dataset, _ = prepare_data(config, progress)
    items, splits = dataset.train, np.full(len(dataset.train), "train")
    if images == "all":
        items, splits = joined(dataset)
    logger.info(f"Audit: {len(items)} images, those of {', '.join(dict.fromkeys(splits.tolist()))}")
    # As training images of a dataset of their own, whose features and graph are kept apart.
    whole = dataclasses.replace(
        dataset, train=items, checksum=storage.fingerprint([dataset.checksum, images])
    )
    graph, _ = prepare_graph(_searched(config, len(items)), whole, items.labels, progress)
    vectors = graph_features(config, whole, progress) if kinds(config) - {"class"} else None
    found = audit(
        graph,
        items.images,
        items.labels,
        dataset.num_classes,
        vectors=vectors,
        distance=config.graph_metric,
        splits=splits,
        progress=progress,
    )
    audited = Audited(dataset, items, splits, graph, found)
    if folder is not None:
        _write(audited, folder)
    return audited


def _searched(config: TrainConfig, images: int) -> TrainConfig:
    """The config with a search by lists where its own is `auto` and images are many.

    Most of the time of an audit would else be the exact search, of which it needs no more than the
    99.5% of neighbors that lists find.
    """
    listed = config.graph_metric in LISTED_DISTANCES and config.graph in ("knn", "mutual")
    if config.graph_search != "auto" or images < LISTED_FROM or not listed:
        return config
    return dataclasses.replace(config, graph_search="ivf")


def _keep_decisions(path: pathlib.Path) -> None:
    """Refuses to write over a table that was changed since it was written."""
    if not path.exists():
        return
    try:
        storage.check_note(path)
    except ValueError as error:
        raise DataError(
            f"{path} was changed since it was written, and another audit would write over it.",
            cure="Name another folder with `out`, or move the table away.",
        ) from error


def _write(audited: Audited, folder: pathlib.Path) -> None:
    files = [folder / name for name in (TABLE, "audit.json", "audit.html")]
    # Of two at once, the files must be of the same one.
    with storage.one_writer(folder / _LOCK, *files):
        storage.write_noted(files[0], table_text(COLUMNS, audited.rows()))
        storage.write_json(files[1], audited.summary())
        write_audit_page(audited, files[2])
    logger.info(f"Written: {folder}/audit.html (look first), audit.csv (for `drop`), audit.json")


def write_audit_page(audited: Audited, path: os.PathLike[str] | str) -> pathlib.Path:
    """Writes one HTML page with the pictures of the surest findings and of their neighbors."""
    nearest, _ = audited.graph.top(_NEIGHBORS)
    groups = []
    for issue in ISSUES:
        mine = [one for one in audited.found.findings if one.issue == issue]
        cards = [_card(audited, one, nearest) for one in mine[:_CARDS]]
        title, text = WORDS[issue]
        groups.append(Group(name=issue, title=title, text=text, total=len(mine), cards=cards))
    count = len(audited.items)
    notes = [f"{count} images of {audited.dataset.name} were looked at."]
    if not audited.found.findings:
        notes.append("Nothing was found.")
    if audited.found.label_errors is None:
        notes.append("Labels were not judged: that needs one class an image, and two of a class.")
    return write_cards(
        path,
        audited.items.images,
        groups,
        title=f"Audit of {audited.dataset.name}",
        notes=notes,
        tables=[_blend_table(audited)],
    )


def _card(audited: Audited, one: Finding, nearest: np.ndarray) -> Card:
    def cell(item: int, right: bool | None = None) -> Cell:
        return Cell(item=item, text=audited.label(item) or "unlabeled", right=right)

    def beside(item: int) -> Cell:
        labels = audited.label(one.item), audited.label(item)
        return cell(item, labels[0] == labels[1] if all(labels) else None)

    neighbors = [int(n) for n in nearest[one.item] if n >= 0 and n != one.other]
    cells = [cell(one.item)]
    if one.other >= 0:
        cells.append(beside(one.other))
    cells += [beside(n) for n in neighbors[: _NEIGHBORS + 1 - len(cells)]]
    return Card(name=str(audited.items.ids[one.item]), text=_sentence(audited, one), cells=cells)


def _sentence(audited: Audited, one: Finding) -> str:
    where = audited.splits[one.item]
    if one.issue == "label_error":
        names = audited.dataset.class_names
        fits = f"{names[one.suggested]} fits better than {audited.label(one.item)}"
        return f"{fits} (score {one.score:.3f}, {where})"
    if one.other >= 0:
        copy = f"{audited.items.ids[one.other]} ({audited.splits[one.other]})"
        return f"A copy of {copy}; difference {1 - one.score:.3f}; this one: {where}"
    if one.issue == "outlier":
        return f"{one.score:.1f} times as far from its neighbors as usual ({where})"
    if one.issue == "hub":
        return f"A neighbor of {one.score:.0f} images ({where})"
    return f"No neighbor ({where})"


def _blend_table(audited: Audited) -> dict[str, Any]:
    names = audited.dataset.class_names
    columns = [("class", None), ("and", None), ("share", 3)]
    return {
        "title": "Classes that run into each other",
        "note": "Share: of the edges within the two classes, by weight, those that join one to the "
        "other; 0.5 is a random mixture. Are the classes told apart the same way everywhere?",
        "columns": [{"name": name, "digits": digits, "signed": False} for name, digits in columns],
        "rows": [[names[b.first], names[b.second], b.share] for b in audited.found.blends],
    }
