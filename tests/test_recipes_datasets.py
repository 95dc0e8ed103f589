"""Every dataset name through a training step, evaluation and export; and what cannot work."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import cli
from tfgraphreg.compat import keras, tf
from tfgraphreg.data.dataset import class_numbers
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.export import Predictor
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.model.classifier_training import RegularizedClassifier

tfds = pytest.importorskip("tensorflow_datasets", reason="its mock_data stands for its data")

SMALL = ["--backbone", "fcnn", "--batch-size", "32", "--epochs", "1", "--graph-neighbors", "3"]


@pytest.fixture(autouse=True)
def _here(workplace, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr("tfgraphreg.data.network.reachable", lambda url: True)


def train(*words, run="runs/r"):
    return cli.run_command("train", [*SMALL, "--run-dir", run, *words])


def metrics(run="runs/r"):
    return json.loads(pathlib.Path(run, "metrics.json").read_text())


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("voc2007", 20),
        pytest.param("imagenet2012", 1000, marks=pytest.mark.slow),
        pytest.param("imagenette", 10, marks=pytest.mark.one_stack),
        pytest.param("imagenet_resized/64x64", 1000, marks=pytest.mark.slow),
        pytest.param("tfds:cifar100", 100, marks=pytest.mark.one_stack),
    ],
)
def test_a_dataset_of_tfds_is_trained_on_evaluated_and_exported(name, classes, capsys):
    pathlib.Path("data").mkdir()
    with tfds.testing.mock_data(num_examples=24):
        words = ["--dataset", name, "--data-dir", "data", "--image-size", "16"]
        assert train(*words, "--max-neighbors", "2") == 0
        if name == "voc2007":
            assert cli.run_command("evaluate", ["--run", "runs/r"]) == 0
            again = json.loads(pathlib.Path("runs/r/evaluation.json").read_text())
            assert again["test_accuracy"] == pytest.approx(metrics()["test_accuracy"], abs=1e-6)
    found = metrics()
    assert found["final"]["graph_loss"] > 0 and np.isfinite(found["final"]["loss"])
    assert 0 <= found["test_accuracy"] <= 1 and found["graph"]["nodes"] >= 24
    assert found["graph"]["edges"] == 3 * found["graph"]["nodes"]
    if name == "voc2007":
        report = found["classification"]
        assert len(report["average_precision"]) == 20
        assert 0 < found["test_mean_average_precision"] <= 1
        assert 0 < report["mean_average_precision_11_point"] <= 1
        assert 0 < found["recall_at_1"] <= 1
    predictor = Predictor("saved_models/r")
    assert len(predictor.class_names) == classes
    scores = predictor(np.zeros((3, *predictor.image_shape), np.uint8))["probabilities"]
    assert scores.shape == (3, classes)
    assert predictor.meta["multilabel"] == (name == "voc2007")


@pytest.mark.one_stack
def test_multi_hot_labels_pack_alike_and_train_in_every_way():
    with tfds.testing.mock_data(num_examples=16):
        words = ["--dataset", "voc2007", "--image-size", "16", "--seed", "3"]
        for packer in ("nsl", "stream"):
            assert train(*words, "--packer", packer, run=f"runs/{packer}") == 0
        union = ["--neighbors", "paired", "--graph", "knn,random"]
        assert train(*words, *union, run="runs/p") == 0
        few = ["--neighbors", "gathered", "--labels-per-class", "1", "--edge-kinds", "lu,uu"]
        assert train(*words, *few, run="runs/few") == 0
    assert metrics("runs/nsl")["final"] == metrics("runs/stream")["final"]
    assert metrics("runs/few")["final"]["graph_loss"] > 0


def picture(path, color, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(str(path))) % 2**32)
    pixels = np.clip(rng.normal(color, 30, (size, size, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root="set", classes=("red", "blue"), count=15):
    for number, name in enumerate(classes):
        for i in range(count):
            picture(pathlib.Path(root, name, f"{i:03d}.png"), (200 - 150 * number, 60, 60))
    return ["--dataset", f"folder:{root}"]


def test_a_folder_is_trained_on_evaluated_and_exported(capsys):
    words = folder()
    assert train(*words, "--cache-images", "--limit", "12") == 0
    assert list(pathlib.Path("cache/datasets/folders").glob("*.images.npy"))
    assert "drawn from all classes" in capsys.readouterr().out  # the first 12 are all blue
    assert metrics()["graph"]["nodes"] == 12 and metrics()["test_accuracy"] > 0
    assert Predictor("saved_models/r").class_names == ("blue", "red")


@pytest.mark.one_stack
def test_images_larger_than_memory_train_alike(monkeypatch, capsys):
    words = folder()
    assert train(*words, run="runs/memory") == 0
    assert "by the packer nsl" in capsys.readouterr().out
    monkeypatch.setattr("tfgraphreg.data.folder.IN_MEMORY_BYTES", 0)
    assert train(*words, run="runs/disk") == 0
    assert "by the packer stream" in capsys.readouterr().out
    one, two = metrics("runs/memory"), metrics("runs/disk")
    for name in ("final", "test_accuracy", "recall_at_1", "graph"):
        assert one[name] == two[name], name


def _one_line(capsys, run="runs/r"):
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and "Traceback" not in "".join(lines)
    assert not pathlib.Path(run, "metrics.json").exists()
    return lines[-1]


@pytest.mark.one_stack
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "folder:"], "`folder:` must be followed by the path of a folder"),
        (["--dataset", "voc2008"], "Did you mean voc2007?"),
        (["--dataset", "tfds:cifar1000"], "Did you mean tfds:cifar100"),
        (["--graph-features", "textur"], "Unknown graph feature. Received: 'textur'. Did you"),
        (["--graph-metric", "mahalanobi"], "Did you mean mahalanobis"),
        (["--graph", "knn,klass"], "`--graph` must name kinds of graphs (knn, mutual"),
        (["--graph", "radius"], "`--graph-radius` must be given for a radius graph"),
        (["--graph-features", "model:nowhere"], "There is no SavedModel in this folder."),
        (["--graph-features", "model:"], "must name a network"),
        (["--graph-features", "backbone:resnet500"], "Unknown backbone. Received: 'resnet500'"),
        (["--graph-features", "backbone:cnn=no.h5"], "file with the weights"),
        (["--dataset", "digits", "--graph", "class", "--graph-neighbors", "200"], "k=200, and cl"),
        (["--dataset", "digits", "--labels-per-class", "999"], "the smallest class has"),
        (["--dataset", "digits", "--objective", "sigmoid"], "A sigmoid loss needs multi-hot"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_one_line_and_status_2(words, message, capsys):
    assert train(*words) == 2
    assert message in _one_line(capsys)


def test_multi_hot_labels_are_refused_by_a_softmax_loss(capsys):
    with tfds.testing.mock_data(num_examples=8):
        words = ["--dataset", "voc2007", "--image-size", "16", "--objective"]
        assert train(*words, "softmax") == 2
        line = _one_line(capsys)
        assert "A softmax loss needs one class an image" in line and "sigmoid, or auto" in line
        assert train(*words, "npairs", run="runs/s") == 2
        assert "metric-learning objective needs one class" in _one_line(capsys, "runs/s")
        assert train(*words, "sigmoid", run="runs/t") == 0


def test_multi_hot_rows_in_a_loop_of_ones_own_are_refused_and_one_hot_ones_turned():
    image = keras.Input((4, 4, 1))
    base = build_classifier(
        keras.Model(image, keras.layers.Flatten()(image)), embedding_dim=2, num_classes=3
    )
    model = RegularizedClassifier(base, alpha=0.0, distance=DISTANCES.get("cosine"))
    with pytest.raises(ConfigError, match="has its own loss and accuracy"):
        model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match=r"own loss and accuracy.*metrics"):
        model.compile("sgd", metrics=["mse"])
    model.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    batch = {"image": tf.zeros([2, 4, 4, 1], tf.uint8)}
    rows = np.array([[1, 0, 1], [0, 1, 0]])
    with pytest.raises(ConfigError, match=r"softmax loss needs one class.*multilabel=True"):
        model.train_on_batch(batch, tf.constant(rows))
    with pytest.raises(ConfigError, match=r"softmax loss needs one class.*multi-hot"):
        RegularizedClassifier(
            base, alpha=0, distance="cosine", multilabel=True, objective="softmax"
        )
    with pytest.raises(DataError, match=r"1 rows with several, the first is row 0"):
        class_numbers(rows)
    with pytest.raises(DataError, match=r"shape \[N, C\]"):
        class_numbers(np.array([0, 1]))
    one_hot = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 0], [-1, -1, -1]])
    assert class_numbers(one_hot).tolist() == [2, 1, -1, -1]


@pytest.mark.one_stack
def test_folders_that_cannot_work_are_one_line_and_status_2(capsys):
    pathlib.Path("empty").mkdir()
    assert train("--dataset", "folder:empty") == 2
    assert "The folder holds no usable images." in _one_line(capsys)
    assert train("--dataset", "folder:nowhere", run="runs/a") == 2
    assert "The folder of images does not exist." in _one_line(capsys, "runs/a")
    assert train(*folder("one", classes=("only",)), run="runs/b") == 2
    assert "at least two classes. Received: " in _one_line(capsys, "runs/b")
    words = folder("twice")
    picture(pathlib.Path("twice/red/000.jpg"), (9, 9, 9))
    assert train(*words, run="runs/c") == 2
    line = _one_line(capsys, "runs/c")
    assert "Two files have the id 'red/000'" in line and "red/000.jpg" in line


@pytest.mark.one_stack
def test_bad_images_are_named_before_anything_else_and_can_be_left_out(capsys):
    words = folder("bad")
    reds = pathlib.Path("bad/red")
    (reds / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (reds / "renamed.jpg").write_bytes((reds / "000.png").read_bytes())
    picture(pathlib.Path("elsewhere/out.png"), (1, 2, 3))
    (reds / "linked.png").symlink_to(pathlib.Path("elsewhere/out.png").resolve())
    Image.new("1", (9_000, 9_000)).save(reds / "bomb.png")
    assert train(*words) == 2
    line = _one_line(capsys)
    for said in (
        "4 file(s)",
        "'red/broken.jpg' ",
        "'red/renamed.jpg' is PNG, which its suffix .jpg does not say",
        "'red/linked.png' is a link out of the folder",
        "'red/bomb.png' has 9000 x 9000 pixels, more than 64,000,000",
        "--on-bad-image skip",
    ):
        assert said in line, said
    assert train(*words, "--on-bad-image", "skip", run="runs/s") == 0
    assert "4 file(s)" in capsys.readouterr().out


@pytest.mark.one_stack
def test_features_of_networks_are_computed_once_and_follow_their_weights(monkeypatch, capsys):
    words = folder()
    assert train(*words, run="runs/first") == 0
    name = ["--graph-features", "model:saved_models/first"]
    assert train(*words, *name, run="runs/second") == 0
    assert len(list(pathlib.Path("cache/features").glob("features-model-*.npy"))) == 1
    calls = []
    ask = Predictor.__call__
    monkeypatch.setattr(Predictor, "__call__", lambda *a, **k: calls.append(1) or ask(*a, **k))
    build = ["build-graph", *words, "--graph-neighbors", "2", "--out", "g"]
    assert cli.main([*build, *name]) == 0 and not calls
    assert cli.main([*build, "--graph-features", "backbone:cnn=none"]) == 0
    assert len(list(pathlib.Path("cache/features").glob("features-backbone-*.npy"))) == 1
    monkeypatch.setattr("tfgraphreg.data.network.reachable", lambda url: False)
    monkeypatch.setattr("tfgraphreg.backbones.weights.reachable", lambda *a: False, raising=False)
    # Another model in the same place is another model.
    assert train(*words, "--seed", "5", "--export-dir", "saved_models/first", run="runs/o") == 0
    assert cli.main([*build, *name]) == 0 and calls
    for file in ("graph.tsv", "graph.npz", "graph.html"):
        assert pathlib.Path("g", file).stat().st_size > 100
