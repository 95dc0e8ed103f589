"""Networks of masks, their runs and their loss by loops, for the tests of `task=segment`."""

import numpy as np

from tfgraphreg import TrainConfig
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.backbones.pyramid import build_pyramid
from tfgraphreg.compat import tf
from tfgraphreg.model.segmenter import COARSEST, build_segmenter

SCENES = "scenes:digits?n=48&test=12&size=32"
LARGER = "scenes:digits?n=32&test=8&size=48"


class Stopped(Exception):
    """What a test stops a training by."""


def network(shape=(32, 32, 3), classes=3):
    """A small segmenter."""
    backbone = build_backbone("cnn_pyramid", input_shape=shape)
    return build_segmenter(
        build_pyramid(backbone, coarsest=COARSEST), embedding_dim=8, num_classes=classes
    )


def dice_by_loops(masks, probabilities):
    """1 - the mean soft Dice coefficient, pixel by pixel."""
    classes = probabilities.shape[-1]
    both, either = np.ones(classes), np.ones(classes)
    for place in np.argwhere(masks != 255):
        for c in range(classes):
            found, true = probabilities[(*place, c)], masks[tuple(place)] == c
            both[c] += 2 * found * true
            either[c] += found + true
    return 1 - (both / either).mean()


def loss_of_scores(scores, seen):
    """Cross-entropy plus half the Dice loss of masks `seen`, of which 255 does not count."""
    logits = tf.image.resize(scores, seen.shape[1:])
    counted = seen != 255
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        np.where(counted, seen, 0).astype(int), logits
    )
    dice = dice_by_loops(seen, tf.nn.softmax(logits).numpy())
    return losses.numpy()[counted].mean() + dice / 2


def config(tmp_path, name, **settings):
    """A short run of masks in the folder `name`."""
    return TrainConfig(
        **{
            "dataset": SCENES,
            "task": "segment",
            "epochs": 2,
            "batch_size": 16,
            "min_steps": 1,
            "graph_neighbors": 3,
            "run_dir": str(tmp_path / name),
            "export_dir": str(tmp_path / f"{name}_model"),
            **settings,
        }
    )
