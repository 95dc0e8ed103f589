"""What TensorBoard shows of a run."""

from __future__ import annotations

import pathlib

import numpy as np

from tfgraphreg.compat import tf
from tfgraphreg.training.history import Row

SCALARS = (
    "loss",
    "supervised_loss",
    "graph_loss",
    "accuracy",
    "val_accuracy",
    "val_loss",
    "pixel_accuracy",
    "val_mean_iou",
    "class_loss",
    "box_loss",
    "val_ap50",
    "effective_rank",
    "mean_pairwise_distance",
    "learning_rate",
    "images_per_second",
)
_GROUPS = {
    "loss": "loss/total",
    "supervised_loss": "loss/supervised",
    "graph_loss": "loss/graph",
    "effective_rank": "embedding/effective_rank",
    "mean_pairwise_distance": "embedding/mean_pairwise_distance",
}


class TensorBoardLog:
    """Scalars of each epoch, split by loss; a sheet of images with neighbors; HParams.

    Args:
        folder: tensorboard/ of the run folder.
        hparams: Names to numbers or strings, for the HParams tab.
        sheet: `[H, W, C]` uint8 picture, see `neighbor_sheet`, or None.
    """

    def __init__(self, folder: pathlib.Path, *, hparams: dict, sheet: np.ndarray | None = None):
        self._writer = tf.summary.create_file_writer(str(folder))
        with self._writer.as_default():
            _write_hparams(hparams)
            if sheet is not None:
                tf.summary.image(
                    "images_and_neighbors",
                    sheet[None],
                    step=0,
                    description="Each row: a training image, then its graph neighbors.",
                )
        self._writer.flush()

    def __call__(self, row: Row) -> None:
        """Writes the scalars of an epoch."""
        with self._writer.as_default():
            for name in SCALARS:
                if name in row:
                    tf.summary.scalar(_GROUPS.get(name, name), row[name], step=int(row["epoch"]))
        self._writer.flush()


def log_test(folder: pathlib.Path, metrics: dict) -> None:
    """Adds the test numbers of a finished run, which the HParams tab shows beside its settings."""
    names = (
        "test_accuracy",
        "test_mean_average_precision",
        "recall_at_1",
        "mean_average_precision",
        "test_mean_iou",
        "test_ap50",
        "test_ap",
        "test_pixel_accuracy",
    )
    with tf.summary.create_file_writer(str(folder)).as_default():
        for name in names:
            if isinstance(metrics.get(name), float):
                tf.summary.scalar(f"test/{name.removeprefix('test_')}", metrics[name], step=0)
        tf.summary.flush()


def _write_hparams(values: dict) -> None:
    try:
        from tensorboard.plugins.hparams import api
    except ImportError:  # TensorBoard is the viewer; a run does without it.
        return
    api.hparams(
        {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in values.items()}
    )


def neighbor_sheet(
    images: np.ndarray, neighbors: np.ndarray, *, rows: int = 12, seed: int = 0
) -> np.ndarray:
    """A picture of some images, each followed by its neighbors.

    Args:
        images: `[N, height, width, C]` uint8, or anything that indexes like it.
        neighbors: `[N, K]` indices, -1 where there is none.
        rows: How many images are drawn, without replacement.
        seed: Chooses them.

    Returns:
        `[height * rows, width * (K + 1), C]` uint8; black where there is no neighbor.
    """
    chosen = np.random.default_rng(seed).permutation(len(images))[:rows]
    height, width, channels = images.shape[1:]
    columns = neighbors.shape[1] + 1
    sheet = np.zeros((len(chosen), columns, height, width, channels), np.uint8)
    sheet[:, 0] = images[np.sort(chosen)]
    for row, index in enumerate(np.sort(chosen)):
        for column, neighbor in enumerate(neighbors[index], start=1):
            if neighbor >= 0:
                sheet[row, column] = images[np.array([neighbor])][0]
    return sheet.transpose(0, 2, 1, 3, 4).reshape(len(chosen) * height, columns * width, channels)
