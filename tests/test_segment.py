"""`task=segment`: the head, its loss, and whole runs."""

import dataclasses
import json

import numpy as np
import pytest
import voc_kit
from mask_runs import SCENES, Stopped, config, dice_by_loops, network
from sklearn.metrics import jaccard_score

from tfgraphreg import load_dataset, train
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.backbones.pyramid import build_pyramid
from tfgraphreg.compat import keras, tf
from tfgraphreg.data.local import LocalSplit
from tfgraphreg.errors import ConfigError, DataError, ModelError
from tfgraphreg.export import MaskPredictor, Predictor
from tfgraphreg.model.segmenter import masks_of
from tfgraphreg.model.segmenter_training import (
    RegularizedSegmenter,
    balanced_weights,
    dice_loss,
)
from tfgraphreg.recipes.evaluate import evaluate_run
from tfgraphreg.runs.run import read_finished
from tfgraphreg.visualize.masks import mask_sheet, over


@pytest.mark.parametrize(
    ("name", "strides"),
    [("cnn", [2, 4]), ("cnn_pyramid", [2, 4, 8, 16]), ("mobilenet_v3_small_minimalistic", None)],
)
def test_a_pyramid_shares_the_backbone_and_halves(name, strides):
    backbone = build_backbone(name, input_shape=(64, 64, 3))
    pyramid = build_pyramid(backbone)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = [64 // part.shape[1] for part in pyramid(tf.constant(images))]
    assert found == strides or (strides is None and found == sorted(found) and len(found) >= 4)
    for theirs in pyramid.weights:
        assert any(theirs is weight for weight in backbone.weights)
    # The last map is what the features are the mean of.
    last = tf.reduce_mean(pyramid(tf.constant(images))[-1], (1, 2))
    np.testing.assert_allclose(last, backbone(tf.constant(images)), atol=1e-5)


def test_a_backbone_without_a_pyramid_is_refused():
    for name, size in (("fcnn", 32), ("deit_tiny", 224)):
        with pytest.raises(ModelError, match="no maps of several resolutions"):
            build_pyramid(build_backbone(name, input_shape=(size, size, 3)))
    image = keras.Input((8, 8, 1))
    with pytest.raises(ModelError, match="built by its name"):
        build_pyramid(keras.Model(image, keras.layers.Flatten()(image)))


def test_masks_have_the_size_of_the_image_whatever_it_is():
    model = network((45, 61, 1))
    images = np.random.default_rng(0).integers(0, 256, (5, 45, 61, 1), np.uint8)
    out = model(tf.constant(images))
    assert out["logits"].shape == (5, 45, 61, 3) and out["embedding"].shape == (5, 8)
    masks = masks_of(model, images, batch_size=2)
    assert masks.dtype == np.uint8 and masks.shape == images.shape[:3]
    np.testing.assert_array_equal(masks, np.argmax(out["logits"], -1))


def test_layers_that_no_mask_needs_are_left_out():
    coarse = network((32, 32, 3)).get_layer("cnn_pyramid_pyramid").output_shape
    assert [shape[1] for shape in coarse] == [16, 8]
    assert not [v.name for v in network().trainable_weights if "conv_4" in v.name]


def test_the_dice_loss_of_two_replicas_is_that_of_one(two_replicas):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (6, 4, 4)).astype(np.uint8)
    masks[0, :3], masks[4] = 255, 255
    logits = rng.normal(size=(6, 4, 4, 3)).astype(np.float32)

    def slopes(masks, logits, share):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = dice_loss(masks, logits)
            weighted = loss * share
        return loss, tape.gradient(weighted, logits)

    loss, wanted = slopes(tf.constant(masks), tf.constant(logits), 1.0)
    assert float(loss) == pytest.approx(dice_by_loops(masks, tf.nn.softmax(logits).numpy()))
    assert np.abs(wanted).max() > 0 and not np.any(wanted[4])
    # Two images on one replica, four on the other; the loss has the weight of its share.
    parts = [slice(0, 2), slice(2, 6)]

    def part(of):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: of(parts[context.replica_id_in_sync_group])
        )

    losses, found = tf.function(lambda *args: two_replicas.run(slopes, args))(
        part(lambda rows: tf.constant(masks[rows])),
        part(lambda rows: tf.constant(logits[rows])),
        part(lambda rows: tf.constant((rows.stop - rows.start) / 6, tf.float32)),
    )
    for each in two_replicas.experimental_local_results(losses):
        assert float(each) == pytest.approx(float(loss), rel=1e-6)
    together = np.concatenate(two_replicas.experimental_local_results(found))
    np.testing.assert_allclose(together, wanted, atol=1e-8)


def test_the_loss_is_the_weighted_mean_over_counted_pixels():
    base, rng = network(), np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    masks = rng.integers(0, 3, (4, 32, 32)).astype(np.uint8)
    masks[0, :20] = 255
    masks[1] = 255
    weights = np.array([0.5, 2.0, 3.0])
    model = RegularizedSegmenter(base, 0.0, "cosine", class_weights=weights)
    model.compile(keras.optimizers.SGD(0.0))
    logits = base(tf.constant(images), training=False)["logits"].numpy().astype(np.float64)
    logs = model.test_on_batch({"image": images}, masks, return_dict=True)
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    counted = masks != 255
    losses = -np.take_along_axis(scores, np.where(counted, masks, 0)[..., None], -1)[..., 0]
    weight = weights[np.where(counted, masks, 0)] * counted
    entropy = (losses * weight).sum() / weight.sum()
    dice = dice_by_loops(masks, np.exp(scores))
    assert logs["loss"] == pytest.approx(entropy + dice / 2, rel=1e-5)
    right = (logits.argmax(-1) == masks)[counted].mean()
    assert logs["pixel_accuracy"] == pytest.approx(right, rel=1e-6)
    # A batch in which nothing counts moves nothing and gives no NaN.
    logs = model.train_on_batch({"image": images}, np.full_like(masks, 255), return_dict=True)
    assert logs["loss"] == 0.0


def test_class_weights_by_hand():
    masks = np.array([[[0, 0, 0, 0, 1, 1, 1, 1, 2, 255]]], np.uint8).repeat(3, 0)
    found = balanced_weights(masks, classes=4)
    share = np.array([4, 4, 1, 1]) / 9
    wanted = 1 / np.sqrt(share)
    np.testing.assert_allclose(found / found[0], wanted / wanted[0])
    counts = np.array([4, 4, 1, 0])
    assert (found * counts).sum() / counts.sum() == pytest.approx(1.0)
    with pytest.raises(DataError, match="0 to 1, or 255"):
        balanced_weights(masks, classes=2)
    with pytest.raises(DataError, match="No pixel"):
        balanced_weights(np.full((1, 2, 2), 255, np.uint8), classes=2)
    for wrong in ([1.0], [1.0, 0.0, 1.0], [1.0, np.nan, 1.0]):
        with pytest.raises(DataError, match="one number above 0 for each class"):
            RegularizedSegmenter(network(), 0.0, "cosine", class_weights=wrong)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    return train(
        config(folder, "run", alpha=0.1, validation_fraction=0.25, class_weights="balanced")
    )


def test_a_run_measures_what_its_export_gives(run):
    dataset = load_dataset(SCENES, validation_fraction=0.25)
    served = run.predictor(dataset.test.images)
    assert isinstance(run.predictor, MaskPredictor)
    assert served["masks"].shape == dataset.test.masks.shape
    np.testing.assert_array_equal(served["masks"], served["probabilities"].argmax(-1))
    np.testing.assert_allclose(served["probabilities"].sum(-1), 1, atol=1e-5)
    true, found = dataset.test.masks.ravel(), served["masks"].ravel()
    present = np.union1d(true, found)
    wanted = jaccard_score(true, found, labels=present, average="macro", zero_division=0)
    assert run.metrics["test_mean_iou"] == pytest.approx(wanted, abs=1e-9)
    assert run.metrics["test_pixel_accuracy"] == pytest.approx((true == found).mean())
    assert next(iter(run.metrics["segmentation"]["iou"])) == "background"
    assert {"val_mean_iou", "graph_loss", "pixel_accuracy"} <= set(run.history[-1])
    assert run.history[-1]["graph_loss"] > 0 and run.metrics["graph"]["nodes"] == 36
    assert (run.path / "figures" / "masks.png").stat().st_size > 10_000
    stored = json.loads((run.path / "metrics.json").read_text())
    assert stored["test_mean_iou"] == run.metrics["test_mean_iou"]


def test_an_export_takes_files_and_refuses_what_it_is_not(run):
    from io import BytesIO

    from PIL import Image

    image = load_dataset(SCENES).test.images[0]
    content = BytesIO()
    Image.fromarray(image).save(content, "PNG")
    encoded = run.predictor.ask_encoded([content.getvalue()])
    np.testing.assert_array_equal(encoded["masks"][0], run.predictor(image[None])["masks"][0])
    assert len(run.predictor(image[None][:0])["masks"]) == 0
    with pytest.raises(DataError, match="uint8 images of shape"):
        run.predictor(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="cannot be decoded"):
        run.predictor.ask_encoded([b"no image"])
    with pytest.raises(ModelError, match=r"not of the task classify.*MaskPredictor"):
        Predictor(run.folder.export_path)
    assert read_finished(run.path).score == run.metrics["test_mean_iou"]
    with pytest.raises(ModelError, match="no SavedModel in this folder"):
        MaskPredictor(run.path)


@pytest.mark.slow  # Checkpoints are those of every run.
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path):
    settings = {"alpha": 0.1, "neighbors": "bank"}
    whole = train(config(tmp_path, "whole", **settings))

    def stop(what, done, total):
        if what == "epoch 2":
            raise Stopped

    parts = config(tmp_path, "parts", **settings)
    with pytest.raises(Stopped):
        train(parts, progress=stop)
    resumed = train(dataclasses.replace(parts, resume=True))
    assert len(resumed.history) == 2
    for name in ("test_mean_iou", "segmentation"):
        assert resumed.metrics[name] is not None
        assert str(resumed.metrics[name]) == str(whole.metrics[name])


@pytest.mark.parametrize("mode", ["gathered", pytest.param("paired", marks=pytest.mark.slow)])
def test_the_other_neighbor_modes_train(tmp_path, mode):
    done = train(config(tmp_path, mode, alpha=1.0, neighbors=mode, epochs=1))
    assert done.history[0]["graph_loss"] > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": "softmax"}, "`objective` has an effect only with `task=classify`"),
        ({"labels_per_class": 3}, "`labels_per_class` has an effect only with `task=classify`"),
        ({"augment": "flip"}, "`augment` has an effect only with `task=classify`"),
        ({"propagate": "laplace"}, "`propagate` has an effect only with `task=classify`"),
        ({"regularize": "logits"}, "`regularize` has an effect only with `task=classify`"),
        ({"packer": "stream"}, "`packer` has an effect only with `task=classify`"),
        ({"task": "classify", "class_weights": "balanced"}, "only with `task=segment`"),
        ({"task": "detect", "crop_epochs": 1}, "only with `task=segment`"),
        ({"crop_epochs": 2}, "`crop_epochs` must be smaller than `epochs`"),
        ({"crop_epochs": -1}, "`crop_epochs` must be at least 0"),
        ({"passes_per_epoch": 2}, "only with `task=classify`"),
        ({"task": "segmentation"}, "Did you mean segment"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, "x", **settings)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"weights": "run:x"}, ConfigError, "Only the classifier of another run"),
        ({"dataset": "digits"}, DataError, "has no masks"),
        ({"backbone": "fcnn"}, ModelError, "no maps of several resolutions"),
        ({"crop_epochs": 1}, ConfigError, "too small for crops"),
    ],
)
def test_what_cannot_be_segmented_leaves_no_folder(tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        train(config(tmp_path, "gone", **settings))
    assert not (tmp_path / "gone").exists()


def test_a_model_that_is_passed_is_refused(tmp_path):
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, keras.layers.Flatten()(image))
    with pytest.raises(ConfigError, match="features of whole images"):
        train(config(tmp_path, "x"), model=model)


def test_masks_without_any_pixel_that_counts_are_refused_in_words(tmp_path):
    dataset = load_dataset(SCENES)
    blank = dataclasses.replace(dataset.train, masks=np.full_like(dataset.train.masks, 255))
    assert isinstance(blank, LocalSplit)
    given = config(tmp_path, "x", dataset="fashion_mnist", class_weights="balanced")
    with pytest.raises(DataError, match="No pixel of the training masks counts"):
        train(given, dataset=dataclasses.replace(dataset, train=blank))


def test_stripes_are_on_wrong_pixels_alone():
    image = np.full((6, 6, 3), 100, np.uint8)
    mask = np.zeros((6, 6), np.uint8)
    mask[:3] = 1
    plain = over(image, mask)
    wrong = np.zeros((6, 6), bool)
    wrong[0, 0] = True
    striped = over(image, mask, striped=wrong)
    changed = (plain != striped).any(-1)
    assert changed[:4, :4].any() and not changed[4:].any() and not changed[:, 4:].any()
    assert {0, 255} <= set(striped[:4, :4].ravel().tolist())
    assert (plain[12:] == 100).all() and (plain[:12] != 100).any()
    # The area has a black line along its lower edge, not along that of the image.
    assert not plain[11].any() and plain[10].all() and plain[0].all()
    sheet = mask_sheet(image[None], mask[None], mask[None] * 0, ["background", "a"])
    assert [axes.get_title() for axes in sheet.axes[:3]] == ["image", "true", "50.0% right"]


def test_a_kit_of_voc_trains_evaluates_and_exports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = f"voc:{voc_kit.draw(tmp_path)}?set=Segmentation"
    done = train(config(tmp_path, "run", dataset=dataset, image_size=64, epochs=1, batch_size=4))
    test = load_dataset(dataset, image_size=64).test
    report = done.metrics["segmentation"]
    # The white borders of objects do not count.
    counted = test.masks != 255
    assert report["pixels"] == counted.sum() < counted.size
    masks = done.predictor(np.asarray(test.images))["masks"]
    true, found = test.masks[counted], masks[counted]
    labels = np.union1d(true, found)
    wanted = jaccard_score(true, found, labels=labels, average="macro", zero_division=0)
    assert done.metrics["test_mean_iou"] == pytest.approx(wanted, abs=1e-9)
    again = evaluate_run(done.folder, figures=False)
    assert again["test_mean_iou"] == pytest.approx(wanted, abs=1e-6)
    assert set(report["iou"]) >= {"background", "person", "car"}
