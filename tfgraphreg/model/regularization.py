"""The graph term: `nsl.keras.GraphRegularization`, applied to the embedding."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgraphreg.compat import keras, nsl, tf
from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.bank import EmbeddingBank
from tfgraphreg.model.classifier import EMBEDDING, LOGITS
from tfgraphreg.model.objectives import BASIC, check_objective, supervised_rows

IMAGE = "image"
INDEX = "index"
PAIR_WEIGHT = "pair_weight"
NEIGHBOR_INDEX = "neighbor_index"
NEIGHBOR_WEIGHT = "neighbor_weight"
_SHAPES = 16


@dataclasses.dataclass(frozen=True)
class Edges:
    """E edges of a batch: `sources` and `targets` `[E, D]`, `weights` `[E]`."""

    sources: Any
    targets: Any
    weights: Any


class GraphRegularization(nsl.keras.GraphRegularization):
    """Trains a classifier with `cross-entropy + alpha * mean of w_uv * d(h_u, h_v)`.

    The graph term is the mean over the edges of a batch whose weight is not zero, which is
    what NSL computes by default. It differs from NSL's wrapper in what it compares (the
    embedding, or the logits if asked; NSL: whatever the base model puts out) and in how:
    images and neighbors go through the network in *one* pass. In training mode batch
    normalization therefore sees the images and their neighbors as one batch and updates its
    averages once a step; NSL runs the network twice, normalizes each set by itself and
    updates twice. Neighbors of weight zero take part in those statistics, which is why the
    neighbors room fills a missing neighbor's place with the image itself. Where a batch says by
    `index` and `NL_nbr_<i>_index` which image each is, as gathered batches of sampled neighbors
    do, each distinct image goes through the network once, however often it occurs (but for up to
    15, which make their number a multiple of 16); not with `jit_compile`, for XLA needs to know
    that number.

    Where the neighbors come from is told by the batch: `NL_nbr_<i>_image` and
    `NL_nbr_<i>_weight` (packed or gathered), `pair_weight` (rows 2i and 2i+1 are neighbors),
    or `index`, `neighbor_index` and `neighbor_weight` (a bank of embeddings). Without any of
    these the term is zero and a step costs what plain training costs.

    Losses are sums over the *global* batch divided by global counts, so that training on
    several replicas equals training on one, also for batches that replicas share unevenly.

    Args:
        base_model: Of `build_classifier`.
        alpha: Weight of the graph term, finite and >= 0.
        distance: See `tfgraphreg.distances`. For a distance between distributions the
            softmax of the rows is compared. `mahalanobis` uses a running covariance of what is
            compared, updated once a step with the images of all replicas after the step's loss;
            `tfgraphreg.distances.mahalanobis(covariance)` a given one.
        regularize: `"embedding"` or `"logits"`.
        max_neighbors: Neighbors of an image in a packed or gathered batch.
        multilabel: Whether labels are multi-hot rows.
        objective: Supervised loss, see `tfgraphreg.model.objectives`.
        augmenter: Layer that changes raw training images at random. An image and its
            neighbors are drawn independently at the same strength; what goes through the network
            once is changed once.
        label_mixer: KerasCV layer that mixes images and one-hot labels; for alpha = 0 only.
        bank_size: N, the number of training images, for batches that use a bank.

    Raises:
        ConfigError: If alpha, max_neighbors, or the objective with these labels, cannot work.
    """

    def __init__(
        self,
        base_model: keras.Model,
        *,
        alpha: float,
        distance: Distance,
        regularize: str = EMBEDDING,
        max_neighbors: int = 1,
        multilabel: bool = False,
        objective: str = "auto",
        augmenter: Any = None,
        label_mixer: Any = None,
        bank_size: int | None = None,
    ):
        if alpha > 0 and max_neighbors < 1:
            raise ConfigError(
                "`max_neighbors` must be at least 1 when alpha > 0.",
                received=f"max_neighbors={max_neighbors}, alpha={alpha}",
                cure="Use alpha=0 to train without neighbors.",
            )
        check_objective(objective, multilabel=multilabel)
        config = nsl.configs.make_graph_reg_config(
            max_neighbors=max_neighbors if alpha > 0 else 0, multiplier=alpha
        )
        super().__init__(base_model, config)
        self.alpha = float(alpha)
        self.distance = distance
        self.regularize = regularize
        self.multilabel = multilabel
        self.objective = objective
        self.augmenter = augmenter
        self.label_mixer = label_mixer
        self.bank = None
        if bank_size is not None and alpha > 0:
            width = base_model.output_shape[regularize][-1]
            self.bank = EmbeddingBank(bank_size, width)
        self.running = None
        if distance.running is not None and alpha > 0:
            self.running = distance.running(base_model.output_shape[regularize][-1])
        self._tracked = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", "supervised_loss", "graph_loss", "accuracy")
        }

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means of an epoch: loss, its two parts, and accuracy."""
        return list(self._tracked.values())

    def compile(self, *args, **kwargs):
        """Configures training; see `keras.Model.compile`. The loss is the model's own."""
        keras.Model.compile(self, *args, **kwargs)

    def call(self, inputs, training=False, **kwargs):
        """Logits `[B, C]` of the images; adds alpha times the graph term as a loss.

        For use in a training loop of one's own; `fit` goes through `train_step`.
        """
        outputs, edges = self.forward(inputs, training=training)
        if edges is not None:
            total, count = self.edge_sums(edges)
            self.add_loss(self.alpha * tf.math.divide_no_nan(total, count))
        return outputs[LOGITS]

    def forward(self, inputs: dict[str, tf.Tensor], *, training: bool):
        """One pass over the images and their neighbors.

        Returns:
            The base model's outputs for the B images, and the batch's `Edges` or None.
        """
        rows = tf.shape(inputs[IMAGE])[0]
        images, weights, places = inputs[IMAGE], None, None
        if self.alpha > 0 and "NL_nbr_0_image" in inputs:
            packed = {
                k: v
                for k, v in inputs.items()
                if k == IMAGE or (k.startswith("NL_nbr_") and not k.endswith(INDEX))
            }
            _, neighbors, weights = self.nbr_features_layer.call(packed)
            images = tf.concat([images, neighbors[IMAGE]], axis=0)
            if "NL_nbr_0_index" in inputs and not self.jit_compile:
                images, places = _distinct(images, self._indices(inputs))
        if training and self.augmenter is not None:
            images = self.augmenter(tf.cast(images, tf.float32), training=True)
        outputs = self.base_model(images, training=training)
        if places is not None:
            outputs = {name: tf.gather(value, places) for name, value in outputs.items()}
        own = {name: value[:rows] for name, value in outputs.items()}
        if self.objective not in BASIC:
            # The classifier reads the embedding here, it does not shape it.
            head = self.base_model.get_layer(LOGITS)
            own[LOGITS] = head(tf.stop_gradient(own[EMBEDDING]))
        if self.alpha == 0:
            return own, None
        compared = outputs[self.regularize]
        if weights is not None:
            repeats = self.graph_reg_config.neighbor_config.max_neighbors
            sources = tf.repeat(compared[:rows], repeats, axis=0)
            edges = Edges(sources, compared[rows:], tf.reshape(weights, [-1]))
        elif PAIR_WEIGHT in inputs:
            pairs = rows // 2 * 2
            edges = Edges(compared[0:pairs:2], compared[1:pairs:2], inputs[PAIR_WEIGHT][0:pairs:2])
        elif NEIGHBOR_INDEX in inputs:
            targets, seen = self.bank.read(inputs[NEIGHBOR_INDEX])
            width = tf.shape(targets)[1]
            sources = tf.repeat(compared, width, axis=0)
            targets = tf.reshape(targets, [-1, tf.shape(targets)[2]])
            edges = Edges(sources, targets, tf.reshape(inputs[NEIGHBOR_WEIGHT] * seen, [-1]))
            if training:
                self.bank.write(inputs[INDEX], compared)
        else:
            edges = None
        return own, edges

    def _indices(self, inputs):
        """`[B (K + 1)]`: which images the rows of a pass are."""
        count = self.graph_reg_config.neighbor_config.max_neighbors
        near = [inputs[f"NL_nbr_{i}_index"] for i in range(count)]
        return tf.concat([inputs[INDEX], tf.reshape(tf.stack(near, axis=1), [-1])], axis=0)

    def edge_sums(self, edges: Edges) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of `w * d` over the edges, and the number of edges with w > 0."""
        sources, targets = edges.sources, edges.targets
        if self.distance.distributions:
            sources, targets = tf.nn.softmax(sources), tf.nn.softmax(targets)
        weights = tf.cast(edges.weights, sources.dtype)
        distances = (self.running or self.distance).tensor(sources, targets)
        return tf.reduce_sum(weights * distances), tf.reduce_sum(tf.cast(weights > 0, tf.float32))

    def train_step(self, data):
        """One step of gradient descent; see the class for the loss."""
        features, labels = data[:2]
        targets = labels
        if self.label_mixer is not None:
            features, targets = self._mix(features, labels)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs, edges = self.forward(features, training=True)
            row_loss, row_weight = supervised_rows(
                self.objective, targets, outputs, multilabel=self.multilabel
            )
            count = _global_sum(tf.reduce_sum(row_weight))
            supervised = tf.math.divide_no_nan(tf.reduce_sum(row_loss * row_weight), count)
            graph = tf.constant(0.0)
            if edges is not None:
                total, edge_count = self.edge_sums(edges)
                graph = tf.math.divide_no_nan(total, _global_sum(edge_count))
            penalty = tf.add_n(self.base_model.losses) if self.base_model.losses else 0.0
            loss = supervised + self.alpha * graph + penalty / replicas
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        if self.running is not None:
            self.running.update(_of_all_replicas(outputs[self.regularize]))
        self._track(loss, supervised, graph, labels, outputs[LOGITS], row_weight, count)
        return {name: metric.result() for name, metric in self._tracked.items()}

    def evaluate(self, *args, **kwargs):
        """Loss and accuracy without neighbors; see `keras.Model.evaluate`."""
        return keras.Model.evaluate(self, *args, **kwargs)

    def test_step(self, data):
        """The supervised loss and accuracy of a batch in inference mode; no graph term."""
        features, labels = data[:2]
        images = features[IMAGE] if isinstance(features, dict) else features
        outputs = self.base_model(images, training=False)
        row_loss, row_weight = supervised_rows("auto", labels, outputs, multilabel=self.multilabel)
        count = _global_sum(tf.reduce_sum(row_weight))
        supervised = tf.math.divide_no_nan(tf.reduce_sum(row_loss * row_weight), count)
        zero = tf.constant(0.0)
        self._track(None, supervised, zero, labels, outputs[LOGITS], row_weight, count)
        return {name: metric.result() for name, metric in self._tracked.items()}

    def _mix(self, features, labels):
        """Mixed images and soft labels `[B, C]`; unlabeled rows must not be among them."""
        if not self.multilabel:
            labels = tf.one_hot(labels, self.base_model.output_shape[LOGITS][-1])
        images = tf.cast(features[IMAGE], tf.float32)
        mixed = self.label_mixer(
            {"images": images, "labels": tf.cast(labels, tf.float32)}, training=True
        )
        return {**features, IMAGE: mixed["images"]}, mixed["labels"]

    def _track(self, loss, supervised, graph, labels, logits, row_weight, count) -> None:
        # A replica holds its share of each global mean; the shares add up.
        rows = tf.cast(tf.shape(logits)[0], tf.float32)
        share = rows / _global_sum(rows)
        # A batch without labels has no supervised loss. Without a graph term that is all there is.
        labeled = share * tf.cast(count > 0, tf.float32)
        parts = [("supervised_loss", supervised, labeled), ("graph_loss", graph, share)]
        parts += [("loss", supervised, labeled)] if loss is None else [("loss", loss, share)]
        for name, value, weight in parts:
            self._tracked[name].update_state(_global_sum(value), sample_weight=weight)
        if self.multilabel:
            hits = tf.reduce_mean(
                tf.cast(tf.equal(tf.cast(labels, tf.float32) > 0, logits > 0), tf.float32), -1
            )
        else:
            hits = tf.cast(tf.equal(tf.argmax(logits, -1), tf.cast(labels, tf.int64)), tf.float32)
        self._tracked["accuracy"].update_state(hits, sample_weight=row_weight)


def _distinct(images: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """One image of each index, and the row in it of each of the M: `[U, ...]`, `[M]`.

    Some images come twice to make U a multiple of 16 (or M): libraries prepare for every new
    shape, and so there are few.
    """
    names, places = tf.unique(index)
    rows, distinct = tf.shape(index)[0], tf.shape(names)[0]
    first = tf.math.unsorted_segment_min(tf.range(rows), places, distinct)
    padded = tf.minimum((distinct + _SHAPES - 1) // _SHAPES * _SHAPES, rows)
    return tf.gather(images, tf.gather(first, tf.range(padded) % distinct)), places


def _of_all_replicas(rows: tf.Tensor) -> tf.Tensor:
    """The rows of every replica, one after the other; no gradient passes."""
    rows = tf.stop_gradient(rows)
    context = tf.distribute.get_replica_context()
    return rows if context.num_replicas_in_sync == 1 else context.all_gather(rows, axis=0)


def _global_sum(value: tf.Tensor) -> tf.Tensor:
    """`value` added up over the replicas; no gradient passes."""
    value = tf.stop_gradient(value)
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
