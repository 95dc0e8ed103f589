"""Weights and the transfer recipe through the command line, as a person fine-tunes."""

import pathlib

import numpy as np
import pytest
import references_timm as reference

from tfgraphreg import cli

QUICK = ["--dataset", "digits", "--limit", "40", "--batch-size", "20", "--epochs", "1"]


@pytest.fixture(autouse=True)
def _here(workplace, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def train(*words):
    return cli.run_command("train", [*QUICK, "--run-dir", "run", "--export-dir", "model", *words])


def trained_weights():
    from tfgraphreg.compat import tf

    reader = tf.train.load_checkpoint("run/checkpoints/last")
    values = (reader.get_tensor(name) for name in reader.get_variable_to_shape_map())
    return [value for value in values if isinstance(value, np.ndarray)]


def timm_file(name, path="weights.safetensors"):
    from safetensors.numpy import save_file

    theirs = reference.random_model(name)
    state = {key: np.ascontiguousarray(v.numpy()) for key, v in theirs.state_dict().items()}
    save_file(state, path)
    return state


@pytest.mark.slow
def test_timm_weights_are_trained_from_and_exported(capsys):
    state = timm_file("mnasnet_small")
    words = ["--backbone", "mnasnet_small", "--weights", "timm:weights.safetensors"]
    assert train(*words, "--freeze", "2", "--alpha", "0") == 0
    assert "Frozen: " in capsys.readouterr().out
    assert pathlib.Path("model/saved_model.pb").exists()
    stem, head = (state[f"{n}.weight"].transpose(2, 3, 1, 0) for n in ("conv_stem", "conv_head"))
    kept = trained_weights()
    assert any(w.shape == stem.shape and np.array_equal(w, stem) for w in kept)
    # The last stage has moved, but not far.
    near = [w for w in kept if w.shape == head.shape and np.abs(w - head).max() < 0.05]
    assert near and not any(np.array_equal(w, head) for w in near)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backbone", "resnet51"], "Unknown backbone"),
        (["--backbone", "cnn", "--weights", "imagenet"], "publishes no ImageNet weights for cnn"),
        (["--backbone", "cnn", "--weights", "absent.h5"], "absent.h5"),
        (["--backbone", "cnn", "--weights", "timm:x.safetensors"], "takes no timm weights"),
        (["--backbone", "dla34", "--weights", "timm:absent.safetensors"], "does not exist"),
        (["--backbone", "dla34", "--weights", "timm:weights.pth"], "safetensors files only"),
        (["--backbone", "dla34", "--weights", "timm:bad.safetensors"], "cannot be read as"),
        (["--backbone", "vit", "--image-size", "40"], "Use image_size=48"),
        (["--backbone", "cnn", "--freeze", "9"], "`--freeze` must be none, backbone or a number"),
        (["--augment", "mixup", "--alpha", "0.1"], "an edge between mixtures has no meaning"),
        (["--augment", "cutmix"], "an edge between mixtures has no meaning"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_work_is_one_sentence_and_leaves_nothing(words, text, capsys):
    pathlib.Path("bad.safetensors").write_bytes(b"\xff" * 64)
    assert train(*words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and text in said and "\n" not in said
    assert not pathlib.Path("run").exists() and not pathlib.Path("model").exists()


def test_imagenet_without_a_network_is_one_sentence(monkeypatch, capsys):
    from tfgraphreg.backbones import weights

    monkeypatch.setitem(weights._HOSTS, "keras.applications", "http://127.0.0.1:9")
    assert train("--backbone", "mobilenet_025", "--weights", "imagenet") == 2
    said = capsys.readouterr().err.strip()
    assert "cannot be reached" in said and "\n" not in said
    assert not pathlib.Path("run").exists()


def test_weights_of_another_network_are_refused(capsys):
    timm_file("mnasnet_small")
    assert train("--backbone", "rexnet_100", "--weights", "timm:weights.safetensors") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: The state dict must be that of the same model")
    assert not pathlib.Path("model").exists()


def test_the_run_says_what_it_does_to_small_gray_images(capsys):
    assert train("--backbone", "mobilenet_025", "--alpha", "0") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Images of 8x8 are resized to 32x32 inside the model" in said
    assert "Gray images are repeated into 3 channels" in said


def test_the_table_is_filtered_by_text_and_by_size(capsys):
    assert cli.run_command("backbones", ["rexnet", "--max-parameters", "4"]) == 0
    said = capsys.readouterr().out
    assert "2 backbones" in said and "rexnet_100" in said and "rexnet_130" not in said
    assert cli.run_command("backbones", ["twins_svt_*"]) == 0
    assert "3 backbones" in capsys.readouterr().out
    assert cli.run_command("backbones", ["nothing like it"]) == 0
    assert "0 backbones" in capsys.readouterr().out
