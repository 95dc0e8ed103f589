"""Pascal VOC as a dataset of images with several classes, and with its boxes.

The development kit calls an image positive for a class if one of its objects of that class is
not difficult, and leaves an image out of that class's evaluation if all of them are difficult.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.data.tfds_features import MultiHotReader, multi_hot


class VocReader(MultiHotReader):
    """Reads labels, difficult classes and boxes.

    A label is 1 where a non-difficult object is present. The extras of a split are:

    * `difficult` `[N, C]` bool: all objects of the class are difficult. The label there is 0,
      but the image is neither positive nor negative for that class.
    * `boxes` `[N, M, 4]` float32: top, left, bottom, right as shares of the image, zeros where
      an image has fewer than M objects.
    * `box_classes` `[N, M]` int64: class numbers, -1 where there is no box.
    * `box_difficult` `[N, M]` bool.
    """

    def extras(self, example: dict) -> dict[str, np.ndarray]:
        """See the class."""
        count = len(self.class_names)
        anyhow, plain = (multi_hot(example[k], count) for k in ("labels", "labels_no_difficult"))
        objects = example["objects"]
        # Generated test data does not give every list the same length; real data does.
        boxes = min(len(objects[key]) for key in ("bbox", "label", "is_difficult"))
        return {
            "difficult": (anyhow == 1) & (plain == 0),
            "boxes": np.asarray(objects["bbox"][:boxes], np.float32),
            "box_classes": np.asarray(objects["label"][:boxes], np.int64),
            "box_difficult": np.asarray(objects["is_difficult"][:boxes], bool),
        }

    def stack_extras(self, rows: list[dict]) -> dict[str, np.ndarray]:
        """See the class."""
        widest = max((len(row["box_classes"]) for row in rows), default=0)
        boxes = np.zeros((len(rows), widest, 4), np.float32)
        classes = np.full((len(rows), widest), -1, np.int64)
        difficult = np.zeros((len(rows), widest), bool)
        for i, row in enumerate(rows):
            count = len(row["box_classes"])
            boxes[i, :count] = row["boxes"]
            classes[i, :count] = row["box_classes"]
            difficult[i, :count] = row["box_difficult"]
        shape = (len(rows), len(self.class_names))
        return {
            "difficult": np.array([row["difficult"] for row in rows], bool).reshape(shape),
            "boxes": boxes,
            "box_classes": classes,
            "box_difficult": difficult,
        }


def voc_labels(features: Any) -> VocReader:
    """The reader for the features of tensorflow-datasets' `voc`."""
    names = features["labels_no_difficult"].feature
    return VocReader(
        tuple(names.int2str(i) for i in range(names.num_classes)), "labels_no_difficult"
    )
