"""`task=segment`: what a training step looks at, and how steps make epochs."""

import dataclasses

import numpy as np
import pytest
from mask_runs import LARGER, Stopped, config, loss_of_scores, network

from tfgraphreg import load_dataset, train
from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.segmenter_training import (
    RegularizedSegmenter,
    crop_size,
    one_of_four,
    random_crop,
)
from tfgraphreg.neighbors.batches import plain_batches
from tfgraphreg.recipes.learn import plan_epoch


def test_training_looks_at_every_pixel_in_turns():
    masks = tf.constant(np.arange(2 * 4 * 6).reshape(2, 4, 6))
    seen = [one_of_four(masks, step).numpy() for step in range(4)]
    assert seen[0].shape == (2, 2, 3)
    assert sorted(np.ravel(seen)) == list(range(2 * 4 * 6))
    np.testing.assert_array_equal(seen[1], masks[:, ::2, 1::2])
    np.testing.assert_array_equal(one_of_four(masks, 4), seen[0])
    np.testing.assert_array_equal(one_of_four(masks[:, :3], 1), masks[:, :3])


def test_a_training_step_compares_the_pixels_of_its_turn():
    base, rng = network(), np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    masks = rng.integers(0, 3, (4, 32, 32)).astype(np.uint8)
    masks[1] = 255
    model = RegularizedSegmenter(base, 0.0, "cosine")
    model.compile(keras.optimizers.SGD(0.0))
    scores = base(tf.constant(images), training=True)["scores"]
    logs = model.train_on_batch({"image": images}, masks, return_dict=True)
    wanted = loss_of_scores(scores, masks[:, ::2, ::2])
    assert logs["loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((96, 96), (64, 64)), ((48, 80), (32, 48)), ((47, 96), None), ((96, 47), None)],
)
def test_crops_have_two_thirds_of_the_sides(size, wanted):
    assert crop_size(*size) == wanted


def test_a_crop_is_the_same_part_of_images_and_masks_and_every_place_is_met():
    masks = tf.constant(np.arange(2 * 50 * 48).reshape(2, 50, 48))
    images = tf.stack([masks, -masks], -1)
    features = {"image": images, "weight": tf.constant([[1.0], [2.0]])}
    places = set()
    for step in range(200):
        cut, part = random_crop(features, masks, tf.constant([3, step], tf.int64))
        y, x = divmod(int(part[0, 0, 0]), 48)
        places.add((y, x))
        np.testing.assert_array_equal(part, masks[:, y : y + 32, x : x + 32])
        np.testing.assert_array_equal(cut["image"], images[:, y : y + 32, x : x + 32])
        assert cut["weight"] is features["weight"]
    assert {y for y, _ in places} == set(range(19)) and {x for _, x in places} == set(range(17))


def test_a_network_gives_for_a_crop_what_one_of_that_size_gives():
    large, small = network((128, 128, 3)), network((96, 96, 3))
    small.set_weights(large.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    found, wanted = (model(tf.constant(images)) for model in (large, small))
    assert found["logits"].shape == (2, 96, 96, 3)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_a_step_on_crops_compares_these_alone():
    base, rng = network((48, 48, 3)), np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 48, 48, 3), np.uint8)
    masks = rng.integers(0, 3, (4, 48, 48)).astype(np.uint8)
    model = RegularizedSegmenter(base, 0.0, "cosine", seed=5)
    model.cropped = True
    model.compile(keras.optimizers.SGD(0.0))
    cut, part = random_crop(tf.constant(images), tf.constant(masks), tf.constant([5, 0], tf.int64))
    scores = base(cut, training=True)["scores"]
    logs = model.train_on_batch({"image": images}, masks, return_dict=True)
    wanted = loss_of_scores(scores, part.numpy()[:, ::2, ::2])
    assert logs["loss"] == pytest.approx(wanted, rel=1e-5)


def test_crops_come_first_and_whole_images_last(tmp_path, monkeypatch, caplog):
    seen = []
    call = RegularizedSegmenter.call

    def noted(self, inputs, training=False, **kwargs):
        if training:
            seen.append(tuple(inputs["image"].shape[1:3]))
        return call(self, inputs, training=training, **kwargs)

    monkeypatch.setattr(RegularizedSegmenter, "call", noted)
    caplog.set_level("INFO")
    train(config(tmp_path, "crops", dataset=LARGER, alpha=0.1, epochs=2))
    assert list(dict.fromkeys(seen)) == [(32, 32), (48, 48)]  # As they were traced.
    assert "Crops of 32 x 32 pixels in the first 1 epoch(s), 2 steps" in caplog.text
    # Where a network takes one size only, a run that does not ask for crops has none.
    caplog.clear()
    seen.clear()
    monkeypatch.setattr("tfgraphreg.recipes.segment._takes", lambda *args: False)
    train(config(tmp_path, "whole", dataset=LARGER, epochs=2))
    assert set(seen) == {(48, 48)} and "Crops" not in caplog.text
    with pytest.raises(ConfigError, match="takes images of one size only"):
        train(config(tmp_path, "refused", dataset=LARGER, crop_epochs=1))


@pytest.mark.parametrize("rows", [4, 5, 1])
def test_a_step_in_halves_normalizes_each_half_by_itself(rows):
    base, rng = network(), np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, 32, 32, 3), np.uint8)
    masks = rng.integers(0, 3, (rows, 32, 32)).astype(np.uint8)
    start = base.get_weights()
    first = base(tf.constant(images[: -(-rows // 2)]), training=True)["scores"]
    second = base(tf.constant(images[rows // 2 :]), training=True)["scores"][rows % 2 :]
    averages = base.get_weights()
    base.set_weights(start)
    model = RegularizedSegmenter(base, 0.0, "cosine", halves=True)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.train_on_batch({"image": images}, masks, return_dict=True)
    scores = tf.concat([first, second], 0)
    assert len(scores) == rows
    wanted = loss_of_scores(scores, masks[:, ::2, ::2])
    assert logs["loss"] == pytest.approx(wanted, rel=1e-5)
    for found, wanted in zip(base.get_weights(), averages, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    # Measuring knows no halves.
    logs = model.test_on_batch({"image": images}, masks, return_dict=True)
    whole = RegularizedSegmenter(base, 0.0, "cosine")
    whole.compile(keras.optimizers.SGD(0.0))
    assert logs == whole.test_on_batch({"image": images}, masks, return_dict=True)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_epochs_go_on_where_the_last_one_stopped(tmp_path, task):
    settings = config(tmp_path, "x", task=task, epochs=3, min_steps=6, batch_size=8)
    epoch = plan_epoch(settings, 30)
    assert (epoch.steps, epoch.pass_steps) == (6, 4)
    split = load_dataset("digits").train.take(np.arange(30))

    def source(first):
        passes = epoch.passes(settings.epochs)
        return plain_batches(split, batch_size=8, seed=0, epochs=passes, first_epoch=first)

    def seen(first):
        return [labels.numpy().tolist() for _, labels in epoch.batches(source, first)]

    whole = seen(0)
    assert len(whole) >= 3 * epoch.steps
    for first in (1, 2):
        assert seen(first) == whole[first * epoch.steps :]


@pytest.mark.slow
@pytest.mark.parametrize("last", ["epoch 2", "epoch 3"])
def test_a_run_stopped_among_crops_or_after_goes_on_to_the_same_numbers(tmp_path, last):
    # An epoch is one and a half passes over the images.
    settings = {"dataset": LARGER, "epochs": 4, "crop_epochs": 2, "batch_size": 8, "min_steps": 6}
    whole = train(config(tmp_path, "whole", **settings))

    def stop(what, done, total):
        if what == last:
            raise Stopped

    parts = config(tmp_path, "parts", **settings)
    with pytest.raises(Stopped):
        train(parts, progress=stop)
    resumed = train(dataclasses.replace(parts, resume=True))
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert str(resumed.metrics["segmentation"]) == str(whole.metrics["segmentation"])
