"""The graph term that also pushes apart: against loops, in batches, and in what it learns."""

import math

import numpy as np
import pytest
from references_neighbors import random_graph, random_split

import tfgraphreg
from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.spread import embedding_spread
from tfgraphreg.model.graph_term import ContrastTerm, GraphTerm
from tfgraphreg.neighbors.modes import Edges, Packed, Paired

N = 101
WINDOW = {"batch_size": 24, "seed": 3, "epochs": 1}


def by_loops(rows, weights, known, temperature):
    """The sum over pairs of rows (2i, 2i + 1), each end told from the ends of the other pairs."""

    def cos(a, b):
        return float(rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]))

    total, pairs = 0.0, len(rows) // 2
    for i in range(pairs):
        u, v = 2 * i, 2 * i + 1
        for anchor, partner, others in (
            (u, v, [2 * j + 1 for j in range(pairs) if j != i]),
            (v, u, [2 * j for j in range(pairs) if j != i]),
        ):
            negatives = [other for other in others if not known[anchor, other]]
            scores = [math.exp(cos(anchor, o) / temperature) for o in [partner, *negatives]]
            total += weights[u] / 2 * -math.log(scores[0] / sum(scores))
    return total


def paired(known=True, labeled=0):
    split, graph = random_split(N), random_graph(N)
    window = {**WINDOW, "labeled_batch": labeled}
    return split, graph, list(Paired(known=known).batches(split, graph, **window))


def test_the_loss_is_that_of_loops():
    # The last batch has an odd number of rows; labeled rows are some of them twice.
    _, _, batches = paired(labeled=4)
    rng = np.random.default_rng(0)
    assert len(batches[-1][1]) % 2
    left_out = 0
    for features, _ in batches:
        count = len(features["pair_weight"])
        compared = rng.normal(size=(count, 6)).astype(np.float32)
        weights = features["pair_weight"].numpy()
        known = features["known_neighbors"].numpy()
        edges = Paired(known=True).edges(tf.constant(compared), features, None)
        total, edge_count = ContrastTerm(0.2).sums(edges)
        wanted = by_loops(compared[: count // 2 * 2], weights, known, 0.2)
        assert float(total) == pytest.approx(wanted, rel=1e-5)
        assert float(edge_count) == (weights[: count // 2 * 2 : 2] > 0).sum()
        nobody = by_loops(compared[: count // 2 * 2], weights, np.zeros_like(known), 0.2)
        left_out += nobody > wanted + 1e-3
    assert left_out > 1


def test_batches_mark_every_known_neighbor_and_duplicate():
    split, graph, batches = paired(labeled=4)
    joined = {(a, b) for a, b in zip(graph.sources().tolist(), graph.indices.tolist())}
    number = {image.tobytes(): i for i, image in enumerate(split.images)}
    twice = 0
    for features, _ in batches:
        index = [number[image.tobytes()] for image in features["image"].numpy()]
        wanted = [[a == b or (a, b) in joined or (b, a) in joined for b in index] for a in index]
        assert features["known_neighbors"].numpy().tolist() == wanted
        twice += len(index) - len(set(index))
    assert twice > 0


def test_marks_change_nothing_else_in_a_batch():
    _, _, plain = paired(known=False)
    _, _, marked = paired()
    assert len(plain) == len(marked)
    for (features, labels), (others, same) in zip(plain, marked):
        assert set(others) - set(features) == {"known_neighbors"}
        assert all(np.array_equal(features[name], others[name]) for name in features)
        assert np.array_equal(labels, same)


def test_what_is_known_has_no_part_and_no_infinity():
    rows = tf.Variable(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32))

    def loss(known):
        edges = Edges(rows[0::2], rows[1::2], tf.ones(3), tf.constant(known))
        return ContrastTerm(0.01).sums(edges)[0]

    everyone = np.ones((3, 3), bool)
    with tf.GradientTape() as tape:
        value = loss(everyone)
    assert float(value) == 0
    assert np.array_equal(tape.gradient(value, rows), np.zeros((6, 3)))
    assert float(loss(~everyone)) > 0


def network():
    keras.utils.set_random_seed(0)
    x = keras.Input((5,), name="x")
    h = keras.layers.Dense(4, name="h")(keras.layers.Dense(16, activation="relu")(x))
    return keras.Model(x, keras.layers.Dense(2)(h))


def trained(known, **arguments):
    """The embedding after training without any label."""
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    graph = tfgraphreg.knn_graph(x, k=4)
    data = tfgraphreg.with_neighbors((x, None), graph, Paired(known=known), batch_size=32)
    base = network()
    model = tfgraphreg.GraphRegularization(base, 1.0, embedding="h", **arguments)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit(data, epochs=30, verbose=0)
    return keras.Model(base.input, base.get_layer("h").output)(x).numpy()


def test_without_labels_a_pull_collapses_and_a_contrast_does_not():
    pulled, apart = trained(False), trained(True, contrast=0.2)
    distances = [embedding_spread(found)["mean_pairwise_distance"] for found in (pulled, apart)]
    assert distances[0] < 0.3 and distances[1] > 1.0


def test_a_wrapper_that_contrasts_is_saved_as_such():
    wrapped = tfgraphreg.GraphRegularization(
        network(), 1.0, embedding="h", mode=Paired(known=True), contrast=0.25
    )
    again = type(wrapped).from_config(wrapped.get_config())
    assert again.mode == Paired(known=True) and again.get_config()["contrast"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"contrast": 0.0}, "a finite number above 0"),
        ({"contrast": True}, "a finite number above 0"),
        ({"contrast": 0.1, "distance": "euclidean"}, "by cosine"),
        ({"contrast": 0.1, "alpha": 0.0}, "where `alpha` is above 0"),
        ({"contrast": 0.1, "mode": Packed(1)}, "the known neighbors"),
        ({"contrast": 0.1, "mode": Paired()}, "the known neighbors"),
    ],
)
def test_a_contrast_that_cannot_be_is_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        tfgraphreg.GraphRegularization(network(), embedding="h", **arguments)


def test_batches_and_term_must_fit_together():
    rows, weights = tf.ones((2, 3)), tf.ones(2)
    with pytest.raises(DataError, match="needs to know the graph neighbors"):
        ContrastTerm(0.1).sums(Edges(rows, rows, weights))
    with pytest.raises(DataError, match="which only a contrast leaves out"):
        GraphTerm(DISTANCES.get("cosine")).sums(Edges(rows, rows, weights, tf.eye(2) > 0))
    with pytest.raises(ConfigError, match="on one replica only"):
        Paired(known=True).batches(random_split(N), random_graph(N), **WINDOW, replicas=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"graph_loss": "contrast"}, "`graph_loss` has an effect only with"),
        ({"contrast_temperature": 0.2}, "an effect only with `graph_loss=contrast`"),
        (
            {"graph_loss": "contrast", "neighbors": "paired", "distance": "euclidean"},
            "`distance=cosine`",
        ),
        (
            {"graph_loss": "contrast", "neighbors": "paired", "contrast_temperature": -1.0},
            "`contrast_temperature` must be a finite number > 0",
        ),
        ({"graph_loss": "push"}, "`graph_loss`"),
    ],
)
def test_settings_of_a_contrast_are_checked(settings, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**settings)


def test_a_run_takes_the_contrast_from_its_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(
        dataset="digits",
        limit=120,
        backbone="fcnn",
        batch_size=40,
        epochs=1,
        run_dir="r",
        neighbors="paired",
        graph_loss="contrast",
    )
    run = tfgraphreg.train(config)
    # Pairs are told from some 19 others: far above any cosine distance, and below log(20) + 20.
    assert 0.5 < run.metrics["final"]["graph_loss"] < 23
