"""Batches with neighbors as an ordinary `tf.data.Dataset`, for `fit` of any model."""

from __future__ import annotations

import numbers
from typing import Any

from tfgraphreg.compat import tf
from tfgraphreg.errors import ConfigError, DataError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.weights import check_trainable
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.neighbors.modes import NeighborMode
from tfgraphreg.neighbors.order import steps_per_epoch
from tfgraphreg.neighbors.packing import check_nodes


def with_neighbors(
    data: Any,
    graph: SimilarityGraph,
    mode: NeighborMode,
    *,
    batch_size: int = 128,
    labeled_batch: int = 0,
    seed: int = 0,
) -> tf.data.Dataset:
    """One epoch of batches with neighbors; each iteration over it is the next epoch.

    The elements are `(features, labels)`, or `(features, labels, sample_weight)` where weights
    are given or labels are missing. The features are the inputs by name (`x` for an array, `image`
    for a split, the keys of a dictionary) and the keys of the mode. A missing label has sample
    weight 0, and the weights of its batch are multiplied by rows / labeled rows, so that Keras'
    loss is the mean over labeled rows. The dataset knows its cardinality: `fit` needs no
    `steps_per_epoch`. Every epoch is a function of the arguments; a second dataset with the same
    arguments starts at the first epoch again.

    Args:
        data: N examples in the order of the graph's nodes: `(x, y)` or `(x, y, sample_weight)` of
            arrays, a `Split`, or a finite `tf.data.Dataset` of such examples, one at a time. `x`
            is an array of any shape and type, or a dictionary of arrays. `y` holds class numbers,
            one-hot or multi-hot rows, or regression targets; -1 for whole numbers and one-hot
            rows, NaN for other floats, means missing; None: all are missing.
        graph: Graph of N nodes.
        mode: `Packed(k)`, `Gathered(k)`, `Paired()` or `Bank(k)`.
        batch_size: B; the last batch of an epoch may be smaller. For `Paired` even for each
            replica of the distribution strategy in whose scope this is called.
        labeled_batch: So many of the B rows are drawn from the examples that have a label, again
            and again; the others pass over all examples once an epoch. Where few examples have a
            label, most batches have none otherwise. 0 to B; even for `Paired`.
        seed: Any integer; decides all orders and draws.

    Raises:
        ConfigError: If the mode or a number is invalid.
        DataError: If the data is of another form, or an input has the name of one of the mode's
            keys.
        GraphError: If the graph is not one of N nodes, has no edges, or weights above 1e12.
    """
    if not isinstance(mode, NeighborMode):
        raise ConfigError(
            "`mode` must say how neighbors come into a batch.",
            received=repr(mode),
            cure="Use Packed(k), Gathered(k), Paired() or Bank(k).",
        )
    if not isinstance(graph, SimilarityGraph):
        raise GraphError(
            "`graph` must be a SimilarityGraph.",
            received=type(graph).__name__,
            cure="Use knn_graph, or SimilarityGraph.from_scipy, from_pairs or from_table.",
        )
    sizes = {"batch_size": batch_size, "labeled_batch": labeled_batch, "seed": seed}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ConfigError(f"`{name}` must be a whole number.", received=f"{name}={value!r}")
    check_trainable(graph)
    if not graph.num_edges:
        raise GraphError(
            "A graph without edges would train without a graph.",
            received=f"{graph.num_nodes} nodes, no edge",
            cure="Use data without neighbors and alpha=0.",
        )
    examples = Examples.of(data, size=graph.num_nodes)
    check_nodes(examples, graph)
    taken = [name for name in examples.inputs if mode.reserves(name)]
    if taken:
        raise DataError(
            f"Batches of {mode!r} use this key themselves.",
            received=f"the input {taken[0]!r}",
            cure="Give the input and the model's layer another name.",
        )
    batches = mode.batches(
        examples,
        graph,
        batch_size=batch_size,
        seed=seed,
        labeled_batch=labeled_batch,
        epochs=None,
        replicas=tf.distribute.get_strategy().num_replicas_in_sync,
    )
    steps = steps_per_epoch(len(examples), batch_size, labeled_batch)
    return batches.apply(tf.data.experimental.assert_cardinality(steps))
