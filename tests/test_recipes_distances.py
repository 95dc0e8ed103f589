"""Distances that learn, and distances of one's own, from the graph to retrieval."""

import json
import pathlib

import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance

from tfgraphreg import cli
from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.distances import DISTANCES, mahalanobis, register_distance, shrunk_covariance
from tfgraphreg.evaluation.faithfulness import faithfulness_report
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.search.ranking import nearest

QUICK = ["--dataset", "digits", "--backbone", "fcnn", "--limit", "200", "--batch-size", "64"]


pytestmark = pytest.mark.usefixtures("workplace")


def train(*words, run="runs/r", epochs=2):
    words = [*QUICK, "--epochs", str(epochs), "--run-dir", run, *words]
    return cli.run_command("train", words)


def metrics(run="runs/r"):
    return json.loads(pathlib.Path(run, "metrics.json").read_text())


def model(distance, alpha=0.3):
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 1))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(image))
    base = build_classifier(keras.Model(image, features), embedding_dim=3, num_classes=2)
    return RegularizedClassifier(base, alpha=alpha, distance=distance)


def batches(rows=32, size=16):
    rng = np.random.default_rng(0)
    features = {
        "image": rng.integers(0, 256, (rows, 4, 4, 1)).astype(np.uint8),
        "NL_nbr_0_image": rng.integers(0, 256, (rows, 4, 4, 1)).astype(np.uint8),
        "NL_nbr_0_weight": rng.uniform(0.5, 1, (rows, 1)).astype(np.float32),
    }
    labels = rng.integers(0, 2, rows)
    return tf.data.Dataset.from_tensor_slices((features, labels)).batch(size).repeat()


def test_the_graph_term_by_mahalanobis_follows_a_plain_running_covariance():
    regularized = model(DISTANCES.get("mahalanobis"))
    regularized.compile(optimizer=keras.optimizers.SGD(0.0))
    mean, covariance, found, expected = np.zeros(3), np.eye(3), [], []
    for features, labels in batches().take(4):
        rows = regularized.base_model(features["image"])["embedding"].numpy().astype(float)
        near = regularized.base_model(features["NL_nbr_0_image"])["embedding"].numpy()
        shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3)
        inverse = np.linalg.inv(shrunk)
        apart = [scipy_distance.mahalanobis(a, b, inverse) for a, b in zip(rows, near)]
        expected.append(np.mean(apart * features["NL_nbr_0_weight"].numpy()[:, 0]))
        mean = mean + 0.01 * (rows.mean(0) - mean)
        centered = rows - mean
        covariance = covariance + 0.01 * (centered.T @ centered / len(rows) - covariance)
        regularized.reset_metrics()
        logs = regularized.train_on_batch(features, labels, return_dict=True)
        found.append(logs["graph_loss"])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(regularized.running.covariance, covariance, rtol=1e-4, atol=1e-6)


def test_a_given_covariance_is_used_as_it_is():
    given = mahalanobis(np.diag([1.0, 4.0, 9.0]))
    regularized = model(given)
    assert regularized.running is None
    regularized.compile(optimizer=keras.optimizers.SGD(0.0))
    features, labels = next(iter(batches()))
    rows, near = (
        regularized.base_model(features[name])["embedding"].numpy()
        for name in ("image", "NL_nbr_0_image")
    )
    apart = np.linalg.norm((rows - near) / [1, 2, 3], axis=1)
    logs = regularized.train_on_batch(features, labels, return_dict=True)
    expected = np.mean(apart * features["NL_nbr_0_weight"].numpy()[:, 0])
    assert logs["graph_loss"] == pytest.approx(expected, rel=1e-4)


def test_two_replicas_estimate_one_covariance(two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            regularized = model(DISTANCES.get("mahalanobis"))
            regularized.compile(optimizer=keras.optimizers.Adam(0.01))
        # 42 rows in batches of 16 leave replicas uneven shares at the end of an epoch.
        logs = regularized.fit(batches(42), epochs=3, steps_per_epoch=3, verbose=0).history
        results.append((logs["graph_loss"], regularized.running.covariance.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4)
    assert np.abs(results[0][1] - np.eye(3)).max() > 0.01


def test_embeddings_that_are_no_numbers_leave_the_covariance_alone():
    running = model(DISTANCES.get("mahalanobis")).running
    running.update(np.ones((4, 3), np.float32))
    before = running.covariance.numpy()
    running.update(np.full((4, 3), np.nan, np.float32))
    running.update(np.full((4, 3), 1e38, np.float32))
    np.testing.assert_array_equal(running.covariance, before)
    assert np.isfinite(running.tensor(np.ones((2, 3)), np.zeros((2, 3)))).all()


@pytest.mark.one_stack
def test_a_run_by_mahalanobis_resumes_as_if_it_never_stopped(monkeypatch):
    words = ["--distance", "mahalanobis", "--graph-metric", "mahalanobis"]
    assert train(*words, run="runs/whole", epochs=3) == 0
    whole = metrics("runs/whole")
    assert whole["final"]["graph_loss"] > 0 and whole["retrieval_distance"] == "mahalanobis"
    assert 0.2 < whole["recall_at_1"] <= 1

    from tfgraphreg.training.callbacks import EpochRecorder

    end = EpochRecorder.on_epoch_end

    def stop(self, epoch, logs=None):
        end(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochRecorder, "on_epoch_end", stop)
        assert train(*words, run="runs/cut", epochs=3) == 130
    assert len(pathlib.Path("runs/cut/history.csv").read_text().splitlines()) == 3
    assert train(*words, "--resume", run="runs/cut", epochs=3) == 0
    cut = metrics("runs/cut")
    for name in ("final", "recall_at_1", "test_accuracy", "mean_average_precision"):
        assert cut[name] == whole[name], name


def _rows(n, seed):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 4)) * [1, 2, 5, 0.1]).astype(np.float32)


@pytest.mark.parametrize("name", ["mahalanobis", "histogram_intersection", "kl", "js"])
def test_retrieval_ranks_by_the_distance_itself(name):
    queries, gallery = _rows(9, 1), _rows(50, 2)
    x, y = (v.astype(float) for v in (queries, gallery))
    if name == "mahalanobis":
        record = mahalanobis(shrunk_covariance(gallery))
    else:
        record = DISTANCES.get(name)
        x, y = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (x, y))
    ((_, positions, distances),) = nearest(queries, gallery, 5, distance=name)
    for row, order, values in zip(x, positions, distances):
        expected = record.array(np.broadcast_to(row, y.shape), y)
        np.testing.assert_allclose(values, np.sort(expected)[:5], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(expected[order], values, rtol=1e-4, atol=1e-6)


@pytest.mark.one_stack
def test_a_distance_of_ones_own_makes_graph_loss_and_ranking(capsys):
    def farthest_coordinate(x, y):
        return tf.reduce_max(tf.abs(tf.convert_to_tensor(x) - y), axis=-1)

    register_distance("mine", farthest_coordinate)
    try:
        words = ["--distance", "mine", "--graph-metric", "mine", "--graph-features", "pixels"]
        assert train(*words) == 0
        found = metrics()
        assert found["final"]["graph_loss"] > 0 and found["retrieval_distance"] == "mine"
        assert found["graph"]["edge_label_agreement"] > 0.5
        # Another function under the same name must not meet the graph of the first.
        register_distance("mine", lambda x, y: -farthest_coordinate(x, y) + 1000, replace=True)
        assert train(*words, run="runs/s") == 0
        assert metrics("runs/s")["graph"] != found["graph"]
        assert "built before" not in capsys.readouterr().out
        assert TrainConfig(distance="mine").distance == "mine"
    finally:
        DISTANCES._records.pop("mine")
    assert train("--distance", "mine", run="runs/t") == 2
    assert "Unknown distance. Received: 'mine'." in capsys.readouterr().err


def test_edge_distances_by_mahalanobis():
    graph = SimilarityGraph.from_edges([0, 1], [1, 0], [1, 1], 10)
    rows = _rows(10, 3)
    apart = mahalanobis(shrunk_covariance(rows)).array(rows[0], rows[1])
    found = faithfulness_report(graph, rows, distance="mahalanobis", k=3)
    assert found["mean_edge_distance"] == pytest.approx(apart)
