"""`GraphRegularization` for this package's classifier, with its loss, accuracy and mixed labels."""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import keras, tf
from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.classifier import EMBEDDING, LOGITS
from tfgraphreg.model.graph_term import global_sum
from tfgraphreg.model.objectives import (
    BASIC,
    check_objective,
    class_losses,
    metric_learning,
    refuse_other_losses,
)
from tfgraphreg.model.regularization import GraphRegularization
from tfgraphreg.neighbors.modes import NeighborMode


class ClassLoss(keras.losses.Loss):
    """Cross-entropy of logits, one value a row; 0 where the label is -1."""

    def __init__(self, *, multilabel: bool):
        super().__init__(name="class_loss")
        self.multilabel = multilabel

    def call(self, y_true, y_pred):
        """`[B]` losses of labels, as of `class_losses`, and `[B, C]` logits."""
        labels = _labels(y_true, multilabel=self.multilabel)
        return class_losses(labels, y_pred, multilabel=self.multilabel)


class ClassAccuracy(keras.metrics.Mean):
    """The share of labeled rows whose largest logit is right; if multi-hot, of right classes."""

    def __init__(self, *, multilabel: bool):
        super().__init__(name="accuracy")
        self.multilabel = multilabel

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Mean over the labeled rows of a batch; sample weights are ignored."""
        labels = _labels(y_true, multilabel=self.multilabel)
        if self.multilabel:
            right = tf.equal(tf.cast(labels, tf.float32) > 0, y_pred > 0)
            hits = tf.reduce_mean(tf.cast(right, tf.float32), -1)
        else:
            hits = tf.cast(tf.equal(tf.argmax(y_pred, -1), tf.cast(labels, tf.int64)), tf.float32)
        return super().update_state(hits, sample_weight=_labeled(labels))


class RegularizedClassifier(GraphRegularization):
    """Trains a network of `build_classifier` on labels of which some may be -1, unlabeled.

    The supervised loss is the mean over the labeled rows of the global batch, weighted where
    weights are given. Batches are `(features, labels)` or `(features, labels, weights)`, as the
    package's recipes make them.

    Args:
        base_model: Of `build_classifier`.
        alpha: See `GraphRegularization`.
        distance: See `GraphRegularization`.
        regularize: `"embedding"` or `"logits"`.
        mode: See `GraphRegularization`.
        multilabel: Whether labels are multi-hot rows.
        objective: `softmax`, or for multi-hot labels `sigmoid` (`auto`: the one that the labels
            need); or a metric-learning loss on the embedding from tensorflow-addons. The classifier
            is then trained on the embedding without passing a gradient to it, so that accuracy can
            be reported.
        augmenter: See `GraphRegularization`.
        label_mixer: KerasCV layer that mixes images and one-hot labels; for alpha = 0 only.
        contrast: See `GraphRegularization`.

    Raises:
        ConfigError: If alpha, or the objective with these labels, cannot work.
    """

    def __init__(
        self,
        base_model: keras.Model,
        alpha: float,
        distance: str | Distance,
        *,
        regularize: str = EMBEDDING,
        mode: NeighborMode | None = None,
        multilabel: bool = False,
        objective: str = "auto",
        augmenter: Any = None,
        label_mixer: Any = None,
        contrast: float | None = None,
    ):
        check_objective(objective, multilabel=multilabel)
        if label_mixer is not None and alpha > 0:
            raise ConfigError(
                "Mixed labels have no meaning beside a graph term.", received=f"alpha={alpha}"
            )
        super().__init__(
            base_model, alpha, distance, regularize, mode, augmenter=augmenter, contrast=contrast
        )
        self.multilabel = multilabel
        self.objective = objective
        self.label_mixer = label_mixer

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Configures training; loss and accuracy are the classifier's own.

        Raises:
            ConfigError: If anything but `optimizer`, `jit_compile` and `run_eagerly` is passed.
        """
        refuse_other_losses("The classifier has its own loss and accuracy", loss, *args, **kwargs)
        with self.distribute_strategy.scope():
            keras.Model.compile(
                self,
                optimizer,
                loss=ClassLoss(multilabel=self.multilabel),
                metrics=[ClassAccuracy(multilabel=self.multilabel)],
                **kwargs,
            )

    def call(self, inputs, training=False, **kwargs):
        """`embedding` and `logits`; in training the graph term is added as a loss."""
        outputs = super().call(inputs, training=training, **kwargs)
        if training and self.objective not in BASIC:
            head = self.base_model.get_layer(LOGITS)
            outputs = {**outputs, LOGITS: head(tf.stop_gradient(outputs[EMBEDDING]))}
        return outputs

    def train_step(self, data):
        """One step of gradient descent, see `GraphRegularization`."""
        features, labels, *given = data
        targets = labels
        if self.label_mixer is not None:
            features, targets = self._mix(features, labels)
        weights = _labeled(targets)
        if given:
            weights *= tf.reshape(tf.cast(given[0], tf.float32), [-1])
        weights = _row_weights(weights)
        return super().train_step((features, {"true": labels, "targets": targets}, weights))

    def test_step(self, data):
        """Supervised loss and accuracy of a batch's labeled rows in inference mode."""
        labeled = _labeled(data[1]) > 0
        # Masked, not weighted: a batch counts in proportion to its labeled rows.
        rows = tf.nest.map_structure(lambda v: tf.boolean_mask(v, labeled), data[:2])
        return super().test_step(rows)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """The cross-entropy, in training with the metric-learning loss besides."""
        penalties = self.losses
        targets = y
        if isinstance(y, dict):
            targets = y["targets"]
            if self.objective not in BASIC:
                pairs = metric_learning(self.objective, targets, y_pred[EMBEDDING])
                # Not among `self.losses`: it counts as a part of the supervised loss.
                penalties = [*penalties, pairs]
        return self.compiled_loss(
            targets, y_pred[LOGITS], sample_weight, regularization_losses=penalties
        )

    def compute_metrics(self, x, y, y_pred, sample_weight):
        """Accuracy on the labels as they were before they were mixed."""
        true = y["true"] if isinstance(y, dict) else y
        return super().compute_metrics(x, true, y_pred[LOGITS], None)

    def _mix(self, features, labels):
        """Mixed images and soft labels `[B, C]`; unlabeled rows must not be among them."""
        ((name, images),) = features.items()
        if not self.multilabel:
            labels = tf.one_hot(labels, self.base_model.output_shape[LOGITS][-1])
        mixed = self.label_mixer(
            {"images": tf.cast(images, tf.float32), "labels": tf.cast(labels, tf.float32)},
            training=True,
        )
        return {name: mixed["images"]}, mixed["labels"]


def _labels(y_true: tf.Tensor, *, multilabel: bool) -> tf.Tensor:
    """Labels without the column axis that Keras adds to class numbers `[B]`."""
    column = not multilabel and y_true.shape.rank == 2 and y_true.shape[-1] == 1
    return tf.squeeze(y_true, -1) if column else y_true


def _labeled(labels: tf.Tensor) -> tf.Tensor:
    """`[B]`: 1 where a row is labeled, else 0."""
    first = labels if labels.shape.rank == 1 else labels[:, 0]
    return tf.cast(first >= 0, tf.float32)


def _row_weights(weights: tf.Tensor) -> tf.Tensor:
    """Weights that turn Keras' mean over the rows into the mean weighted by `weights` `[B]`."""
    rows = tf.cast(tf.shape(weights)[0], tf.float32)
    total = global_sum(tf.reduce_sum(weights))
    return weights * tf.math.divide_no_nan(global_sum(rows), total)
