"""One contract for every backbone in the registry.

The ordinary run builds the smallest variant of each family, trains those that take seconds and
exports a few; `pytest -m slow` takes everything else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tfgraphreg.backbones.build import NETWORK, build_backbone
from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.compat import keras, tf

LEARNING_STEPS = 60
# Families whose smallest network takes more than a few seconds on one core: to `-m slow`.
DEEP = {
    "cait",
    "coat",
    "densenet",
    "efficientnet",
    "efficientnet_v2",
    "inception_resnet_v2",
    "inception_v3",
    "levit",
    "mobilevit",
    "mobilevit_v2",
    "nasnet",
    "nfnet",
    "nfnet_light",
    "pit",
    "pnasnet",
    "regnet_x",
    "regnet_y",
    "res2net",
    "resmlp",
    "resnest",
    "resnet_rs",
    "resnext",
    "swin_v2",
    "twins_pcpvt",
    "twins_svt",
    "xception",
}


def smallest_of_each_family() -> list[str]:
    best: dict[str, str] = {}
    for name in BACKBONES:
        record = BACKBONES.get(name)
        rival = best.get(record.family)
        if rival is None or record.parameters < BACKBONES.get(rival).parameters:
            best[record.family] = name
    return sorted(best.values())


SMALLEST = smallest_of_each_family()
QUICK = [name for name in SMALLEST if BACKBONES.get(name).family not in DEEP]
# Exported in the ordinary run: one network of each library.
EXPORTED = ["cnn", "fcnn", "mobilenet_025", "vit_tiny_patch16"]


def names(ordinary: list[str]):
    return [
        pytest.param(name, marks=[] if name in ordinary else [pytest.mark.slow])
        for name in BACKBONES
    ]


def needs_library(name: str) -> None:
    if BACKBONES.get(name).library == "kecam":
        pytest.importorskip("keras_cv_attention_models", reason="extra `kecam` is not installed")


def images(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype("uint8")


def build(name: str, side: int, channels: int = 3):
    needs_library(name)
    keras.utils.set_random_seed(1)
    return build_backbone(name, input_shape=(side, side, channels))


def all_layers(model):
    return list(model._flatten_layers(include_self=False))


def settle(model, shape) -> None:
    """Gives each batch normalization the statistics of 16 images.

    With those it is born with, the signal of an untrained network dies out on the way: MobileNet's
    features are near 1e-17, and every comparison of them would pass.
    """
    layers = [x for x in all_layers(model) if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(images(shape, 16, seed=7), training=True)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum


def trainable_parameters(model) -> int:
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.fixture(scope="module")
def model_of():
    """The last network that was built at its smallest size: the tests below share it."""
    kept: dict[str, object] = {}

    def get(name: str):
        if name not in kept:
            kept.clear()
            keras.backend.clear_session()
            kept[name] = build(name, BACKBONES.get(name).min_size)
        return kept[name]

    return get


@pytest.mark.parametrize("name", names(QUICK))
def test_contract(name, model_of):
    """Width, parameters, finite features, training against inference, gradients, learning."""
    record = BACKBONES.get(name)
    model = model_of(name)
    shape = (record.min_size, record.min_size, 3)
    batch = images(shape, 2)

    features = model(batch, training=False)
    assert features.shape == (2, record.width)
    assert model.output_shape == (None, record.width)
    assert np.isfinite(features).all()
    assert np.ptp(features.numpy(), axis=0).max() > 0, "features do not depend on the image"
    assert model.get_layer(NETWORK) is not None

    check_parameters(model, record)
    check_training_mode(model, batch)
    check_learning(model, record)


def check_parameters(model, record):
    counted = trainable_parameters(model)
    if counted != record.parameters:
        # Position tables and token mixers grow with the image.
        channels = record.channels or 1
        side = record.default_size
        sized = build_backbone(record.name, input_shape=(side, side, channels))
        counted = trainable_parameters(sized)
    assert counted == record.parameters


def check_training_mode(model, batch):
    changing = ("BatchNormalization", "Dropout", "StochasticDepth", "DropPath", "DropConnect")
    kinds = {type(layer).__name__ for layer in all_layers(model)}
    if not any(part in kind for kind in kinds for part in changing):
        np.testing.assert_allclose(
            model(batch, training=True), model(batch, training=False), rtol=1e-5, atol=1e-6
        )


def check_learning(model, record):
    """Every weight has a gradient within two steps; the loss on 16 images falls by half."""
    keras.utils.set_random_seed(2)
    batch = tf.constant(images(model.input_shape[1:], 16, seed=3), tf.float32)
    labels = tf.constant(np.arange(16) % 4)
    head = keras.layers.Dense(4)
    optimizer = keras.optimizers.Adam(record.learning_rate)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    silent: set[str] | None = None
    first = None
    for step in range(LEARNING_STEPS):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, head(model(batch, training=True)))
        weights = model.trainable_weights + head.trainable_weights
        gradients = tape.gradient(loss, weights)
        assert np.isfinite(loss.numpy()), f"the loss is {loss} in step {step}"
        if step < 2:
            quiet = {w.name for w, g in zip(weights, gradients) if not has_signal(g)}
            silent = quiet if silent is None else silent & quiet
        first = loss if first is None else first
        if step >= 2 and loss < first / 2:
            break
        optimizer.apply_gradients((g, w) for g, w in zip(gradients, weights) if g is not None)
    assert not silent, f"no gradient in two steps: {sorted(silent)[:10]}"
    assert loss < first / 2, f"the loss went from {first:.3f} to {loss:.3f} in {step + 1} steps"


def has_signal(gradient) -> bool:
    return gradient is not None and bool(tf.reduce_any(tf.not_equal(gradient, 0)))


@pytest.mark.parametrize("name", names(SMALLEST))
def test_builds_at_a_larger_odd_size(name):
    """Also one channel, and sides that differ."""
    record = BACKBONES.get(name)
    side = record.min_size + 13
    needs_library(name)
    keras.backend.clear_session()
    model = build_backbone(name, input_shape=(side, side + 6, 1))
    assert model.output_shape == (None, record.width)
    features = model(images((side, side + 6, 1), 1), training=False)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", names(["cnn", "fcnn", "mobilenet_025", "vit_tiny_patch16"]))
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(name, policy):
    """Features stay finite and near those of float32 with the same weights.

    Both policies run on a CPU; float16 there is emulated and slow.
    """
    record = BACKBONES.get(name)
    full = build(name, record.min_size)
    try:
        keras.mixed_precision.set_global_policy(policy)
        mixed = build(name, record.min_size)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert mixed.compute_dtype == policy.removeprefix("mixed_")
    shape = (record.min_size, record.min_size, 3)
    settle(full, shape)
    mixed.set_weights(full.get_weights())
    batch = images(shape, 4)
    expected = full(batch, training=False).numpy()
    received = tf.cast(mixed(batch, training=False), tf.float32).numpy()
    assert np.isfinite(received).all()
    assert np.abs(expected).max() > 1e-3
    assert np.corrcoef(received.ravel(), expected.ravel())[0, 1] > 0.9


LOADER = """
import json, sys, numpy as np, tensorflow as tf
folder = sys.argv[1]
gaps = {}
for name in json.load(open(folder + "/names.json")):
    net = tf.saved_model.load(f"{folder}/{name}").signatures["serving_default"]
    data = np.load(f"{folder}/{name}.npz")
    got = net(tf.constant(data["images"]))["features"].numpy()
    expected = data["features"]
    gaps[name] = float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))
assert not {"tf_keras", "tfgraphreg"} & set(sys.modules)
print(json.dumps(gaps))
"""


def exported(name: str, folder) -> None:
    record = BACKBONES.get(name)
    keras.backend.clear_session()
    model = build(name, record.min_size)
    shape = (record.min_size, record.min_size, 3)
    settle(model, shape)
    module = tf.Module()
    # The variables alone: a Keras model as attribute would be traced layer by layer.
    module.weights = model.weights

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8, name="images")])
    def serve(raw):
        return {"features": model(raw, training=False)}

    tf.saved_model.save(module, str(folder / name), signatures=serve)
    batch = images(shape, 3, seed=5)
    features = model(batch, training=False).numpy()
    assert np.abs(features).max() > 1e-3
    np.savez(folder / f"{name}.npz", images=batch, features=features)


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(EXPORTED, id="few"),
        pytest.param(SMALLEST, id="families", marks=pytest.mark.slow),
        pytest.param(list(BACKBONES), id="all", marks=pytest.mark.slow),
    ],
)
def test_export_runs_with_tensorflow_only(chosen, tmp_path):
    has_kecam = importlib.util.find_spec("keras_cv_attention_models") is not None
    kept = [name for name in chosen if has_kecam or BACKBONES.get(name).library != "kecam"]
    # A few at a time: the largest networks fill a disk.
    for start in range(0, len(kept), 8):
        folder = tmp_path / str(start)
        folder.mkdir()
        for name in kept[start : start + 8]:
            exported(name, folder)
        (folder / "names.json").write_text(json.dumps(kept[start : start + 8]))
        result = subprocess.run(
            [sys.executable, "-c", LOADER, str(folder)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"},
        )
        assert result.returncode == 0, result.stderr[-2000:]
        gaps = json.loads(result.stdout.strip().splitlines()[-1])
        assert {name: gap for name, gap in gaps.items() if not gap < 1e-5} == {}
        shutil.rmtree(folder)
