"""CaiT, DeiT, PiT, ConViT, Twins, MixNet and HardCoRe-NAS against timm, and as things that learn.

timm at the same input size is the reference for parameter counts and outputs. The ordinary run
takes one small variant of each family; `pytest -m slow` takes all of them.
"""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import references_timm as reference

from tfgraphreg.backbones.families import blocks_attention, convit
from tfgraphreg.backbones.families.timm_weights import load_timm_weights, weight_path
from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import ModelError

FAMILIES = {
    name: importlib.import_module(f"tfgraphreg.backbones.families.{name}")
    for name in ("cait", "deit", "pit", "convit", "twins", "mixnet", "hardcorenas")
}
FAMILY_OF = {variant: module for module in FAMILIES.values() for variant in module.VARIANTS}
RECORDS = {name: module.VARIANTS[name] for name, module in FAMILY_OF.items()}
SMALLEST = (
    "cait_xxs24",
    "deit_tiny_distilled",
    "pit_ti",
    "convit_tiny",
    "twins_svt_small",
    "mixnet_s",
    "hardcorenas_a",
)
# PCPVT has attention that SVT lacks, and a plain DeiT and a distilled PiT have other heads.
COMPARED = (*SMALLEST, "twins_pcpvt_small", "deit_tiny", "pit_ti_distilled")
# Built several times over, or trained, in the ordinary run: one stands for all.
SHORT = ("pit_ti",)
QUICK = {name for name, record in RECORDS.items() if record.parameters_with_classifier < 12e6}
CONVOLUTIONAL = ("MixNet", "HardCoRe-NAS")
LEARNING_STEPS = 30


def chosen(ordinary, names=tuple(RECORDS)):
    return [pytest.param(n, marks=[] if n in ordinary else [pytest.mark.slow]) for n in names]


def noise(size, count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *size, 3)).astype("float32")


def timm_twin(name, size, seed=0):
    """timm's model with random weights, and ours with the same ones."""
    record, module = RECORDS[name], FAMILY_OF[name]
    arguments = {} if record.family in CONVOLUTIONAL else {"img_size": size}
    theirs = reference.random_model(record.timm, seed, **arguments)
    ours = record.builder((*size, 3))
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    load_timm_weights(ours, state, module.timm_names(ours), classifier=record.classifier)
    return theirs, ours


def trainable_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize("name", chosen(QUICK))
def test_parameters_are_timms_to_the_last_one(name):
    record = RECORDS[name]
    side = record.default_size
    counted = trainable_parameters(record.builder((side, side, 3)))
    counted += record.classifier_parameters()
    assert counted == record.parameters_with_classifier
    assert counted == reference.count_parameters(record.timm)


@pytest.mark.parametrize("name", chosen(COMPARED))
def test_outputs_are_timms_with_its_weights(name):
    record = RECORDS[name]
    # 70 is covered exactly by pit_b's patches of 14 at stride 7.
    size = (70, 70) if name.startswith("pit_b") else (64, 64)
    theirs, ours = timm_twin(name, size)
    images = noise(size)
    expected = reference.features(theirs, images)
    assert expected.shape == (2, record.width)
    assert np.abs(expected[0] - expected[1]).mean() > 1e-2, "the reference hardly sees its input"
    np.testing.assert_allclose(ours(images), expected, atol=1e-4, rtol=0)
    if record.family not in CONVOLUTIONAL:
        # Several windows, summaries and rows: an axis taken for another one shows here only.
        assert not np.allclose(ours(images[:, :, ::-1]), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "size", "completed"),
    [
        ("deit_tiny", (45, 61), (48, 64)),
        pytest.param("cait_xxs24", (33, 50), (48, 64), marks=pytest.mark.slow),  # 24 layers deep
        ("pit_ti", (45, 61), (48, 64)),
        pytest.param("convit_tiny", (33, 45), (48, 48), marks=pytest.mark.slow),
        pytest.param("twins_svt_small", (65, 97), (96, 128), marks=pytest.mark.slow),
    ],
)
def test_an_odd_size_is_completed_with_zeros_below_and_to_the_right(name, size, completed):
    theirs, _ = timm_twin(name, completed)
    record = RECORDS[name]
    ours = record.builder((*size, 3))
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    load_timm_weights(ours, state, FAMILY_OF[name].timm_names(ours), classifier=record.classifier)
    images = noise(size)
    extra = [(0, new - old) for new, old in zip(completed, size)]
    padded = np.pad(images, [(0, 0), *extra, (0, 0)])
    expected = reference.features(theirs, padded)
    np.testing.assert_allclose(ours(images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", chosen(("mixnet_s",), ("mixnet_s", "hardcorenas_a")))
def test_convolutional_families_take_an_odd_size_as_timm_does(name):
    theirs, ours = timm_twin(name, (45, 61))
    images = noise((45, 61))
    np.testing.assert_allclose(ours(images), reference.features(theirs, images), atol=1e-4, rtol=0)


def may_stay_silent(path):
    """A softmax over keys ignores what is added to all of them."""
    return path.endswith(blocks_attention.SOFTMAX_INVARIANT)


@pytest.mark.parametrize("name", chosen(SHORT))
def test_every_weight_has_a_gradient_and_16_images_are_learned(name):
    """At the recommended rate the loss falls by half within `LEARNING_STEPS` steps."""
    record = RECORDS[name]
    keras.utils.set_random_seed(2)
    model = record.builder((record.min_size, record.min_size, 3))
    images = tf.constant(noise((record.min_size, record.min_size), 16, seed=3))
    labels = tf.constant(np.arange(16) % 4)
    head = keras.layers.Dense(4)
    head.build((None, record.width))
    weights = model.trainable_weights + head.trainable_weights
    optimizer = keras.optimizers.Adam(record.learning_rate)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    losses, heard = [], set()
    for step in range(LEARNING_STEPS):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, head(model(images, training=True)))
        losses.append(float(loss))
        if step >= 2 and losses[-1] < losses[0] / 2:
            break
        gradients = tape.gradient(loss, weights)
        if step < 2:
            pairs = zip(weights, gradients)
            heard |= {w.name for w, g in pairs if g is not None and np.any(g.numpy())}
        optimizer.apply_gradients(zip(gradients, weights))
    silent = [
        w.name for w in weights if w.name not in heard and not may_stay_silent(weight_path(w))
    ]
    assert not silent
    assert losses[-1] < losses[0] / 2, losses


@pytest.mark.parametrize("name", chosen(SHORT, SMALLEST))
def test_mixed_precision_gives_finite_features_near_the_float32_ones(name):
    record = RECORDS[name]
    side = record.min_size
    keras.utils.set_random_seed(0)
    plain = record.builder((side, side, 3))
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        mixed = record.builder((side, side, 3))
    finally:
        keras.mixed_precision.set_global_policy(before)
    mixed.set_weights(plain.get_weights())
    images = noise((side, side))
    features = mixed(images)
    assert features.dtype == tf.float16
    expected = plain(images).numpy()
    np.testing.assert_allclose(
        features.numpy().astype("float32"), expected, atol=0.05 * np.abs(expected).max()
    )


_RELOAD = """
import sys, numpy as np, tensorflow as tf
images = np.load(sys.argv[1] + "/images.npy")
call = tf.saved_model.load(sys.argv[1] + "/model").signatures["serving_default"]
np.save(sys.argv[1] + "/features.npy", list(call(tf.constant(images)).values())[0].numpy())
assert "tfgraphreg" not in sys.modules
"""


@pytest.mark.parametrize("name", chosen((), SMALLEST))
def test_saved_model_agrees_where_only_tensorflow_is_loaded(name, tmp_path):
    record = RECORDS[name]
    model = record.builder((record.min_size, record.min_size, 3))
    images = noise((record.min_size, record.min_size))
    np.save(tmp_path / "images.npy", images)
    tf.saved_model.save(model, str(tmp_path / "model"))
    subprocess.run([sys.executable, "-c", _RELOAD, str(tmp_path)], check=True, cwd=tmp_path)
    features = np.load(tmp_path / "features.npy")
    np.testing.assert_allclose(features, model(images), atol=1e-5)


@pytest.mark.parametrize("name", chosen(SHORT, ("pit_ti", "convit_tiny", "twins_svt_small")))
def test_a_model_is_rebuilt_from_its_configuration(name):
    record = RECORDS[name]
    model = record.builder((record.min_size, record.min_size, 3))
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    images = noise((record.min_size, record.min_size))
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)


@pytest.mark.parametrize("name", ["deit_tiny_distilled", "pit_ti_distilled"])
def test_the_distillation_token_can_be_reached(name):
    model = RECORDS[name].builder((32, 32, 3))
    both = FAMILY_OF[name].distillation_features(model)
    images = noise((32, 32))
    class_feature, distillation_feature = both(images)
    assert class_feature.shape == distillation_feature.shape == (2, RECORDS[name].width)
    assert not np.allclose(class_feature, distillation_feature)
    np.testing.assert_allclose(model(images), (class_feature + distillation_feature) / 2, atol=1e-6)


def test_a_network_without_a_distillation_token_says_so():
    with pytest.raises(ModelError, match="Only a distilled network"):
        blocks_attention.distillation_features(RECORDS["deit_tiny"].builder((32, 32, 3)))


@pytest.mark.parametrize("name", chosen(SHORT, SMALLEST))
def test_other_poolings(name):
    record = RECORDS[name]
    side = record.min_size
    map_model = record.builder((side, side, 3), pooling=None)
    features = map_model(noise((side, side)))
    assert features.ndim == 4
    assert features.shape[-1] == record.width
    assert record.builder((side, side, 3), pooling="max").output_shape == (None, record.width)
    with pytest.raises(ModelError, match='must be "avg", "max" or None'):
        record.builder((side, side, 3), pooling="sum")


def test_a_size_too_small_for_attention_is_refused():
    with pytest.raises(ModelError, match=r"cait_xxs24 needs .* at least 32 pixels"):
        RECORDS["cait_xxs24"].builder((16, 64, 3))
    with pytest.raises(ModelError, match="fixed height and width"):
        RECORDS["deit_tiny"].builder((None, None, 3))


def test_relative_positions_of_a_grid_that_is_not_square():
    places = convit.relative_positions((2, 3))
    for query in range(6):
        for key in range(6):
            right, down = key % 3 - query % 3, key // 3 - query // 3
            assert tuple(places[query, key]) == (right, down, right**2 + down**2)


def test_heads_of_convit_begin_as_a_convolution():
    """Head i of 9 attends most to neighbor i of a 3x3 kernel, seen from the middle of 5x5."""
    layer = convit.PositionScores(9, (5, 5))
    weights = layer(tf.zeros((1, 25, 1)))[0, 12].numpy()
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-5)
    seen = {divmod(int(key), 5) for key in weights.argmax(axis=0)}
    assert seen == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


def test_records_are_complete():
    for name, record in RECORDS.items():
        assert record.name == name == record.builder.__name__
        assert getattr(FAMILY_OF[name], name) is record.builder
        assert record.min_size <= record.default_size
