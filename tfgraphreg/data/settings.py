"""The data of a run."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfgraphreg.settings import GIVEN, Effect, Settings, at_least, refuse, setting

BAD_IMAGE = ("error", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Which data a run is about; see `tfgraphreg.load_dataset`."""

    dataset: str = setting(
        "fashion_mnist",
        "dataset: fashion_mnist, mnist, cifar10, digits (needs no network), tfds:NAME, "
        "folder:PATH, tfrecord:PATH; with boxes and masks scenes, scenes:digits?n=100&size=64, "
        "voc:PATH",
    )
    data_dir: str | None = setting(
        None, "folder with the data: original IDX files, archives, or a prepared TFDS folder"
    )
    limit: int | None = setting(None, "use only the first N training images, for a quick try")
    labels_per_class: int | None = setting(
        None, "keep N labels a class; the other training images stay in the graph, unlabeled"
    )
    validation_fraction: float = setting(
        0.0, "share of the training images set aside to choose the best epoch by, in [0, 1)"
    )
    on_bad_image: str = setting(
        "error", "what to do about files that are no usable image", choices=BAD_IMAGE
    )
    cache_images: bool = setting(
        False, "decode the images of files once into a file in the cache, not at every use"
    )
    labels: str | None = setting(
        None,
        "CSV file (id, label) with the training labels, such as one that the page of `tfgraphreg "
        "suggest` saved; the other training images count as unlabeled",
    )
    drop: str | None = setting(
        None, "CSV file of `tfgraphreg audit`: leave out the training images whose action is drop"
    )
    relabel: str | None = setting(
        None,
        "as `drop`, but a label_error gives the image the class in the column suggested instead of "
        "leaving it out",
    )
    image_size: int | None = setting(
        None, "side in pixels that the backbone sees. Default: the images' own, if it can take them"
    )

    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(
            ("on_bad_image",),
            lambda all: all.dataset.startswith(("folder:", "voc:", "tfrecord:")),
            "`dataset=folder:PATH`, `dataset=voc:PATH` or `dataset=tfrecord:PATH`",
        ),
        Effect(
            ("cache_images",),
            lambda all: all.dataset.startswith(("folder:", "tfrecord:")),
            "`dataset=folder:PATH` or `dataset=tfrecord:PATH`",
        ),
        Effect(
            ("data_dir",),
            lambda all: (
                all.dataset != "digits"
                and not all.dataset.startswith(
                    ("folder:", "voc:", "tfrecord:", "scenes:digits", GIVEN)
                )
            ),
            "a dataset that is downloaded or prepared",
        ),
        Effect(
            ("limit", "validation_fraction", "labels", "drop", "relabel"),
            lambda all: not all.dataset.startswith(GIVEN),
            "a dataset that is loaded by name",
        ),
    )

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: If a value is out of range.
        """
        at_least(self, 1, "limit", "labels_per_class", "image_size")
        if self.labels is not None and self.labels_per_class is not None:
            refuse(
                "labels_per_class",
                "must not be given beside `labels`",
                self.labels_per_class,
                "The file says which labels there are.",
            )
        if self.relabel is not None:
            for other, cure in (
                ("drop", "`relabel` also leaves out what is no label error."),
                ("labels", "Change the labels in that file."),
            ):
                if getattr(self, other) is not None:
                    refuse(other, "must not be given beside `relabel`", getattr(self, other), cure)
        if not 0 <= self.validation_fraction < 1:
            refuse("validation_fraction", "must be in [0, 1)", self.validation_fraction, "Try 0.1.")
