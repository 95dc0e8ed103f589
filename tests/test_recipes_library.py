"""Training as a library: objects in, a run out, nothing printed."""

import dataclasses
import pathlib

import numpy as np
import pytest

import tfgraphreg
from tfgraphreg import TrainConfig, train
from tfgraphreg.compat import keras
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.errors import ConfigError, DataError, ModelError, RunError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.model.classifier import build_classifier, infer
from tfgraphreg.propagation import propagate
from tfgraphreg.recipes.given import Given
from tfgraphreg.recipes.material import prepare
from tfgraphreg.recipes.network import build_model
from tfgraphreg.runs.run import read_finished

pytestmark = pytest.mark.usefixtures("workplace")

FAST = {"epochs": 1, "batch_size": 50, "embedding_dim": 8}
NAMED = {"dataset": "digits", "backbone": "fcnn", "limit": 200, **FAST}


def quiet(what, done, total):
    pass


def small_model():
    return keras.Sequential(
        [
            keras.layers.InputLayer((8, 8, 1)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu"),
        ],
        name="mine",
    )


def test_values_say_in_one_line_what_they_hold():
    data = load_dataset("digits", limit=200)
    assert repr(data.train) == "Split(200 images of 8 x 8 x 1, 200 labeled)"
    sizes = f"200 train, 0 validation, {len(data.test)} test images"
    assert repr(data) == f"Dataset('digits': {sizes}, 10 classes)"
    labels = np.where(np.arange(200) < 100, data.train.labels, -1)
    graph = knn_graph(data.train.images.reshape(200, -1).astype(np.float32), k=5)
    found = propagate(graph, labels, 10, method="laplace")
    nodes = f"{int(found.reached.sum())} of 200 nodes reached"
    assert repr(found) == f"Propagation(laplace: {nodes}, 10 classes)"


def test_objects_in_a_run_out_twice_in_one_process(capfd):
    data = load_dataset("digits", limit=200)
    vectors = data.train.images.reshape(200, -1).astype(np.float64)
    own = small_model()
    before = [w.copy() for w in own.get_weights()]
    first = train(TrainConfig(**FAST, run_dir="a"), dataset=data, vectors=vectors, model=own)
    assert any((x != y).any() for x, y in zip(before, own.get_weights()))
    second = train(
        TrainConfig(**FAST, neighbors="gathered", run_dir="b"),
        dataset=data,
        graph=knn_graph(vectors.astype(np.float32), k=3),
        model=small_model(),
    )
    assert first.metrics["graph"]["edges"] == 2000 and second.metrics["graph"]["edges"] == 600
    for run in (first, second):
        assert run.metrics["final"]["graph_loss"] > 0 and len(run.history) == 1
        live = infer(run.model, data.test.images[:20])["embedding"]
        served = run.predictor(data.test.images[:20])["embedding"]
        np.testing.assert_allclose(live, served, atol=1e-5)
        assert len(repr(run)) < 150 and "digits" in repr(run) and "test accuracy" in repr(run)
        where = run.predictor.folder
        assert repr(run.predictor) == f"Predictor('{where}': images of 8 x 8 x 1, 10 classes)"
        assert read_finished(run.path).config.result_fields() == run.config.result_fields()
    said = capfd.readouterr()
    assert said.out == "" and "tfgraphreg" not in said.err
    # What was passed is known by its content: the same objects go on, others do not.
    again = {"vectors": vectors, "model": own, "dataset": data}
    with pytest.raises(RunError, match=r"another config.*backbone: given:mine#"):
        train(TrainConfig(**FAST, run_dir="a", resume=True), **again)
    other = dataclasses.replace(data, class_names=tuple("abcdefghij"))
    with pytest.raises(RunError, match=r"another config.*dataset: given:digits#"):
        train(TrainConfig(**FAST, run_dir="b", resume=True), **{**again, "dataset": other})


@pytest.mark.one_stack
@pytest.mark.parametrize(
    ("settings", "arguments", "error", "words"),
    [
        ({}, {"dataset": [1]}, ConfigError, "`dataset` must be a Dataset. Received: .* type list"),
        ({}, {"graph": "edges.tsv"}, ConfigError, "`graph` must be a SimilarityGraph"),
        ({}, {"vectors": np.ones(5)}, DataError, r"a matrix \[N, D\] of finite numbers.*\(5,\)"),
        ({}, {"vectors": np.full((200, 2), np.nan)}, DataError, "finite"),
        ({}, {"vectors": np.ones((7, 2))}, DataError, "7 rows, 200 training images"),
        ({}, {"model": "resnet50"}, ConfigError, "`model` must be a keras.Model"),
        ({"alpha": 0.0}, {"vectors": np.ones((200, 2))}, ConfigError, "only with `alpha` above 0"),
        ({"graph": "mutual"}, {"graph": "own"}, ConfigError, "the config names one by `graph`"),
        ({"graph_neighbors": 3}, {"graph": "own"}, ConfigError, "`graph_neighbors` has an effect"),
        ({"limit": None}, {"model": "wide"}, ModelError, "takes other images"),
    ],
)
def test_what_cannot_be_used_is_one_short_line(settings, arguments, error, words):
    made = {"own": knn_graph(np.eye(20, dtype=np.float32), k=2)}
    if arguments.get("graph") in made:
        arguments = {"graph": made[arguments["graph"]]}
    if arguments.get("model") == "wide":
        wide = [keras.layers.InputLayer((9, 9, 1)), keras.layers.Flatten()]
        arguments = {"model": keras.Sequential(wide)}
        settings = {"backbone": TrainConfig().backbone, **settings}
    with pytest.raises(error, match=words) as caught:
        train(TrainConfig(**{**NAMED, **settings}, run_dir="r"), **arguments)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    assert not pathlib.Path("r").exists()


def test_a_dataset_in_place_of_the_config_or_of_a_setting_is_one_short_line():
    data = load_dataset("digits", limit=20)
    for call in (lambda: train(data), lambda: TrainConfig(dataset=data)):
        with pytest.raises(ConfigError, match="an object of type Dataset") as caught:
            call()
        assert len(str(caught.value)) < 150


@pytest.mark.one_stack
def test_a_finished_run_is_given_more_epochs_and_starts_another():
    fixed = {**NAMED, "schedule": "fixed"}
    whole = train(TrainConfig(**{**fixed, "epochs": 3}, run_dir="whole"))
    first = train(TrainConfig(**fixed, run_dir="r"))
    more = train(TrainConfig(**{**fixed, "epochs": 3}, run_dir="r", resume=True))
    assert [row["epoch"] for row in more.history] == [0, 1, 2]
    assert more.history[0]["loss"] == first.history[0]["loss"]
    assert (more.metrics["continued_after"], whole.metrics["continued_after"]) == ([1], [])
    assert read_finished("r").metrics["test_accuracy"] == more.metrics["test_accuracy"]
    with pytest.raises(RunError, match="epochs: 3 against 2"):
        train(TrainConfig(**{**fixed, "epochs": 2}, run_dir="r", resume=True))
    again = train(TrainConfig(**{**fixed, "epochs": 3}, run_dir="r", resume=True))
    assert again.metrics == {**more.metrics, **again.metrics} and again.model is None

    data = load_dataset("digits", limit=200)
    wrapped = build_model(TrainConfig(**NAMED, weights="run:r"), data)
    live = infer(wrapped.base_model, data.test.images)
    for name, served in more.predictor(data.test.images).items():
        np.testing.assert_allclose(live[name], served, atol=1e-5)
    # Classes of other names are learned anew, the embedding is taken over.
    other = dataclasses.replace(data, class_names=tuple("abcdefghij"))
    fresh = infer(
        build_model(TrainConfig(**NAMED, weights="run:r"), other).base_model, data.test.images
    )
    np.testing.assert_allclose(fresh["embedding"], live["embedding"], atol=1e-5)
    assert np.abs(fresh["probabilities"] - live["probabilities"]).max() > 0.1
    with pytest.raises(ConfigError, match=r"same backbone. Received: backbone=cnn.*fcnn"):
        train(TrainConfig(**{**NAMED, "backbone": "cnn"}, weights="run:r", run_dir="x"))
    with pytest.raises(RunError, match="no run of this name"):
        train(TrainConfig(**NAMED, weights="run:nowhere", run_dir="x"))


@pytest.mark.one_stack
def test_runs_that_differ_in_their_seed_share_features_and_graph():
    cache = pathlib.Path("cache")

    def kept(limit=None, **settings):
        given = Given(dataset=load_dataset("digits", limit=limit))
        prepare(given.in_config(TrainConfig(**settings)), quiet, given)
        return [len(list(cache.glob(kind))) for kind in ("graphs/*.npz", "features/*.npy")]

    assert [kept(seed=seed, labels_per_class=5) for seed in range(3)] == [[1, 1]] * 3
    # Other images, and edges that labels or the seed decide, are something else.
    assert kept(limit=100) == [2, 2]
    assert [kept(seed=seed, labels_per_class=5, edge_kinds="ll") for seed in range(2)][1] == [4, 2]
    assert [kept(seed=seed, graph="class", graph_neighbors=2) for seed in range(2)][1] == [6, 2]


def test_the_public_names_are_what_a_notebook_needs():
    assert tfgraphreg.train is train and build_classifier is tfgraphreg.build_classifier
