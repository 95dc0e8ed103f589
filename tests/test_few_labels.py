"""Training on few labels: two streams, labels from the graph, rounds, averaged weights."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from references_neighbors import random_graph, random_split

import tfgraphreg
from tfgraphreg import cli
from tfgraphreg.compat import keras, tf
from tfgraphreg.data.dataset import UNLABELED
from tfgraphreg.errors import ConfigError, GraphError, RunError, TrainingError
from tfgraphreg.neighbors.batches import as_examples, plain_batches
from tfgraphreg.neighbors.modes import Bank, Gathered, Packed, Paired
from tfgraphreg.neighbors.order import LabeledRows, epoch_order, steps_per_epoch
from tfgraphreg.propagation import METHODS, kernel_ridge, propagate, pseudo_labels
from tfgraphreg.propagation.settings import METHOD_NAMES
from tfgraphreg.recipes.copies import features_of_copies
from tfgraphreg.training.average import WeightAverage

N, B, ROWS = 101, 16, 4
WINDOW = {"batch_size": B, "seed": 7, "epochs": 2, "labeled_batch": ROWS}
MODES = [Packed(2), Gathered(2), Paired(), Bank(2, N)]
QUICK = {
    "dataset": "digits",
    "backbone": "fcnn",
    "limit": 300,
    "batch_size": 64,
    "labels_per_class": 3,
    "propagate": "spreading",
    "class_sizes": "equal",
    "feature_classifier": "kernel_ridge",
    "rebuild_graph_every": 2,
    "graph_weights": "local_gaussian",
    "epochs": 4,
    "alpha": 0.0,
    "ema_momentum": 0.9,
}


@pytest.fixture(scope="module")
def split():
    """101 images of which those at 5, 25, 45, ... are labeled; pixel 0 holds the index."""
    found = random_split(N)
    labels = np.full(N, UNLABELED)
    labels[5::20] = np.arange(5) % 3
    images = found.images.copy()
    images[:, 0, 0, 0] = np.arange(N)
    return dataclasses.replace(found, images=images, labels=labels)


def seen(batch):
    return batch["image"].numpy()[:, 0, 0, 0].astype(int)


@pytest.mark.parametrize("mode", [None, *MODES], ids=lambda m: type(m).__name__)
def test_labeled_images_lead_every_batch_and_all_images_come_once_an_epoch(split, mode):
    graph = random_graph(N)
    if mode is None:
        batches = plain_batches(split, **WINDOW)
    else:
        batches = mode.batches(split, graph, **WINDOW)
    steps = steps_per_epoch(N, B, ROWS)
    assert steps == 9  # ceil(101 / 12)
    found = list(batches)
    assert len(found) == 2 * steps
    first, second = found[:steps], found[steps:]
    for _features, labels in first:
        assert (labels.numpy()[:ROWS] >= 0).all()
    rest = np.concatenate([seen(features)[ROWS:] for features, _ in first])
    assert sorted(rest) == list(range(N))
    drawn = np.concatenate([seen(features)[:ROWS] for features, _ in first])
    assert set(drawn) == set(range(5, N, 20)), "36 draws from 5 images miss none"
    assert max(np.bincount(drawn)) - min(np.bincount(drawn)[5::20]) <= 1
    again = np.concatenate([seen(features)[:ROWS] for features, _ in second])
    assert not np.array_equal(drawn, again)
    if isinstance(mode, Paired):
        # The labeled rows have no partner; behind them, pairs are still edges of the graph.
        edges = set(zip(graph.sources().tolist(), graph.indices.tolist()))
        for features, _ in first:
            weights, index = features["pair_weight"].numpy(), seen(features)
            assert (weights[:ROWS] == 0).all()
            for a, b, weight in zip(index[ROWS::2], index[ROWS + 1 :: 2], weights[ROWS::2]):
                assert weight == 0 or {(a, b), (b, a)} & edges


def test_labeled_rows_are_a_function_of_seed_and_epoch():
    rows = LabeledRows(np.array([3, 9, 4]), 2, 8, seed=1)
    order = epoch_order(30, 1, 5)
    assert np.array_equal(rows.among(order, 5), rows.among(order, 5))
    assert not np.array_equal(rows.among(order, 5), rows.among(order, 6))
    other = dataclasses.replace(rows, seed=2)
    assert not np.array_equal(rows.among(order, 5), other.among(order, 5))


def test_without_a_graph_unlabeled_images_are_not_passed_through_the_network(split):
    batches = list(plain_batches(split, **{**WINDOW, "labeled_batch": B}))
    assert len(batches) == 2 * steps_per_epoch(N, B, B) == 14
    for features, labels in batches:
        assert set(seen(features)) <= set(range(5, N, 20)) and (labels.numpy() >= 0).all()


def test_labeled_rows_that_cannot_be_are_refused(split):
    unlabeled = dataclasses.replace(split, labels=np.full(N, UNLABELED))
    with pytest.raises(ConfigError, match="needs labeled examples"):
        plain_batches(unlabeled, **WINDOW)
    with pytest.raises(ConfigError, match="even number"):
        Paired().batches(split, random_graph(N), **{**WINDOW, "labeled_batch": 3})
    with pytest.raises(ConfigError, match="from 1 to `batch_size`"):
        plain_batches(split, **{**WINDOW, "labeled_batch": B + 1})


def test_pseudo_labels_come_with_their_weights(split):
    labels = np.arange(N) % 10
    weights = np.linspace(0, 2, N).astype(np.float32)
    examples = dataclasses.replace(
        as_examples(dataclasses.replace(split, labels=labels)),
        weights=weights,
        given=split.labeled,
    )
    for features, shown, weight in plain_batches(examples, **WINDOW):
        index = seen(features)
        assert np.array_equal(shown, labels[index]) and np.array_equal(weight, weights[index])
        assert set(index[:ROWS]) <= set(range(5, N, 20)), "the stream holds given labels only"


def test_kernel_ridge_is_that_of_scikit_learn():
    from scipy.special import softmax
    from sklearn.kernel_ridge import KernelRidge

    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 6)).astype(np.float32) * 3
    labels = np.where(np.arange(80) < 20, np.arange(80) % 4, UNLABELED)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    theirs = KernelRidge(alpha=0.05, kernel="rbf", gamma=0.5)
    theirs.fit(rows[:20], np.eye(4)[labels[:20]] - 0.25)
    expected = softmax(8 * theirs.predict(rows), axis=1)
    np.testing.assert_allclose(kernel_ridge(features, labels, 4), expected, atol=1e-5)
    # Copies are learned from like labeled images.
    copies = (rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 4)
    more = copies[0] / np.linalg.norm(copies[0], axis=1, keepdims=True)
    known = np.concatenate([labels[:20], copies[1]])
    theirs.fit(np.concatenate([rows[:20], more]), np.eye(4)[known] - 0.25)
    expected = softmax(8 * theirs.predict(rows), axis=1)
    found = kernel_ridge(features, labels, 4, copies=copies)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(GraphError, match="No image is labeled"):
        kernel_ridge(features, np.full(80, UNLABELED), 4)
    with pytest.raises(ConfigError, match="one class an image"):
        kernel_ridge(features, np.zeros((80, 4), int), 4)


def test_copies_are_the_labeled_images_mirrored_and_moved(monkeypatch):
    data = tfgraphreg.load_dataset("digits", limit=120)
    labels = np.where(np.arange(len(data.train)) % 30 == 7, data.train.labels, UNLABELED)
    known = np.flatnonzero(labels >= 0)
    config = tfgraphreg.TrainConfig(augment="flip_shift", graph_features="pixels")

    def copies(**changes):
        changed = dataclasses.replace(config, **changes)
        return features_of_copies(changed, data, labels, lambda *_: None)

    rows, classes = copies()
    assert np.array_equal(classes, np.tile(labels[known], 9))
    shown = []
    for mirrored in (False, True):
        for down, right in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
            if not mirrored and down == right == 0:
                continue
            for image in data.train.images[known]:
                image = np.fliplr(image) if mirrored else image
                # A pixel of 8 is nearest to 7 %. The edge is repeated.
                padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
                shown.append(padded[1 - down : 9 - down, 1 - right : 9 - right])
    expected = tfgraphreg.extract_features("pixels", np.stack(shown))
    np.testing.assert_array_equal(rows, expected)
    rows, classes = copies(augment="flip")
    assert np.array_equal(classes, labels[known])
    np.testing.assert_array_equal(rows, expected[4 * len(known) : 5 * len(known)])
    # Features that learn from images do so from the training images, not from the copies.
    rows, _ = copies(augment="flip", graph_features="pca")
    expected = tfgraphreg.extract_features(
        "pca", np.ascontiguousarray(data.train.images[known][:, :, ::-1]), fit=data.train.images
    )
    np.testing.assert_array_equal(rows, expected)
    assert copies(augment="none") is None
    assert copies(graph_features="file:vectors.npy") is None
    most = "tfgraphreg.recipes.copies.MOST"
    monkeypatch.setattr(most, 10 * len(known) - 1)
    assert np.array_equal(copies()[1], labels[known]), "mirror images alone"
    monkeypatch.setattr(most, 2 * len(known) - 1)
    assert copies() is None


def test_pseudo_labels_alone_are_those_of_the_method_and_given_ones_stay():
    graph = random_graph(60).symmetrized()
    labels = np.where(np.arange(60) % 6 == 0, np.arange(60) % 3, UNLABELED)
    labels[6] = 1
    found = pseudo_labels(graph, labels, 3)
    expected = propagate(graph, labels, 3)
    given = labels >= 0
    assert np.array_equal(found.labels[~given], expected.labels[~given])
    assert np.array_equal(found.labels[given], labels[given])
    assert (found.weights == 1).all() and (found.certainty[given] == 1).all()


def test_a_second_opinion_that_is_sure_decides():
    graph = random_graph(60).symmetrized()
    labels = np.where(np.arange(60) < 6, np.arange(60) % 2, UNLABELED)
    sure = np.full((60, 2), 1e-9)
    sure[:, 1] = 1 - 1e-9
    found = pseudo_labels(graph, labels, 2, second=sure)
    reached = found.certainty[6:] > 0.5
    assert reached.any() and (found.labels[6:][reached] == 1).all()
    assert np.array_equal(found.labels[:6], labels[:6])


def test_weights_by_certainty_are_those_of_iscen():
    graph = random_graph(60).symmetrized()
    labels = np.where(np.arange(60) % 5 == 0, np.arange(60) % 3, UNLABELED)
    found = pseudo_labels(graph, labels, 3, weighting="certainty")
    expected = np.zeros(60)
    for i in range(60):
        if found.labels[i] >= 0:
            members = found.labels == found.labels[i]
            expected[i] = found.certainty[i] / found.certainty[members].sum()
    expected *= (found.labels >= 0).sum() / expected.sum()
    np.testing.assert_allclose(found.weights, expected, rtol=1e-5)


def test_the_average_of_the_weights_is_the_one_of_its_definition():
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    optimizer = keras.optimizers.SGD(0.1)
    average = WeightAverage(model, optimizer, 0.9)
    model.compile(optimizer, "mse")
    kept, trace = [model.get_weights()[0]], []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: trace.append(model.get_weights()[0])
    )
    x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    model.fit(x, 3 * x, batch_size=4, epochs=3, callbacks=[average, watch], verbose=0)
    expected = kept[0]
    for step, weight in enumerate(trace, start=1):
        momentum = min(0.9, (1 + step) / (10 + step))
        expected = momentum * expected + (1 - momentum) * weight
    np.testing.assert_allclose(average.averages[0].numpy(), expected, rtol=1e-5)
    with average.in_use():
        np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5)
    assert np.array_equal(model.get_weights()[0], trace[-1])


def test_weights_are_averaged_on_all_replicas(two_replicas):
    with two_replicas.scope():
        model = keras.Sequential([keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
        optimizer = keras.optimizers.SGD(0.1)
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        average = WeightAverage(model, optimizer, 0.9)
    start = model.get_weights()[0].copy()
    x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    data = tf.data.Dataset.from_tensor_slices((x, 3 * x)).batch(8)
    model.fit(data, epochs=2, callbacks=[average], verbose=0)
    end = model.get_weights()[0]
    copies = two_replicas.experimental_local_results(average.averages[0])
    assert np.array_equal(*(copy.numpy() for copy in copies))
    assert min(start, end) < copies[0].numpy() < max(start, end)


def settings(run, **others):
    return tfgraphreg.TrainConfig(**{**QUICK, "run_dir": str(run), **others})


def comparable(run):
    """What two equal runs share: the numbers but times, and the weights' own."""
    metrics = json.loads((run.folder.path / "metrics.json").read_text())
    metrics = {k: v for k, v in metrics.items() if not k.endswith(("seconds", "export"))}
    return json.dumps([metrics, without_times(run.history)], sort_keys=True)


def without_times(rows):
    return [
        {k: float(v) for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in rows
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of two rounds."""
    import os

    folder = tmp_path_factory.mktemp("whole")
    before, os.environ["TFGRAPHREG_CACHE"] = (
        os.environ.get("TFGRAPHREG_CACHE"),
        str(folder / "cache"),
    )
    try:
        yield tfgraphreg.train(settings(folder / "run", export_dir=str(folder / "model")))
    finally:
        if before is None:
            del os.environ["TFGRAPHREG_CACHE"]
        else:
            os.environ["TFGRAPHREG_CACHE"] = before


def test_rounds_are_in_the_metrics_and_the_learning_rate_starts_over(whole):
    rounds = whole.metrics["rounds"]
    assert [row["first_epoch"] for row in rounds] == [0, 2]
    for row in rounds:
        assert row["pseudo_labels"] == 270 and row["edges"] > 0
        assert 0.5 < row["pseudo_label_accuracy"] <= 1
        assert 0.5 < row["edge_label_agreement"] <= 1
        assert 0 < row["pseudo_label_certainty"] <= 1
    assert rounds[0] != {**rounds[1], "round": 0, "first_epoch": 0}
    rates = [row["learning_rate"] for row in whole.history]
    assert rates[0] > rates[1] and rates[0] == pytest.approx(rates[2], rel=1e-4)
    assert rates[1] == pytest.approx(rates[3], rel=1e-4)
    written = [row["pseudo_label_accuracy"] for row in whole.history]
    assert (
        written
        == [rounds[0]["pseudo_label_accuracy"]] * 2 + [rounds[1]["pseudo_label_accuracy"]] * 2
    )


@pytest.mark.parametrize(
    "epoch",
    [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)],
)
def test_a_run_that_was_cut_off_in_any_round_ends_as_if_it_never_was(whole, epoch, workplace):
    stopped = f"epoch {epoch + 1}"

    def stop(what, done, total):
        if what == stopped and done:
            raise TrainingError("stopped by the test")

    with pytest.raises(TrainingError, match="stopped"):
        tfgraphreg.train(settings("run"), progress=stop)
    again = tfgraphreg.train(settings("run", resume=True))
    assert comparable(again) == comparable(whole)


@pytest.mark.one_stack
def test_many_labels_are_learned_longer_and_as_in_whole_passes(workplace, caplog):
    many = {"labels_per_class": 20, "batch_size": 50}
    expected = tfgraphreg.train(
        settings("whole", **many, epochs=6, rebuild_graph_every=3, passes_per_epoch=1)
    )

    def stop(what, done, total):
        if what == "epoch 2" and done:
            raise TrainingError("stopped by the test")

    # The second epoch begins in the middle of a pass.
    with pytest.raises(TrainingError, match="stopped"):
        tfgraphreg.train(settings("run", **many), progress=stop)
    caplog.clear()
    with caplog.at_level("INFO", logger="tfgraphreg"):
        run = tfgraphreg.train(settings("run", **many, resume=True))
    assert "An epoch is 1.5 passes over the images, 9 steps" in caplog.text
    weights = zip(run.model.get_weights(), expected.model.get_weights())
    assert all(np.array_equal(one, other) for one, other in weights)
    assert [row["first_epoch"] for row in run.metrics["rounds"]] == [0, 2]
    caplog.clear()
    with caplog.at_level("INFO", logger="tfgraphreg"):
        tfgraphreg.train(settings("few", labels_per_class=19, epochs=2))
    assert "An epoch is" not in caplog.text


@pytest.mark.one_stack
@pytest.mark.parametrize("name", ["rounds/network_1.npy", "rounds.json"])
def test_a_damaged_file_of_a_round_is_refused(name, workplace):
    def stop(what, done, total):
        if what == "epoch 4" and done:
            raise TrainingError("stopped by the test")

    with pytest.raises(TrainingError, match="stopped"):
        tfgraphreg.train(settings("run"), progress=stop)
    path = pathlib.Path("run", name)
    content = bytearray(path.read_bytes())
    # A digit, which is another one then: the file can still be read.
    place = next(i for i in range(len(content) // 2, len(content)) if 48 <= content[i] < 57)
    content[place] += 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{name} is (missing or )?damaged"):
        tfgraphreg.train(settings("run", resume=True))


@pytest.mark.one_stack
def test_edges_are_weighed_once_also_with_a_warmup(workplace, caplog):
    words = {"neighbors": "paired", "pair_correction": True, "warmup_epochs": 1, "epochs": 2}
    common = {"dataset": "digits", "backbone": "fcnn", "limit": 200, "batch_size": 64}
    with caplog.at_level("INFO", logger="tfgraphreg"):
        tfgraphreg.train(tfgraphreg.TrainConfig(**common, **words, run_dir="run"))
    assert sum("matchings drawn" in line for line in caplog.messages) == 1


def test_the_settings_name_every_method():
    assert set(METHOD_NAMES) == set(METHODS)


@pytest.mark.one_stack
def test_labels_that_must_not_be_known_change_nothing(whole, workplace):
    data = tfgraphreg.load_dataset("digits", limit=300)
    hidden = within(data)
    rng = np.random.default_rng(0)
    scrambled = dataclasses.replace(
        hidden,
        test=dataclasses.replace(hidden.test, labels=rng.permutation(hidden.test.labels)),
    )
    found = []
    for name, dataset in (("one", hidden), ("two", scrambled)):
        config = settings(
            name, dataset=tfgraphreg.TrainConfig().dataset, limit=None, labels_per_class=None
        )
        run = tfgraphreg.train(config, dataset=dataset)
        found.append((run.history, run.model.get_weights(), run.metrics["rounds"]))
    assert without_times(found[0][0]) == without_times(found[1][0])
    assert found[0][2] == found[1][2]
    assert all(np.array_equal(a, b) for a, b in zip(found[0][1], found[1][1]))
    # With the true labels known for measuring, the same labels are made, and only measured too.
    measured = [row["edges"] for row in whole.metrics["rounds"]]
    assert [row["pseudo_label_accuracy"] for row in found[0][2]] == [None, None]
    assert len(measured) == len(found[0][2])


def test_classes_without_a_labeled_image_are_left_out_in_words(workplace, caplog):
    data = within(tfgraphreg.load_dataset("digits", limit=300))
    labels = np.where(np.isin(data.train.labels, (0, 4)), -1, data.train.labels)
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels))
    config = settings(
        "run", dataset=tfgraphreg.TrainConfig().dataset, limit=None, labels_per_class=None
    )
    with caplog.at_level("INFO", logger="tfgraphreg"):
        run = tfgraphreg.train(config, dataset=data)
    assert caplog.text.count("No training image is labeled 0, 4: none will be taken for one") == 1
    assert "the other classes for equally large" in caplog.text
    (row, *_) = run.metrics["rounds"]
    assert 0 < row["labeled_edges"] < row["edges"]
    assert f"of the {row['labeled_edges']} edges between labeled images join" in caplog.text
    found = run.predictor(data.test.images)["probabilities"].argmax(axis=1)
    assert set(found) == {1, 2, 3, 5, 6, 7, 8, 9}
    assert (found == data.test.labels)[np.isin(data.test.labels, (0, 4), invert=True)].mean() > 0.7
    labels = np.where(labels == 3, 3, -1)
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels))
    with pytest.raises(ConfigError, match="labeled images of 3 only"):
        tfgraphreg.train(dataclasses.replace(config, run_dir="other"), dataset=data)
    assert not pathlib.Path("other").exists()


def within(data):
    """The dataset with three labels a class, the others unknown to everybody."""
    from tfgraphreg.data.splits import keep_labels

    return dataclasses.replace(data, train=keep_labels(data.train, 3, seed=0))


def test_what_cannot_be_together_is_refused(workplace):
    for wrong, words in (
        ({"epochs": 5}, "multiple of `rebuild_graph_every`"),
        ({"graph": "random"}, "must be knn"),
        ({"labeled_batch": 64}, "smaller than `batch_size`"),
        ({"labeled_batch": 65}, "at most `batch_size`"),
        ({"propagate": "none"}, "has an effect only with"),
        ({"propagate": "poisson-mbo", "class_sizes": "unknown"}, "must be known"),
        ({"ema_momentum": 1.0}, "in \\[0, 1\\)"),
        ({"passes_per_epoch": 0.5}, "from 1 to 1000"),
        ({"passes_per_epoch": float("nan")}, "from 1 to 1000"),
    ):
        with pytest.raises(ConfigError, match=words):
            settings("run", **wrong)
    with pytest.raises(ConfigError, match="nothing is learned from unlabeled"):
        tfgraphreg.TrainConfig(alpha=0, batch_size=128, labeled_batch=4)


@pytest.mark.one_stack
def test_a_recipe_gives_values_that_flags_overrule(workplace, capsys):
    words = ["--dataset", "digits", "--limit", "300", "--labels-per-class", "3", "--epochs", "4"]
    words += ["--backbone", "fcnn", "--augment", "none", "--min-steps", "12", "--batch-size", "64"]
    assert cli.run_command("train", [*words, "--recipe", "few-labels", "--run-dir", "r"]) == 0
    config = json.loads(pathlib.Path("r/config.json").read_text())
    assert config["propagate"] == "spreading" and config["graph_features"] == "patches"
    assert config["backbone"] == "fcnn" and config["epochs"] == 4 and config["alpha"] == 0
    assert "2 passes over the images" in capsys.readouterr().out
    assert cli.run_command("train", [*words, "--recipe", "few-label"]) == 2
    assert "Did you mean few-labels?" in capsys.readouterr().err


def test_a_recipe_in_python_is_that_of_the_command():
    config = tfgraphreg.recipe("few-labels", dataset="digits", labels_per_class=3, epochs=4)
    assert (config.propagate, config.graph_features, config.epochs) == ("spreading", "patches", 4)
    assert config.labels_per_class == 3 and config.alpha == 0
    with pytest.raises(tfgraphreg.TFGraphRegError, match="Did you mean few-labels"):
        tfgraphreg.recipe("few-label")
    with pytest.raises(tfgraphreg.TFGraphRegError, match="Unknown setting"):
        tfgraphreg.recipe("few-labels", epoch=4)
