"""One contract for every backbone in the registry.

The ordinary run takes small networks of each library through one forward pass and two
graph-regularized steps; some also learn 16 images, meet another size and mixed precision, or are
exported. On TensorFlow 2.15 it takes one of each library. `pytest -m slow` does everything for
every network.
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
from tfgraphreg.backbones.catalog import BACKBONES, smallest_networks
from tfgraphreg.backbones.transfer import freeze, stages
from tfgraphreg.compat import keras, tf
from tfgraphreg.distances import DISTANCES
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.model.classifier_training import RegularizedClassifier

LEARNING_STEPS = 60
SMALLEST = list(smallest_networks().values())
# These take the first test in the ordinary run: small ones of each library.
ORDINARY = [
    "cnn",
    "fcnn",
    "mobilenet_025",
    "mobilevit_xxs",
    "resnet18_v2",
    "rexnet_100",
    "vit_tiny_patch16",
]
# These also learn 16 images and meet another size there, where the tests of our own families do
# the same for those.
QUICK = ["cnn", "fcnn", "mobilenet_025", "mobilenet_v3_small_minimalistic", "resnet18_v2"]
# Exported, and in mixed precision.
EXPORTED = ["cnn", "mobilenet_025", "vit_tiny_patch16"]
MIXED = ["cnn", "mobilenet_025"]
# One of each library; what else is ordinary runs on the default stack alone.
EVERY_STACK = ["cnn", "mobilenet_025", "resnet18_v2", "vit_tiny_patch16"]


def names(ordinary: list[str]):
    def marks(name: str):
        if name not in ordinary:
            return pytest.mark.slow
        return () if name in EVERY_STACK else pytest.mark.one_stack

    return [pytest.param(name, marks=marks(name)) for name in BACKBONES]


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


def last_of(make):
    """`make(name)`, kept until another name is asked for."""
    kept: dict[str, object] = {}

    def get(name: str):
        if name not in kept:
            kept.clear()
            keras.backend.clear_session()
            kept[name] = make(name)
        return kept[name]

    return get


@pytest.fixture(scope="module")
def model_of():
    """The last network that was built at its smallest size: the tests below share it."""
    return last_of(lambda name: build(name, BACKBONES.get(name).min_size))


@pytest.mark.parametrize("name", names(ORDINARY))
def test_contract(name, model_of):
    """Width, parameters, finite features, training against inference, graph-regularized steps."""
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
    check_statistics(model)
    check_stages(model)
    check_graph_steps(model, record)


@pytest.mark.parametrize("name", names(QUICK))
def test_learns(name, model_of):
    check_learning(model_of(name), BACKBONES.get(name))


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


def check_statistics(model):
    """Inference rests on averages, not on the last batch, which may hold a single image."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            assert 0.5 <= layer.momentum < 1, layer.name


def check_stages(model):
    """Freezing and thawing leaves the network as it was."""
    before = [id(w) for w in model.trainable_weights]
    assert len(stages(model)) > 1 or len(all_layers(model)) < 8
    freeze(model, 1)
    assert len(model.trainable_weights) < len(before)
    freeze(model, "backbone")
    assert model.trainable_weights == []
    freeze(model, "none")
    assert [id(w) for w in model.trainable_weights] == before


class Listening(keras.optimizers.Adam):
    """Adam that notes which weights had a gradient."""

    def apply_gradients(self, grads_and_vars, *args, **kwargs):
        pairs = list(grads_and_vars)
        self.heard |= {id(w) for g, w in pairs if has_signal(g)}
        return super().apply_gradients([p for p in pairs if p[0] is not None], *args, **kwargs)


def check_graph_steps(model, record):
    """Two steps of RegularizedClassifier: a finite loss, and a gradient for every weight."""
    start = model.get_weights()
    keras.utils.set_random_seed(2)
    base = build_classifier(model, embedding_dim=8, num_classes=4)
    wrapped = RegularizedClassifier(base, alpha=0.5, distance=DISTANCES.get("cosine"))
    optimizer = Listening(record.learning_rate)
    optimizer.heard = set()
    wrapped.compile(optimizer=optimizer, run_eagerly=True)
    shape = model.input_shape[1:]
    features = {
        "image": images(shape, 4, seed=3),
        "NL_nbr_0_image": images(shape, 4, seed=4),
        "NL_nbr_0_weight": np.full((4, 1), 0.7, np.float32),
    }
    for _ in range(2):
        logs = wrapped.train_on_batch(features, np.arange(4), return_dict=True)
        assert np.isfinite(logs["loss"]) and logs["graph_loss"] > 0, logs
    silent = [w.name for w in base.trainable_weights if id(w) not in optimizer.heard]
    assert not silent, f"no gradient in two steps: {silent[:10]}"
    model.set_weights(start)


def check_learning(model, record):
    """The loss on 16 images falls by half within `LEARNING_STEPS` steps at the record's rate."""
    keras.utils.set_random_seed(2)
    batch = tf.constant(images(model.input_shape[1:], 16, seed=3), tf.float32)
    labels = tf.constant(np.arange(16) % 4)
    head = keras.layers.Dense(4)
    optimizer = keras.optimizers.Adam(record.learning_rate)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    first = None
    for step in range(LEARNING_STEPS):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, head(model(batch, training=True)))
        assert np.isfinite(loss.numpy()), f"the loss is {loss} in step {step}"
        first = loss if first is None else first
        if loss < first / 2:
            return
        weights = model.trainable_weights + head.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
    pytest.fail(f"the loss went from {first:.3f} to {loss:.3f} in {step + 1} steps")


def has_signal(gradient) -> bool:
    return gradient is not None and bool(tf.reduce_any(tf.not_equal(gradient, 0)))


@pytest.mark.parametrize("name", names(QUICK))
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


def through(values, dtype: str):
    """Rounds float32 tensors to the numbers that `dtype` has; leaves others alone."""

    def rounded(value):
        if tf.is_tensor(value) and value.dtype == tf.float32:
            return tf.cast(tf.cast(value, dtype), tf.float32)
        return value

    return tf.nest.map_structure(rounded, values)


def rounded_features(model, batch, dtype: str) -> np.ndarray:
    """Features in float32 arithmetic, with weights and every layer's output rounded to `dtype`.

    What the format costs by itself, whatever Keras makes of a mixed policy: a deep network with
    few values in each normalization answers the rounding of bfloat16 with other features
    altogether (dla60x_c: a correlation of 0.68 with what it gives unrounded).
    """
    weights, layers = model.get_weights(), all_layers(model)

    def rounding(call):
        return lambda *args, **kwargs: through(call(*args, **kwargs), dtype)

    model.set_weights([np.asarray(through(tf.constant(w), dtype)) for w in weights])
    with pytest.MonkeyPatch.context() as patch:
        for layer in layers:
            patch.setattr(layer, "call", rounding(layer.call))
        features = model(batch, training=False).numpy()
    model.set_weights(weights)
    return features


@pytest.fixture(scope="module")
def settled_model():
    """The last network that was built and given statistics, for both of the policies below."""

    def make(name: str):
        side = BACKBONES.get(name).min_size
        model = build(name, side)
        settle(model, (side, side, 3))
        return model

    return last_of(make)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", names(MIXED))
def test_mixed_precision(name, policy, settled_model):
    """Features are finite and near those of float32, unless rounding alone moves them away.

    Both policies run on a CPU; float16 there is emulated and slow.
    """
    side = BACKBONES.get(name).min_size
    needs_library(name)
    full = settled_model(name)
    try:
        keras.mixed_precision.set_global_policy(policy)
        mixed = build(name, side)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    dtype = policy.removeprefix("mixed_")
    assert mixed.compute_dtype == dtype
    mixed.set_weights(full.get_weights())
    batch = images((side, side, 3), 4)
    rounded = rounded_features(full, batch, dtype)
    if not np.isfinite(rounded).all():
        # Statistics of 16 images can make others too large for float16 (EfficientNet-B7); those
        # images themselves they make small.
        batch = images((side, side, 3), 16, seed=7)[:4]
        rounded = rounded_features(full, batch, dtype)
    received = tf.cast(mixed(batch, training=False), tf.float32).numpy()
    expected = full(batch, training=False).numpy()
    assert np.isfinite(received).all()
    assert np.abs(expected).max() > 1e-3

    def strayed(features):
        return 1 - np.corrcoef(features.ravel(), expected.ravel())[0, 1]

    lost, by_rounding = strayed(received), strayed(rounded)
    assert lost < max(0.1, 2 * by_rounding), f"{lost:.4f} against {by_rounding:.4f} by rounding"


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
    # As a graph, which is how a live model is asked; layer by layer it rounds otherwise.
    features = serve(tf.constant(batch))["features"].numpy()
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
