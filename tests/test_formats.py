"""TFLite and ONNX files answer as the SavedModel does, without TensorFlow, or are refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tfgraphreg import cli, compat, formats
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.errors import ConfigError, MissingExtraError, ModelError
from tfgraphreg.export import Predictor, export
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.recipes.exports import converted, export_run
from tfgraphreg.recipes.train import train
from tfgraphreg.runs.folder import read_run

FILES = ("model.tflite", "model_float16.tflite", "model_int8.tflite", "model.onnx")
NAMES = ("tflite", "tflite_float16", "tflite_int8", "onnx")

TFLITE_ALONE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
ask = Interpreter(model_path=sys.argv[1]).get_signature_runner("serving_default")
np.save(sys.argv[3], ask(image=np.load(sys.argv[2]))["probabilities"])
assert "tensorflow" not in sys.modules and "tfgraphreg" not in sys.modules
"""
ONNX_ALONE = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(["probabilities"], {"image": np.load(sys.argv[2])})[0])
assert "tensorflow" not in sys.modules and "tfgraphreg" not in sys.modules
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        config = TrainConfig(
            dataset="digits",
            backbone="fcnn",
            epochs=1,
            alpha=0.0,
            run_dir=str(folder / "run"),
            export_dir=str(folder / "model"),
            export_format="saved_model," + ",".join(NAMES),
        )
        yield train(config)


@pytest.fixture(scope="module")
def pixels():
    return np.asarray(load_dataset("digits").test.images[:200])


def test_a_run_has_every_format_and_what_it_is_worth(run):
    found = run.metrics["exports"]
    assert set(found) == {"saved_model", *NAMES}
    assert found == json.loads((run.path / "metrics.json").read_text())["exports"]
    for name, file in zip(NAMES, FILES):
        row, path = found[name], run.folder.export_path / file
        assert row["bytes"] == path.stat().st_size and row["images"] == 200
        assert row["milliseconds"] > 0 and 0 <= row["largest_difference"] < 0.02
        assert row["same_class"] >= (1 if "int8" not in name and "16" not in name else 0.97)
    assert found["tflite"]["largest_difference"] < 1e-5
    assert found["onnx"]["largest_difference"] < 1e-5
    sizes = [found[name]["bytes"] for name in NAMES]
    assert sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.4 * sizes[0]


@pytest.mark.parametrize(("file", "code"), [(FILES[0], TFLITE_ALONE), (FILES[3], ONNX_ALONE)])
def test_a_process_without_tensorflow_gives_the_same(run, pixels, tmp_path, file, code):
    np.save(tmp_path / "in.npy", pixels[:7])
    words = [run.folder.export_path / file, tmp_path / "in.npy", tmp_path / "out.npy"]
    command = [sys.executable, "-I", "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = run.predictor(pixels[:7])["probabilities"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_the_embedding_is_the_same_too(run, pixels):
    expected = run.predictor(pixels)["embedding"]
    for name in ("tflite", "onnx"):
        file = run.folder.export_path / formats.FORMATS[name].file
        found = formats.load(name, file.read_bytes())(pixels)["embedding"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_file_that_is_gone_is_made_again_by_resume_and_by_export(run, capsys):
    file = run.folder.export_path / "model.tflite"
    before = file.read_bytes()
    file.unlink()
    train(run.config.__class__(**{**vars(run.config), "resume": True}))
    assert file.read_bytes() == before
    file.unlink()
    words = ["--run", str(run.path), "--export-format", "tflite"]
    assert cli.run_command("export", words) == 0
    assert "model.tflite (tflite)" in capsys.readouterr().out and file.exists()
    assert set(read_run(run.path).finished()["exports"]) == {"saved_model", *NAMES}


def test_names_that_are_no_format(run, capsys):
    with pytest.raises(ConfigError, match=r"tflight.*Did you mean tflite"):
        TrainConfig(export_format="saved_model,tflight")
    with pytest.raises(ConfigError, match="names with commas"):
        TrainConfig(export_format="")
    words = ["--run", str(run.path), "--export-format", "saved_model"]
    assert cli.run_command("export", words) == 2
    assert "must name a format beside the SavedModel" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "package"), [("tflite", "ai-edge-litert"), ("onnx", "tf2onnx")])
def test_without_the_extra_nothing_is_begun(name, package, monkeypatch, tmp_path):
    found = compat.importlib.util.find_spec
    absent = package.replace("-", "_")
    monkeypatch.setattr(
        compat.importlib.util,
        "find_spec",
        lambda module: None if module == absent else found(module),
    )
    config = TrainConfig(dataset="digits", run_dir=str(tmp_path / "run"), export_format=name)
    with pytest.raises(MissingExtraError, match=rf'{package}.*"tfgraphreg\[{name}\]"'):
        train(config)
    assert not (tmp_path / "run").exists()


def exported(folder, through=lambda x: x):
    backbone = build_backbone("fcnn", input_shape=(8, 8, 1))
    image = keras.Input((8, 8, 1))
    features = keras.layers.Lambda(through)(backbone(image))
    model = build_classifier(keras.Model(image, features), embedding_dim=4, num_classes=3)
    export(model, folder, class_names=("a", "b", "c"))
    return Predictor(folder)


def test_an_operation_that_a_format_lacks_is_named(tmp_path, capfd):
    predictor = exported(tmp_path / "m", lambda x: tf.math.erfinv(tf.tanh(x) / 2))
    with pytest.raises(ModelError, match=r"converted to TFLite \(it has no Erfinv\)"):
        formats.convert(predictor, "tflite")
    with pytest.raises(ModelError, match=r"converted to ONNX \(it has no Erfinv\)") as error:
        formats.convert(predictor, "onnx")
    assert "\n" not in str(error.value) and not capfd.readouterr().err


def test_a_refusal_leaves_the_run_as_it_was(run, monkeypatch):
    folder = read_run(run.path)
    files = [path for path in folder.export_path.iterdir() if path.is_file()]
    before = [path.read_bytes() for path in (*files, run.path / "metrics.json")]

    def another(name, content):
        return lambda images: {"probabilities": np.full((len(images), 10), 0.1, np.float32)}

    monkeypatch.setattr(formats, "load", another)
    with pytest.raises(ModelError, match=r"onnx differs from the SavedModel by .*than 0\.001"):
        export_run(folder, ["onnx"])
    assert [path.read_bytes() for path in (*files, run.path / "metrics.json")] == before
    assert {path for path in folder.export_path.iterdir() if path.is_file()} == set(files)


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_a_network_that_converts_and_cannot_be_run_is_refused(run, pixels, name):
    """As MobileViT v2 in LiteRT; here for images of another size than the network's."""
    expected = run.predictor(pixels)["probabilities"]
    with pytest.raises(ModelError, match=f"converted to {name} and cannot be run") as error:
        converted(run.predictor, name, 1e-3, pixels[:, :7, :7], expected)
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused():
    for name in ("tflite", "onnx"):
        with pytest.raises(ModelError, match="can be loaded"):
            formats.load(name, b"no model")


def test_a_model_of_an_earlier_version_says_so(tmp_path):
    predictor = exported(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    predictor._loaded = tf.Module()
    with pytest.raises(ModelError, match="of an earlier version"):
        formats.convert(predictor, "tflite")
