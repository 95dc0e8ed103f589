"""Augmentation is random from image to image and the same from run to run."""

import numpy as np
import pytest

from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError
from tfgraphreg.training.augmentation import build_augmenter, build_label_mixer

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 10, 10, 1)).astype(np.uint8)


def draws(name, seed, times=3):
    keras.utils.set_random_seed(seed)  # As a run does; parts of KerasCV draw from it.
    augmenter = build_augmenter(name, seed=seed)
    change = tf.function(lambda images: augmenter(images, training=True))
    return np.stack([change(tf.constant(PIXELS)).numpy() for _ in range(times)])


@pytest.mark.parametrize(
    "name", ["flip", "flip_shift", pytest.param("rand_augment", marks=pytest.mark.one_stack)]
)
def test_a_seed_decides_every_draw(name):
    first = draws(name, 0)
    np.testing.assert_array_equal(first, draws(name, 0))
    assert (first != draws(name, 1)).any()
    assert (first[0] != first[1]).any()
    assert first.shape[1:] == PIXELS.shape and first.min() >= 0 and first.max() <= 255


def test_images_are_left_alone_when_serving():
    augmenter = build_augmenter("rand_augment", seed=0)
    np.testing.assert_array_equal(augmenter(tf.constant(PIXELS), training=False), PIXELS)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_labels_are_shares_and_repeatable(name):
    labels = np.eye(4, dtype=np.float32)[np.arange(32) % 4]

    def mixed():
        keras.utils.set_random_seed(0)
        mixer = build_label_mixer(name, seed=0)
        batch = {"images": tf.constant(PIXELS, tf.float32), "labels": tf.constant(labels)}
        return mixer(batch, training=True)

    one, two = mixed(), mixed()
    np.testing.assert_allclose(np.sum(one["labels"], -1), 1, atol=1e-5)
    assert (np.asarray(one["labels"]).max(-1) < 1).any()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.parametrize(
    "name",
    ["flip", "flip_shift", pytest.param("rand_augment", marks=pytest.mark.slow), "mixup", "cutmix"],
)
def test_the_config_lets_xla_have_what_it_can_compile(name):
    if name in ("mixup", "cutmix"):
        batch = {"images": tf.constant(PIXELS, tf.float32), "labels": tf.eye(32)}
    else:
        batch = tf.constant(PIXELS)
    layer = build_augmenter(name, seed=0) or build_label_mixer(name, seed=0)
    change = tf.function(lambda images: layer(images, training=True), jit_compile=True)
    try:
        TrainConfig(augment=name, jit_compile=True, alpha=0.0)
    except ConfigError as error:
        assert "XLA" in str(error)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"XLA"):
            change(batch)
    else:
        assert (change(batch) != change(batch)).numpy().any()


def test_other_names_change_nothing():
    assert build_augmenter("none", seed=0) is None and build_label_mixer("flip", seed=0) is None
