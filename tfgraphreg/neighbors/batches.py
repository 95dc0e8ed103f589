"""Batches for training: one tf.data.Dataset over all epochs for every way to use neighbors.

Shapes: N examples, B batch, K neighbors, C classes.

All functions take `Examples`, or a `Split`, whose only feature is `image`, and give
`(features, labels)`. The features are the inputs by name, `[B, ...]`, and what is named below; the
labels are those of the examples; a split's are -1 where missing, for all others a missing label is
a sample weight of 0 (see `with_neighbors`). Every epoch is a new permutation of all examples, a
function of (seed, epoch) and of the arguments; its last batch holds what is left. The first
`labeled_batch` rows of every batch are drawn from the labeled examples besides (see
`order.LabeledRows`), so an epoch has `steps_per_epoch(N, batch_size, labeled_batch)` batches.
Datasets end after `epochs`; with `epochs=None` they hold one epoch, and each iteration over them
is the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Split
from tfgraphreg.errors import ConfigError
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.neighbors.lookup import row_lookup
from tfgraphreg.neighbors.order import LabeledRows, epoch_draw, epoch_order, index_batches
from tfgraphreg.neighbors.packing import check_nodes


def plain_batches(
    data: Split | Examples,
    *,
    batch_size: int,
    seed: int,
    epochs: int | None,
    first_epoch: int = 0,
    labeled_batch: int = 0,
) -> Any:
    """Batches without neighbors."""
    examples = as_examples(data)
    labeled = labeled_rows(examples, labeled_batch, batch_size=batch_size, seed=seed)

    def draw(epoch):
        order = epoch_order(len(examples), seed, epoch)
        return [labeled.among(order, epoch) if labeled else order]

    rows = index_batches(
        draw, [((), np.int64)], batch_size=batch_size, first_epoch=first_epoch, epochs=epochs
    )
    return _finish(rows, examples, _inputs(examples))


def gathered_batches(
    data: Split | Examples,
    graph: Any,
    *,
    max_neighbors: int,
    batch_size: int,
    seed: int,
    epochs: int | None,
    first_epoch: int = 0,
    sample: str = "top",
    labeled_batch: int = 0,
) -> Any:
    """Batches in which neighbors are looked up by index.

    Features: for neighbor i from 0 to K - 1 `NL_nbr_<i>_<name>` for each input, the example's own
    where it has fewer neighbors, and `NL_nbr_<i>_weight` float32 `[B, 1]`, 0 there.

    Where neighbors are sampled, there are also `index` and `NL_nbr_<i>_index`, int64 `[B]`: which
    example each is. Examples then come beside some of their neighbors (see `grouping`), so that a
    batch holds fewer distinct images than in random order; `GraphRegularization` runs each of
    them through the network once.

    Args:
        data: N examples.
        graph: `SimilarityGraph` of N nodes.
        max_neighbors: K.
        batch_size: B.
        seed: Any integer.
        epochs: Number of the epoch to stop before.
        first_epoch: Number of the first epoch to give.
        labeled_batch: See above.
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
    examples = as_examples(data)
    arrange = _by_groups(examples) if sampled else _as_it_is
    labeled = labeled_rows(examples, labeled_batch, batch_size=batch_size, seed=seed)
    rows = _with_neighbors(examples, graph, max_neighbors, sample, seed, arrange, labeled, window)
    inputs = _inputs(examples)

    def features(index, near, weights):
        from tfgraphreg.compat import tf

        together = inputs(tf.concat([index[:, None], near], axis=1))
        named = {name: values[:, 0] for name, values in together.items()}
        if sampled:
            named["index"] = index
        for i in range(max_neighbors):
            for name, values in together.items():
                named[f"NL_nbr_{i}_{name}"] = values[:, i + 1]
            named[f"NL_nbr_{i}_weight"] = weights[:, i : i + 1]
            if sampled:
                named[f"NL_nbr_{i}_index"] = near[:, i]
        return named

    return _finish(rows, examples, features)


def indexed_batches(
    data: Split | Examples,
    graph: Any,
    *,
    max_neighbors: int,
    batch_size: int,
    seed: int,
    epochs: int | None,
    first_epoch: int = 0,
    sample: str = "top",
    labeled_batch: int = 0,
) -> Any:
    """Batches that name the neighbors, for a table of embeddings.

    Features: `index` int64 `[B]`; `neighbor_index` int64 `[B, K]`, the own index where
    there are fewer neighbors; `neighbor_weight` float32 `[B, K]`, 0 there. Arguments and errors
    are those of `gathered_batches`.
    """
    window = {"batch_size": batch_size, "first_epoch": first_epoch, "epochs": epochs}
    examples = as_examples(data)
    labeled = labeled_rows(examples, labeled_batch, batch_size=batch_size, seed=seed)
    rows = _with_neighbors(examples, graph, max_neighbors, sample, seed, _as_it_is, labeled, window)
    inputs = _inputs(examples)

    def features(index, near, weights):
        return {
            **inputs(index),
            "index": index,
            "neighbor_index": near,
            "neighbor_weight": weights,
        }

    return _finish(rows, examples, features)


def paired_batches(
    data: Split | Examples,
    graph: Any,
    *,
    batch_size: int,
    seed: int,
    epochs: int | None,
    first_epoch: int = 0,
    by_weight: bool = False,
    correction: np.ndarray | None = None,
    replicas: int = 1,
    labeled_batch: int = 0,
    known: bool = False,
) -> Any:
    """Batches in which neighbors sit side by side: feature `pair_weight`.

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
        data: N examples.
        graph: `SimilarityGraph` of N nodes.
        batch_size: B, a multiple of 2 R.
        seed: Any integer.
        epochs: Number of the epoch to stop before.
        first_epoch: Number of the first epoch to give.
        by_weight: Whether a node prefers its heavier edges, in proportion to weight.
        correction: `[E]` factors on the weights of the edges, see `matching.correction`.
        replicas: R, the number of replicas that share a batch.
        labeled_batch: Rows at the head of every batch that are drawn from the labeled examples,
            a multiple of 2 R; they have weight 0.
        known: Whether there is also `known_neighbors` bool `[B, B]`: whether rows i and j are one
            example, or joined by an edge in either direction.

    Raises:
        ConfigError: If `batch_size` is no multiple of 2 R, a number is out of range, or `known` is
            asked for with several replicas.
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
    if labeled_batch % (2 * replicas):
        whole = 2 * replicas
        raise ConfigError(
            "`labeled_batch` must be an even number for each replica, to leave pairs side by side.",
            received=f"labeled_batch={labeled_batch}, replicas={replicas}",
            cure=f"Use {max(labeled_batch // whole, 1) * whole}.",
        )
    if known and replicas > 1:
        raise ConfigError(
            "Known neighbors are marked, for a contrast, on one replica only.",
            received=f"replicas={replicas}",
            cure="Use the graph term that pulls, or the strategy none.",
        )
    examples = as_examples(data)
    check_nodes(examples, graph)
    classes, n = examples.class_of, len(examples)
    labeled = labeled_rows(examples, labeled_batch, batch_size=batch_size, seed=seed)

    def draw(epoch):
        nodes, weights = matching.draw_epoch(
            graph,
            epoch_order(n, seed, epoch),
            classes,
            seed=epoch_draw(seed, epoch),
            by_weight=by_weight,
            correction=correction,
        )
        if labeled:
            nodes = labeled.among(nodes, epoch)
            none = np.zeros(len(nodes) - n, weights.dtype)
            weights = labeled.beside(weights, none)
        rest = len(nodes) % batch_size
        share = -(-rest // replicas)
        if replicas > 1 and share % 2:
            weights[len(nodes) - rest + share - 1 :] = 0
        return nodes, weights

    rows = index_batches(
        draw,
        [((), np.int64), ((), np.float32)],
        batch_size=batch_size,
        first_epoch=first_epoch,
        epochs=epochs,
    )
    inputs = _inputs(examples)
    marks = _known_lookup(graph) if known else None

    def features(index, weight):
        named = {**inputs(index), "pair_weight": weight}
        return {**named, "known_neighbors": marks(index)} if marks else named

    return _finish(rows, examples, features)


def _known_lookup(graph: Any) -> Callable[[Any], Any]:
    """A function from indices `[B]` to `[B, B]` bool, see `paired_batches`."""
    from scipy import sparse

    from tfgraphreg.compat import tf

    n = graph.num_nodes
    ones = np.ones(len(graph.indices), bool)
    edges = sparse.csr_matrix((ones, graph.indices, graph.indptr), shape=(n, n))
    joined = (edges + edges.T + sparse.identity(n, bool, format="csr")).tocsr()

    def read(index: np.ndarray) -> np.ndarray:
        # Rows that are drawn twice are found twice.
        return joined[index][:, index].toarray()

    def lookup(index):
        rows = index.shape[0]
        return tf.ensure_shape(tf.numpy_function(read, [index], tf.bool), [rows, rows])

    return lookup


def _as_it_is(order: np.ndarray, near: np.ndarray, number: int) -> np.ndarray:
    return order


def _by_groups(examples: Examples) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """What puts images beside their neighbors of the epoch."""
    from tfgraphreg.neighbors.grouping import grouped_order

    classes = examples.class_of
    return lambda order, near, number: grouped_order(near, order, classes, seed=number)


def _with_neighbors(
    examples: Examples,
    graph: Any,
    max_neighbors: int,
    sample: str,
    seed: int,
    arrange: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    labeled: LabeledRows | None,
    window: Any,
) -> Any:
    """The dataset of `(index [B], neighbors [B, K], weights [B, K])`.

    `arrange(order, near, number)` changes the order of an epoch, by its neighbors `[N, K]`.
    """
    if max_neighbors < 1:
        raise ConfigError(
            "`max_neighbors` must be at least 1 to train with neighbors.",
            received=f"max_neighbors={max_neighbors}",
            cure="Use alpha=0 for training without a graph.",
        )
    from tfgraphreg.neighbors import sampling

    check_nodes(examples, graph)
    choose = sampling.chooser(graph, max_neighbors, sample, examples.ids)

    def draw(epoch):
        number = epoch_draw(seed, epoch)
        near, weights = choose(number)
        order = arrange(epoch_order(len(examples), seed, epoch), near, number)
        order = labeled.among(order, epoch) if labeled else order
        near, weights = near[order], weights[order]
        return [order, np.where(near < 0, order[:, None], near), weights]

    return index_batches(
        draw,
        [((), np.int64), ((max_neighbors,), np.int64), ((max_neighbors,), np.float32)],
        **window,
    )


def _inputs(examples: Examples) -> Callable[[Any], dict[str, Any]]:
    """A function from indices `[...]` to the inputs by name, `[..., *row shape]`."""
    lookups = {name: row_lookup(values) for name, values in examples.inputs.items()}
    return lambda index: {name: lookup(index) for name, lookup in lookups.items()}


def labeled_rows(
    examples: Examples, rows: int, *, batch_size: int, seed: int
) -> LabeledRows | None:
    """The rows of each batch that are drawn from the labeled examples; None for 0 rows."""
    if not rows:
        return None
    given = examples.given if examples.given is not None else ~examples.missing
    return LabeledRows(np.flatnonzero(given), rows, batch_size, seed)


def as_examples(data: Split | Examples) -> Examples:
    """Examples as they are; a split's with missing labels as -1."""
    if isinstance(data, Split):
        return dataclasses.replace(Examples.of(data), marked=True)
    return Examples.of(data)


def _finish(rows: Any, examples: Examples, features: Callable[..., dict[str, Any]]) -> Any:
    """Turns `(index, ...)` into `(features, labels)`, ahead of the training step.

    Adds sample weights if the examples have any; unless missing labels are marked by -1, they are
    multiplied by the batch's rows / labeled rows.
    """
    from tfgraphreg.compat import tf

    targets, weights = examples.targets()
    labels = row_lookup(targets)
    if weights is None:

        def fetch(index, *rest):
            return features(index, *rest), labels(index)
    else:
        weight, labeled = row_lookup(weights), row_lookup(~examples.missing)

        def fetch(index, *rest):
            present = tf.cast(labeled(index), tf.float32)
            if examples.marked:
                return features(index, *rest), labels(index), weight(index) * present
            rows = tf.cast(tf.shape(index)[0], tf.float32)
            scale = tf.math.divide_no_nan(rows, tf.reduce_sum(present))
            return features(index, *rest), labels(index), weight(index) * present * scale

    return rows.map(fetch, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
