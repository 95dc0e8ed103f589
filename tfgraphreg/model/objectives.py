"""Supervised losses, one value a row."""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import load_addons, tf
from tfgraphreg.errors import ConfigError

# Losses on the logits, which need no further package.
BASIC = ("auto", "softmax", "sigmoid")


def check_objective(objective: str, *, multilabel: bool) -> None:
    """Refuses an objective that this stack or these labels do not support.

    Raises:
        ConfigError: If it needs one class an image and labels are multi-hot, or the reverse.
        MissingExtraError: If tensorflow-addons is not installed.
    """
    if multilabel and objective not in ("auto", "sigmoid"):
        what = "A softmax loss" if objective == "softmax" else "A metric-learning objective"
        raise ConfigError(
            f"{what} needs one class an image, and these labels are multi-hot.",
            received=f"objective={objective}",
            cure="Use the objective sigmoid, or auto.",
        )
    if not multilabel and objective == "sigmoid":
        raise ConfigError(
            "A sigmoid loss needs multi-hot labels, and these are class numbers.",
            received=f"objective={objective}",
            cure="Use the objective softmax, or auto.",
        )
    if objective not in BASIC:
        load_addons()


def class_losses(labels: tf.Tensor, logits: tf.Tensor, *, multilabel: bool) -> tf.Tensor:
    """Cross-entropy of each row: a softmax, or a sigmoid for each class, mean over the classes.

    Args:
        labels: `[B]` class numbers or `[B, C]` multi-hot rows, -1 marks an unlabeled row; or
            `[B, C]` shares of classes where one image has one class but was mixed.
        logits: `[B, C]`.
        multilabel: Whether a row may have several classes.

    Returns:
        `[B]` losses, 0 for unlabeled rows.

    Raises:
        ConfigError: If labels are rows of whole numbers and `multilabel` is false.
    """
    if multilabel:
        labeled = tf.cast(labels[:, 0] >= 0, tf.float32)
        targets = tf.cast(tf.maximum(labels, 0), tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return labeled * tf.reduce_mean(losses, axis=-1)
    if labels.shape.rank == 2:
        if not labels.dtype.is_floating:
            raise ConfigError(
                "A softmax loss needs one class an image.",
                received=f"labels of shape {labels.shape}, one-hot or multi-hot",
                cure="Turn one-hot rows into numbers (tfgraphreg.data.dataset.class_numbers), or "
                "pass multilabel=True for several classes an image.",
            )
        # Soft labels, which MixUp and CutMix make.
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    return losses * tf.cast(labels >= 0, tf.float32)


def metric_learning(objective: str, labels: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
    """A loss of tensorflow-addons over the labeled rows of the batch, a scalar.

    It is 0 for a batch without two rows of one class or without two classes, for which these losses
    are undefined (tensorflow-addons returns NaN).
    """
    labeled = labels >= 0
    labels, embedding = labels[labeled], tf.boolean_mask(embedding, labeled)
    kinds = tf.size(tf.unique(labels)[0])
    judged = (kinds > 1) & (tf.size(labels) > kinds)
    return tf.cond(
        judged,
        lambda: _of_pairs(objective, labels, embedding),
        lambda: 0.0 * tf.reduce_sum(embedding),
    )


def _of_pairs(objective: str, labels: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
    # AutoGraph would try to convert the import, and warn of each step.
    addons = tf.autograph.experimental.do_not_convert(load_addons)()
    unit = tf.math.l2_normalize(embedding, axis=-1)
    if objective == "triplet_semihard":
        return addons.losses.triplet_semihard_loss(labels, unit)
    if objective == "lifted_structured":
        return addons.losses.lifted_struct_loss(labels, unit)
    anchors, positives, classes = _pairs(labels, embedding)
    if objective == "npairs":
        similarity = tf.matmul(anchors, positives, transpose_b=True)
        return addons.losses.npairs_loss(classes, similarity)
    anchors, positives = (tf.math.l2_normalize(v, axis=-1) for v in (anchors, positives))
    others = tf.roll(positives, 1, axis=0)
    gaps = tf.concat([anchors - positives, anchors - others], axis=0)
    # The root of an exact zero has no finite gradient.
    distances = tf.sqrt(tf.reduce_sum(tf.square(gaps), axis=-1) + 1e-12)
    alike = tf.cast(tf.equal(classes, tf.roll(classes, 1, axis=0)), tf.float32)
    same = tf.concat([tf.ones_like(alike), alike], axis=0)
    return tf.reduce_mean(addons.losses.contrastive_loss(same, distances))


def _pairs(labels: tf.Tensor, embedding: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The largest number of disjoint pairs of one class: first rows, second rows, classes."""
    order = tf.argsort(labels, stable=True)
    labels, embedding = tf.gather(labels, order), tf.gather(embedding, order)
    place = tf.range(tf.size(labels)) - tf.searchsorted(labels, labels)  # within the class
    first = (place[:-1] % 2 == 0) & tf.equal(labels[:-1], labels[1:])
    rows = tf.where(first)[:, 0]
    return tf.gather(embedding, rows), tf.gather(embedding, rows + 1), tf.gather(labels, rows)


def refuse_other_losses(own: str, loss: Any, *args: Any, **kwargs: Any) -> None:
    """Refuses what a model that brings its loss cannot compile with.

    Args:
        own: "The ... has its own ...".
        loss: As passed to `compile`.
        *args: As passed to `compile`.
        **kwargs: As passed to `compile`.

    Raises:
        ConfigError: If anything but `jit_compile` and `run_eagerly` is passed.
    """
    others = sorted(set(kwargs) - {"jit_compile", "run_eagerly"})
    if loss is not None or args or others:
        raise ConfigError(
            f"{own}, and compiles with no others.",
            received=", ".join(others) or f"loss={loss!r}",
            cure="Wrap the model in tfgraphreg.GraphRegularization to choose them.",
        )
