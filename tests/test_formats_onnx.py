"""Networks that tf2onnx alone does not convert answer in ONNX Runtime as they do themselves."""

import numpy as np
import pytest

from tfgraphreg import formats
from tfgraphreg.compat import keras, tf
from tfgraphreg.export import Predictor, export
from tfgraphreg.model.classifier import build_classifier, infer

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, *SHAPE)).astype(np.uint8)


def gelu(x):
    """Exact GELU, for which TensorFlow takes Erfc."""
    return keras.layers.Activation(lambda y: tf.nn.gelu(y, approximate=False))(x)


def grouped(x):
    """Keras compiles these with XLA, which keeps them functions of their own."""
    x = keras.layers.Conv2D(8, 3, groups=4, strides=2, padding="same")(x)
    return keras.layers.Conv2D(6, 3, groups=2, use_bias=False)(x)


def captured(x):
    """As the normalization of Keras' EfficientNet: the constants are no variables."""
    mean, deviation = tf.constant([[[[0.5] * 4]]]), tf.constant([[[[1.5] * 4]]])
    return keras.layers.Lambda(lambda y: (y - mean) / deviation)(x)


def classifier(through):
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 64)(image))
    backbone = keras.Model(image, keras.layers.Flatten()(through(x)))
    return build_classifier(backbone, embedding_dim=4, num_classes=3)


@pytest.mark.parametrize("through", [gelu, grouped, captured])
def test_onnx_runtime_answers_as_the_live_model(through, images, tmp_path):
    model = classifier(through)
    export(model, tmp_path / "m", class_names=("a", "b", "c"))
    expected = infer(model, images)["probabilities"]
    predictor = Predictor(tmp_path / "m")
    ask = formats.load("onnx", formats.convert(predictor, "onnx"))
    assert expected.std(axis=0).min() > 0.02  # else all would agree whatever was converted
    np.testing.assert_allclose(ask(images)["probabilities"], expected, atol=1e-3)
    np.testing.assert_allclose(ask(images[:1])["probabilities"], expected[:1], atol=1e-3)
    # The SavedModel's functions are left as they were: a run is converted to several formats.
    np.testing.assert_allclose(predictor(images)["probabilities"], expected, atol=1e-5)
    assert formats.convert(predictor, "tflite") and formats.convert(predictor, "onnx")
