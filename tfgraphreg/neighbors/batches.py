"""Batches for training: one tf.data.Dataset over all epochs for every way to use neighbors.

Shapes: N images, B batch, K neighbors, C classes, image `[height, width, channels]`.

All functions give `(features, labels)`: `features["image"]` is uint8 `[B, height, width,
channels]`, labels are int64 `[B]`, or `[B, C]` if multi-hot, -1 where unlabeled. Every epoch
is a new permutation of all images, a function of (seed, epoch) and of the arguments; its last
batch holds what is left, so an epoch has `steps_per_epoch(N, batch_size)` batches. Datasets are
finite: they end after `epochs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Split
from tfgraphreg.errors import ConfigError
from tfgraphreg.neighbors.images import image_lookup
from tfgraphreg.neighbors.order import epoch_draw, epoch_order, index_batches
from tfgraphreg.neighbors.packing import check_nodes


def plain_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
) -> Any:
    """Batches without neighbors: features `image`."""

    def draw(epoch):
        return [epoch_order(len(split), seed, epoch)]

    rows = index_batches(
        draw, [((), np.int64)], batch_size=batch_size, first_epoch=first_epoch, epochs=epochs
    )
    lookup = image_lookup(split.images)
    return _finish(rows, split, lambda index: {"image": lookup(index)})


def gathered_batches(
    split: Split,
    graph: Any,
    *,
    max_neighbors: int,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    sample: str = "top",
) -> Any:
    """Batches in which neighbors are looked up by index; features as of `packed_batches`.

    Where neighbors are sampled, there are also `index` and `NL_nbr_<i>_index`, int64 `[B]`: which
    image each is. Images then come beside some of their neighbors (see `grouping`), so that a
    batch holds fewer distinct images than in random order; `GraphRegularization` runs each of
    them through the network once.

    Args:
        split: N images.
        graph: `SimilarityGraph` of N nodes.
        max_neighbors: K.
        batch_size: B.
        seed: Any integer.
        epochs: Number of the epoch to stop before.
        first_epoch: Number of the first epoch to give.
        sample: `"top"`: the K neighbors of largest weight, in the batches of `packed_batches` bit
            for bit. `"uniform"`: K others each epoch, every edge alike, with its weight; the mean
            over epochs of a node's weighted distances is that over all its edges. `"weight"`:
            drawn in proportion to weight, each with the mean weight of the node's edges, which
            has the same mean at K=1 and a smaller variance where weights differ.

    Raises:
        ConfigError: If `sample` or a number is out of range.
        GraphError: If the graph is not one of N nodes.
    """
    sampled = sample != "top"
    window = {"batch_size": batch_size, "first_epoch": first_epoch, "epochs": epochs}
    arrange = _by_groups(split) if sampled else _as_it_is
    rows, lookup = _with_neighbors(split, graph, max_neighbors, sample, seed, arrange, window)

    def features(index, near, weights):
        from tfgraphreg.compat import tf

        images = lookup(tf.concat([index[:, None], near], axis=1))
        named = {"image": images[:, 0]}
        if sampled:
            named["index"] = index
        for i in range(max_neighbors):
            named[f"NL_nbr_{i}_image"] = images[:, i + 1]
            named[f"NL_nbr_{i}_weight"] = weights[:, i : i + 1]
            if sampled:
                named[f"NL_nbr_{i}_index"] = near[:, i]
        return named

    return _finish(rows, split, features)


def indexed_batches(
    split: Split,
    graph: Any,
    *,
    max_neighbors: int,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    sample: str = "top",
) -> Any:
    """Batches that name the neighbors, for a table of embeddings.

    Features: `image`; `index` int64 `[B]`; `neighbor_index` int64 `[B, K]`, the own index where
    there are fewer neighbors; `neighbor_weight` float32 `[B, K]`, 0 there. Arguments and errors
    are those of `gathered_batches`.
    """
    window = {"batch_size": batch_size, "first_epoch": first_epoch, "epochs": epochs}
    rows, lookup = _with_neighbors(split, graph, max_neighbors, sample, seed, _as_it_is, window)

    def features(index, near, weights):
        return {
            "image": lookup(index),
            "index": index,
            "neighbor_index": near,
            "neighbor_weight": weights,
        }

    return _finish(rows, split, features)


def paired_batches(
    split: Split,
    graph: Any,
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    by_weight: bool = False,
    correction: np.ndarray | None = None,
    replicas: int = 1,
) -> Any:
    """Batches in which neighbors sit side by side: features `image` and `pair_weight`.

    Each epoch draws a maximal matching of the graph. Rows 2i and 2i+1 of a batch are neighbors
    wherever `pair_weight` (float32 `[B]`, the same in both rows: the weight of the drawn edge)
    is not 0. Every image is seen exactly once an epoch. Unmatched images fill up with weight 0.
    Only the last batch of an epoch can have an odd number of rows, if N is odd: its last row has
    no partner and weight 0, so pairs are rows `0::2` and `1::2` of the first `2 * (B // 2)`.
    Pairs of one class come at even distances, see `grouping.spread_groups`.

    A distribution strategy gives each of R replicas B / R rows in a row: this must be even, for a
    pair must not be torn apart. It cuts the last batch of r rows after each ceil(r / R); if that
    is odd, the pairs behind the first cut get weight 0 in this one batch.

    Args:
        split: N images.
        graph: `SimilarityGraph` of N nodes.
        batch_size: B, a multiple of 2 R.
        seed: Any integer.
        epochs: Number of the epoch to stop before.
        first_epoch: Number of the first epoch to give.
        by_weight: Whether a node prefers its heavier edges, in proportion to weight.
        correction: `[E]` factors on the weights of the edges, see `matching.correction`.
        replicas: R, the number of replicas that share a batch.

    Raises:
        ConfigError: If `batch_size` is no multiple of 2 R or a number is out of range.
        GraphError: If the graph is not one of N nodes.
    """
    from tfgraphreg.neighbors import matching  # Numba takes a while to import.

    if replicas < 1 or batch_size % (2 * replicas):
        whole = 2 * max(replicas, 1)
        raise ConfigError(
            "`batch_size` must be an even number for each replica, to put neighbors side by side.",
            received=f"batch_size={batch_size}, replicas={replicas}",
            cure=f"Use {max(batch_size // whole, 1) * whole}.",
        )
    check_nodes(split, graph)
    kinds = _kinds(split.labels)

    def draw(epoch):
        nodes, weights = matching.draw_epoch(
            graph,
            epoch_order(len(split), seed, epoch),
            kinds,
            seed=epoch_draw(seed, epoch),
            by_weight=by_weight,
            correction=correction,
        )
        rest = len(split) % batch_size
        share = -(-rest // replicas)
        if replicas > 1 and share % 2:
            weights[len(split) - rest + share - 1 :] = 0
        return nodes, weights

    rows = index_batches(
        draw,
        [((), np.int64), ((), np.float32)],
        batch_size=batch_size,
        first_epoch=first_epoch,
        epochs=epochs,
    )
    lookup = image_lookup(split.images)

    def features(index, weight):
        return {"image": lookup(index), "pair_weight": weight}

    return _finish(rows, split, features)


def _kinds(labels: np.ndarray) -> np.ndarray:
    """`[N]` int64: the class of each image, or a number for its set of classes; -1 unlabeled."""
    if labels.ndim == 1:
        return labels
    sets = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    return np.where(labels[:, 0] < 0, UNLABELED, sets)


def _as_it_is(order: np.ndarray, near: np.ndarray, number: int) -> np.ndarray:
    return order


def _by_groups(split: Split) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """What puts images beside their neighbors of the epoch."""
    from tfgraphreg.neighbors.grouping import grouped_order

    kinds = _kinds(split.labels)
    return lambda order, near, number: grouped_order(near, order, kinds, seed=number)


def _with_neighbors(
    split, graph, max_neighbors, sample, seed, arrange, window
) -> tuple[Any, Callable[[Any], Any]]:
    """The dataset of `(index [B], neighbors [B, K], weights [B, K])` and image lookup.

    `arrange(order, near, number)` changes the order of an epoch, by its neighbors `[N, K]`.
    """
    if max_neighbors < 1:
        raise ConfigError(
            "`max_neighbors` must be at least 1 to train with neighbors.",
            received=f"max_neighbors={max_neighbors}",
            cure="Use alpha=0 for training without a graph.",
        )
    from tfgraphreg.neighbors import sampling

    check_nodes(split, graph)
    choose = sampling.chooser(graph, max_neighbors, sample, split.ids)

    def draw(epoch):
        number = epoch_draw(seed, epoch)
        near, weights = choose(number)
        order = arrange(epoch_order(len(split), seed, epoch), near, number)
        near, weights = near[order], weights[order]
        return [order, np.where(near < 0, order[:, None], near), weights]

    rows = index_batches(
        draw,
        [((), np.int64), ((max_neighbors,), np.int64), ((max_neighbors,), np.float32)],
        **window,
    )
    return rows, image_lookup(split.images)


def _finish(rows: Any, split: Split, features: Callable[..., dict[str, Any]]) -> Any:
    """Turns `(index, ...)` into `(features, labels)`, ahead of the training step."""
    from tfgraphreg.compat import tf

    with tf.device("CPU:0"):
        labels = tf.constant(np.asarray(split.labels, np.int64))

    def fetch(index, *rest):
        return features(index, *rest), tf.gather(labels, index)

    return rows.map(fetch, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
