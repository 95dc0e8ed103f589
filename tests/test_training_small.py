"""Small training sets: averages of batch normalization, enough steps, weights that diverge."""

import gc
import logging
import weakref

import numpy as np
import pytest

from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import TFGraphRegError, TrainingError
from tfgraphreg.model.classifier import build_classifier, infer
from tfgraphreg.recipes import defaults
from tfgraphreg.recipes.learn import plan_epoch
from tfgraphreg.recipes.train import train
from tfgraphreg.training.batch_norm import BatchNormAverages
from tfgraphreg.training.callbacks import StopOnNaN

IMAGES = np.random.default_rng(3).integers(0, 256, (50, 8, 8, 1), np.uint8)


def small_model(*, classes=3):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return build_classifier(keras.Model(image, x), embedding_dim=5, num_classes=classes)


def layer_of(model, name):
    return next(part for part in model.submodules if getattr(part, "name", "") == name)


@pytest.mark.parametrize("replicas", [1, 2])
def test_averages_are_the_mean_and_variance_over_the_images(replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        model = small_model()
        norm = layer_of(model, "norm")
        BatchNormAverages(model, IMAGES, batch_size=16).measure()
    filtered = layer_of(model, "conv")(IMAGES.astype(np.float32) / 255).numpy()
    np.testing.assert_allclose(norm.moving_mean, filtered.mean((0, 1, 2)), rtol=1e-4)
    # The fused kernel divides by n - 1 where NumPy divides by n.
    np.testing.assert_allclose(norm.moving_variance, filtered.var((0, 1, 2)), rtol=2e-3)
    assert norm.momentum == 0.99


def test_frozen_layers_keep_their_averages():
    model = small_model()
    averages = BatchNormAverages(model, IMAGES, batch_size=16)
    layer_of(model, "norm").trainable = False
    averages.measure()
    np.testing.assert_array_equal(layer_of(model, "norm").moving_mean, 0)
    layer_of(model, "norm").trainable = True
    averages.measure()
    assert np.abs(layer_of(model, "norm").moving_mean).min() > 0


def test_inference_is_compiled_once_a_model_and_forgotten_with_it(caplog):
    model = small_model()
    with caplog.at_level(logging.WARNING):
        for count in (50, 7, 50, 8, 50, 9):
            assert infer(model, IMAGES[:count], batch_size=20)["embedding"].shape == (count, 5)
    assert "retracing" not in caplog.text
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_small_sets_get_a_small_network_and_enough_steps(caplog):
    caplog.set_level(logging.INFO)
    filled = defaults.fill_in(TrainConfig(dataset="digits"), 252)
    assert (filled.backbone, filled.batch_size) == ("cnn", 16)
    assert "Chosen for 252 training images: backbone=cnn, batch_size=16" in caplog.text
    caplog.clear()
    filled = defaults.fill_in(TrainConfig(), 60_000)
    assert (filled.backbone, filled.batch_size) == ("mobilenet_v3_small_minimalistic", 128)
    assert caplog.text == ""
    filled = defaults.fill_in(TrainConfig(backbone="fcnn", batch_size=64, epochs=1), 500)
    assert (filled.backbone, filled.batch_size) == ("fcnn", 64)
    plan_epoch(filled, 500, passes=1.5)
    assert "Only 12 step(s) in all" in caplog.text
    pretrained = TrainConfig(weights="imagenet")
    assert defaults.choose_backbone(pretrained, 252) == "mobilenet_v3_small_minimalistic"


def test_what_few_steps_taught_counts_in_inference_too(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    # With the running averages of six steps the test accuracy is 0.42.
    config = TrainConfig(dataset="digits", limit=200, alpha=0.0, epochs=3, batch_size=100)
    found = train(config).metrics
    assert (found["backbone"], found["batch_size"]) == ("cnn", 100)
    assert found["test_accuracy"] > 0.7
    assert "Only 6 step(s) in all" in caplog.text


def test_diverged_weights_are_never_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wild = TrainConfig(
        dataset="digits", limit=120, alpha=0.0, epochs=1, learning_rate=1e38, run_dir="r"
    )
    with pytest.raises(TFGraphRegError, match="smaller `learning_rate`") as caught:
        train(wild)
    assert isinstance(caught.value, TrainingError)
    # Nothing was saved, so the mended command may use the same folder.
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("at_once", [1, 5])
def test_a_loss_that_is_no_number_ends_training_soon(at_once):
    stop = StopOnNaN()
    for epoch in range(2):
        stop.on_epoch_begin(epoch)
        for batch in range(at_once - 1, 100, at_once):
            stop.on_train_batch_end(batch, {"loss": tf.constant(1.0)})
    stop.on_epoch_begin(2)
    with pytest.raises(TrainingError, match=f"at step {at_once}"):
        stop.on_train_batch_end(at_once - 1, {"loss": tf.constant(np.nan)})
    told = []
    with pytest.raises(TrainingError, match="loss became inf"):
        for batch in range(2 * at_once - 1, 100, at_once):
            told.append(batch)
            stop.on_train_batch_end(batch, {"loss": tf.constant(np.inf)})
    assert told[-1] <= 30


def test_the_loss_of_a_step_is_not_read_unless_it_is_looked_at(monkeypatch):
    told = []
    monkeypatch.setattr(
        StopOnNaN, "on_train_batch_end", lambda self, batch, logs: told.append(logs["loss"])
    )
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones(4), batch_size=2, verbose=0, callbacks=[StopOnNaN()])
    assert len(told) == 2 and all(isinstance(loss, tf.Tensor) for loss in told)
