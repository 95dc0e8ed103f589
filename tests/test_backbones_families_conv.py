"""ReXNet, Res2Net, MNASNet, PNASNet, SelecSLS, DLA and DPN against timm, and as things that learn.

The ordinary run takes one small variant of each family; `pytest -m slow` takes all of them.
"""

import importlib

import numpy as np
import pytest
import references_timm as reference

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families.timm_weights import load_timm_weights, mechanical_names
from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import DataError, ModelError

FAMILIES = {
    name: importlib.import_module(f"tfgraphreg.backbones.families.{name}")
    for name in ("rexnet", "res2net", "mnasnet", "pnasnet", "selecsls", "dla", "dpn")
}
FAMILY_OF = {variant: module for module in FAMILIES.values() for variant in module.VARIANTS}
RECORDS = {name: module.VARIANTS[name] for name, module in FAMILY_OF.items()}
# timm's DLA fails on sizes that its halvings do not divide, where ours rounds up.
ODD = {"DLA": (96, 32)}
COMPARED = ("rexnet_100", "res2next50", "mnasnet_small", "selecsls42b", "dla46x_c", "dpn48b")
TRAINED = (
    "mnasnet_small", "dla46x_c", "rexnet_100", "selecsls42b", "dpn48b", "res2net50_26w_4s", "dla34",
    "pnasnet5mobile",
)  # fmt: skip
STEPS = 12


def chosen(ordinary, names):
    return [pytest.param(n, marks=[] if n in ordinary else [pytest.mark.slow]) for n in names]


def noise(size, count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *size, 3)).astype("float32")


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def timm_state(name):
    theirs = reference.random_model(RECORDS[name].timm)
    return theirs, {key: value.numpy() for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize("name", chosen(("mnasnet_small", "dla46x_c"), RECORDS))
def test_counts_and_width_are_those_of_timm(name):
    record = RECORDS[name]
    model = record.builder((32, 32, 3))
    assert model.output_shape == (None, record.width)
    assert parameters(model) + record.classifier_parameters() == record.parameters_with_classifier
    keras.backend.clear_session()


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if record.timm])
def test_records_agree_with_timm(name):
    record = RECORDS[name]
    timm = reference.load_timm()
    settings = timm.get_pretrained_cfg(record.timm)
    assert reference.count_parameters(record.timm) == record.parameters_with_classifier
    assert record.classifier == (settings.classifier,)
    assert record.default_size == settings.input_size[1]
    if not name.startswith("dpn68b"):  # two sets of weights, each with its own images
        np.testing.assert_allclose(record.mean, settings.mean, atol=1e-6)
        np.testing.assert_allclose(record.std, settings.std, atol=1e-4)


@pytest.mark.parametrize("name", chosen(COMPARED, [n for n, r in RECORDS.items() if r.timm]))
def test_outputs_are_those_of_timm_with_its_weights(name):
    record, module = RECORDS[name], FAMILY_OF[name]
    theirs, state = timm_state(name)
    ours = record.builder((None, None, 3))
    load_timm_weights(ours, state, module.timm_names(ours), classifier=record.classifier)
    for size in ((64, 64), ODD.get(record.family, (45, 71))):
        images = noise(size)
        expected = reference.features(theirs, images)
        # Some nets end in sums of a hundred: 1e-4 is taken of the largest feature then.
        tolerance = 1e-4 * max(1.0, np.abs(expected).max())
        got = ours(images, training=False).numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_sixteen_images_are_learned_and_every_weight_takes_part(name):
    record = RECORDS[name]
    keras.utils.set_random_seed(1)
    backbone = record.builder((33, 32, 3))
    model = keras.Sequential([backbone, keras.layers.Dense(10)])
    images, labels = noise((33, 32), count=16), np.arange(16) % 10
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Adam as written in its paper; the optimizer class differs between Keras versions.
    optimizer = keras.optimizers.Adam(record.learning_rate)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables))
        return loss, [tf.reduce_max(tf.abs(gradient)) for gradient in gradients]

    model(images[:1])
    optimizer.build(model.trainable_variables)
    first, sizes = step()
    dead = [v.name for v, size in zip(model.trainable_variables, sizes) if not size > 0]
    assert not dead
    losses = [float(step()[0]) for _ in range(STEPS)]
    assert losses[-1] < float(first) / 2, (float(first), losses)
    keras.backend.clear_session()


@pytest.mark.parametrize("name", ["dla46x_c", "mnasnet_small"])
def test_pooling_and_odd_sizes(name):
    record = RECORDS[name]
    images = noise((37, 50))
    keras.utils.set_random_seed(0)
    pooled = record.builder((37, 50, 3))
    feature_map = record.builder((37, 50, 3), pooling=None)
    feature_map.set_weights(pooled.get_weights())
    outputs = feature_map(images).numpy()
    assert outputs.shape == (2, 2, 2, record.width)
    np.testing.assert_allclose(outputs.mean((1, 2)), pooled(images), atol=1e-5)
    feature_map = record.builder((37, 50, 3), pooling="max")
    feature_map.set_weights(pooled.get_weights())
    np.testing.assert_allclose(outputs.max((1, 2)), feature_map(images), atol=1e-6)
    with pytest.raises(ModelError, match='`pooling` must be "avg", "max" or None'):
        record.builder((37, 50, 3), pooling="sum")


@pytest.mark.parametrize("native", [True, False])
def test_grouped_convolution_and_its_gradient_equal_separate_ones(native, monkeypatch):
    if native and not blocks._has_grouped_gradient("float32"):
        pytest.skip("TensorFlow cannot differentiate grouped convolutions on this processor")
    monkeypatch.setattr(blocks, "_has_grouped_gradient", lambda dtype: native)
    images = tf.constant(np.random.default_rng(0).normal(size=(2, 7, 7, 12)).astype("float32"))
    layer = blocks.GroupedConv2D(8, 3, strides=2, groups=4)
    with tf.GradientTape() as tape:
        tape.watch(images)
        got = layer(images)
        loss = tf.reduce_sum(tf.sin(got))
    gradients = tape.gradient(loss, [images, layer.kernel])
    with tf.GradientTape() as tape:
        tape.watch(images)
        kernels = tf.split(tf.convert_to_tensor(layer.kernel), 4, axis=3)
        pieces = [
            tf.nn.conv2d(piece, kernel, 2, "VALID")
            for piece, kernel in zip(tf.split(images, 4, axis=3), kernels)
        ]
        loss = tf.reduce_sum(tf.sin(tf.concat(pieces, 3)))
    expected = tape.gradient(loss, [images, layer.kernel])
    np.testing.assert_allclose(got, tf.concat(pieces, 3), atol=1e-5)
    for one, other in zip(gradients, expected):
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, atol=1e-4)


def test_lowest_padding_never_wins():
    images = -1 - tf.random.uniform([1, 6, 6, 2], seed=1)
    inputs = blocks.image_input((6, 6, 2))
    pooled = keras.Model(inputs, blocks.max_pool(inputs, 3, 2, "pool"))(images)
    assert pooled.shape == (1, 3, 3, 2)
    assert float(tf.reduce_max(pooled)) <= -1


@pytest.mark.parametrize("name", ["net.keras", pytest.param("net", marks=pytest.mark.slow)])
def test_a_network_is_saved_and_loaded(name, tmp_path):
    model = RECORDS["dla46x_c"].builder((32, 32, 3))
    images = noise((32, 32))
    model.save(str(tmp_path / name))
    again = keras.models.load_model(str(tmp_path / name))
    np.testing.assert_allclose(again(images), model(images), atol=1e-5)


@pytest.fixture(scope="module")
def small():
    model = RECORDS["mnasnet_small"].builder((32, 32, 3))
    _, state = timm_state("mnasnet_small")
    return model, state


def test_a_safetensors_file_fills_the_network(small, tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy", reason="weights are safetensors files")
    model, state = small
    extra = {"classifier.weight": np.zeros((1000, 1280), "float32"), **state}
    path = tmp_path / "mnasnet.safetensors"
    numpy_files.save_file({k: np.ascontiguousarray(v) for k, v in extra.items()}, str(path))
    load_timm_weights(model, path, mechanical_names(model), classifier=("classifier",))
    kernel = model.get_layer("conv_stem").get_weights()[0]
    np.testing.assert_array_equal(kernel, state["conv_stem.weight"].transpose(2, 3, 1, 0))
    path.write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_timm_weights(model, path, mechanical_names(model))


def test_weights_that_do_not_fit_are_refused_and_change_nothing(small, tmp_path):
    model, state = small
    names, before = mechanical_names(model), model.get_weights()
    lacking = {key: value for key, value in state.items() if key != "conv_stem.weight"}
    with pytest.raises(ModelError, match=r"state dict lacks: conv_stem\.weight"):
        load_timm_weights(model, lacking, names)
    with pytest.raises(ModelError, match=r"does not use: blocks\.9\.weight"):
        load_timm_weights(model, {**state, "blocks.9.weight": np.zeros(3)}, names)
    with pytest.raises(ModelError, match="without a key in the mapping: conv_stem/kernel"):
        load_timm_weights(model, state, {k: v for k, v in names.items() if "conv_stem" not in k})
    wrong = {**state, "conv_head.weight": np.zeros((8, 8, 1, 1), "float32")}
    with pytest.raises(ModelError, match="must have the size of its weight"):
        load_timm_weights(model, wrong, names)
    with pytest.raises(DataError, match="safetensors files only"):
        load_timm_weights(model, tmp_path / "weights.pth", names)
    with pytest.raises(DataError, match="does not exist"):
        load_timm_weights(model, tmp_path / "weights.safetensors", names)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
