"""`task=detect`: the parts of the detector by hand and beside plain loops, then whole runs."""

import json
import pathlib

import numpy as np
import pytest
import references_evaluation as references
import voc_kit

from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.local import Objects, local_splits
from tfgraphreg.errors import ConfigError, DataError, ModelError
from tfgraphreg.evaluation.average_precision import FoundBoxes
from tfgraphreg.export import BoxPredictor
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.model import detector
from tfgraphreg.model.detector_training import (
    RegularizedDetector,
    assign,
    detection_losses,
    giou,
)
from tfgraphreg.neighbors.regions import RegionBank, region_inputs
from tfgraphreg.recipes.detect import find_boxes, padded_targets
from tfgraphreg.recipes.evaluate import evaluate_run
from tfgraphreg.recipes.regions import as_regions
from tfgraphreg.recipes.train import train
from tfgraphreg.visualize.boxes import box_sheet, verdicts


def test_regions_answer_for_objects_by_hand():
    # 3 x 4 positions of stride 8, centers at 4, 12, 20, 28.
    hard = [0, 16, 8, 24, 2, 1]
    targets = np.array([[[8, 0, 32, 16, 5, 0], [10, 2, 14, 6, 1, 0], [0, 0, 0, 0, -1, 0], hard]])
    classes, boxes, rows = (v.numpy()[0] for v in assign(tf.constant(targets, tf.float32), (3, 4)))
    # The center (20, 8) of the large one lies between rows 0 and 1: both, with their neighbors
    # less than a stride away; the small one at (12, 4) is smaller, and wins its region.
    assert classes.reshape(3, 4).tolist() == [[0, 2, 6, 6], [0, 6, 6, 6], [-1, 0, 0, 0]]
    assert boxes[1].tolist() == [10, 2, 14, 6] and boxes[2].tolist() == [8, 0, 32, 16]
    assert rows.reshape(3, 4)[0, 1:3].tolist() == [1, 0]


def test_every_object_has_a_region():
    rng = np.random.default_rng(0)
    for _ in range(30):
        low = rng.random((1, 2)) * 60
        box = np.hstack([low, low + 0.5 + rng.random((1, 2)) * (63 - low)])
        targets = padded_targets([Objects(box, [3])])
        assert (assign(tf.constant(targets), (8, 8))[0].numpy() == 4).any(), box


def test_giou_by_hand():
    boxes = tf.constant([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]], tf.float32)
    others = tf.constant([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 3, 1]], tf.float32)
    np.testing.assert_allclose(giou(boxes, others), [1, 1 / 3, -1 / 3], rtol=1e-6)


def test_losses_are_those_of_plain_numpy():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 4, 4)).astype(np.float32)
    boxes = tf.constant(rng.random((2, 4, 4)) + np.array([0, 0, 8, 8]), tf.float32)
    targets = padded_targets([Objects([[0, 0, 8, 8]], [2]), Objects([[9, 9, 15, 15]], [0], [True])])
    sums = detection_losses(
        tf.constant(targets), {"logits": tf.constant(logits), "boxes": boxes}, (2, 2)
    )
    labels = np.array([[3, 0, 0, 0], [0, 0, 0, -1]])
    exp = np.exp(logits)
    share = exp / exp.sum(-1, keepdims=True)
    expected = 0.0
    for image in range(2):
        for region in range(4):
            if labels[image, region] >= 0:
                p = share[image, region, labels[image, region]]
                expected -= (1 - p) ** 2 * np.log(p)
    assert float(sums[0]) == pytest.approx(expected, rel=1e-5) and float(sums[2]) == 1
    assert float(sums[1]) == pytest.approx(
        1 - float(giou(boxes, tf.constant([[0.0, 0, 8, 8]]))[0, 0]), rel=1e-5
    )


def _plain_detections(outputs, image, shape, most, least):
    logits, boxes = outputs["logits"][image], outputs["boxes"][image]
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    share = (exp / exp.sum(-1, keepdims=True))[:, 1:]
    pairs = sorted(
        ((share[a, c], a, c) for a in range(len(share)) for c in range(share.shape[1])),
        key=lambda row: (-row[0], row[1], row[2]),
    )[:most]
    kept = []
    for score, a, c in pairs:
        box = np.clip(boxes[a], 0, [shape[1], shape[0]] * 2)
        if score < least or (box[2:] <= box[:2]).any():
            continue
        if all(k[2] != c or references.plain_iou(box, k[1]) <= 0.5 for k in kept):
            kept.append((score, box, c, a))
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_detections_equal_plain_suppression(seed):
    rng = np.random.default_rng(seed)
    low = rng.random((2, 30, 2)) * 40 - 5
    outputs = {
        "logits": rng.normal(scale=2, size=(2, 30, 4)).astype(np.float32),
        "boxes": np.concatenate([low, low + rng.random((2, 30, 2)) * 25], -1).astype(np.float32),
        "embedding": rng.normal(size=(2, 30, 3)).astype(np.float32),
    }
    tensors = {name: tf.constant(values) for name, values in outputs.items()}
    found = detector.detections(tensors, (32, 36, 3), most=40, least_score=0.05)
    found = {name: values.numpy() for name, values in found.items()}
    for image in range(2):
        expected = _plain_detections(outputs, image, (32, 36, 3), 40, 0.05)
        n = found["count"][image]
        assert n == len(expected) > 5
        for row, (score, box, number, region) in enumerate(expected):
            assert found["scores"][image, row] == pytest.approx(score, rel=1e-5)
            assert found["classes"][image, row] == number
            np.testing.assert_allclose(found["boxes"][image, row], box, rtol=1e-6)
            np.testing.assert_array_equal(
                found["embedding"][image, row], outputs["embedding"][image, region]
            )
        assert (found["classes"][image, n:] == -1).all() and not found["boxes"][image, n:].any()


def test_edges_join_regions_of_different_images():
    objects = [
        Objects([[0, 0, 8, 8], [8, 8, 16, 16]], [0, 1]),
        Objects(np.zeros((0, 4)), []),
        Objects([[0, 8, 8, 16]], [0]),
    ]
    graph = SimilarityGraph.from_edges([0, 2], [2, 0], [0.5, 0.25], 3)
    made = region_inputs(objects, graph, k=1, stride=8, columns=2, rows=2)
    assert made["index"].tolist() == [[0, 1], [3, 3], [2, 3]]
    assert made["region_position"].tolist() == [[0, 3], [0, 0], [2, 0]]
    assert made["neighbor_index"][..., 0].tolist() == [[2, 3], [3, 3], [0, 3]]
    np.testing.assert_allclose(made["neighbor_weight"][..., 0], [[0.5, 0], [0, 0], [0.25, 0]])
    mode = RegionBank(1, 3, 2)
    memory = mode.make_memory(8)
    maps = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    features = {name: tf.constant(values) for name, values in made.items()}
    compared = tf.constant(maps.reshape(3, 8))
    assert not mode.edges(compared, features, memory).weights.numpy().any(), "nothing seen yet"
    mode.remember(compared, features, memory)
    np.testing.assert_array_equal(memory.rows.numpy()[:3], [maps[0, 0], maps[0, 3], maps[2, 2]])
    edges = mode.edges(compared, features, memory)
    joined = edges.weights.numpy() > 0
    np.testing.assert_array_equal(edges.sources.numpy()[joined], [maps[0, 0], maps[2, 2]])
    np.testing.assert_array_equal(edges.targets.numpy()[joined], [maps[2, 2], maps[0, 0]])
    with pytest.raises(DataError, match="3 nodes, 2 objects"):
        region_inputs(objects[:2], graph, k=1, stride=8, columns=2, rows=2)


def test_regions_of_training_images_are_nodes():
    data = load_dataset("scenes:digits?n=6&test=2&size=64")
    regions = as_regions(data)
    objects = local_splits(data)[0].objects
    assert len(regions.train) == sum(map(len, objects)) and not len(regions.test)
    assert regions.train.ids[0] == f"{data.train.ids[0]}#0"
    assert regions.train.labels.tolist() == [c for o in objects for c in o.classes]
    assert regions.train.images.shape[1:] == (32, 32, 3)
    assert set(regions.left_out) == set(data.test.ids)


def test_verdicts_by_hand(tmp_path):
    objects = Objects(
        [[0, 0, 10, 10], [20, 20, 30, 30], [0, 20, 10, 30]], [0, 1, 1], [False, True, False]
    )
    boxes = [[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]]
    found = FoundBoxes(boxes, [0, 0, 1], [0.5, 0.9, 0.8])
    assert verdicts(objects, found).tolist() == [0, 1, -1]
    made = box_sheet([np.zeros((32, 32, 3), np.uint8)], [objects], [found], ["cat", "dog"])
    texts = {t.get_text() for t in made.axes[0].texts}
    assert texts == {"✗ cat 50%", "✓ cat 90%", "dog 80%", "[dog]"}
    assert len({str(p.get_linestyle()) for p in made.axes[0].patches}) == 4


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A small run with a graph term, once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("detect")
        patch.chdir(folder)
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        run = train(
            TrainConfig(
                dataset="scenes:digits?n=64&test=8&size=64",
                task="detect",
                alpha=0.1,
                epochs=2,
                batch_size=16,
                min_steps=4,
                embedding_dim=8,
                validation_fraction=0.1,
                run_dir="run",
                export_dir="model",
            )
        )
        yield folder, run


def test_a_run_measures_exports_and_draws(ran):
    folder, run = ran
    found = json.loads((folder / "run" / "metrics.json").read_text())
    assert 0 <= found["test_ap50"] <= 1 and set(found["detection"]["by_class"]) == set("0123456789")
    assert found["graph"]["nodes"] > 64 and found["graph"]["edge_label_agreement"] > 0.15
    assert {"class_loss", "box_loss", "graph_loss", "val_ap50"} <= set(run.history[-1])
    assert run.history[-1]["class_loss"] < run.history[0]["class_loss"]
    assert run.history[-1]["graph_loss"] > 0
    assert (folder / "run" / "figures" / "boxes.png").stat().st_size > 5000


def test_the_saved_model_gives_what_the_network_gives(ran):
    folder, run = ran
    test = load_dataset(run.config.dataset).test
    loaded = tf.saved_model.load(str(folder / "model"))
    served = loaded.signatures["detect"](image=tf.constant(test.images[:3]))
    assert set(served) == {"boxes", "classes", "scores", "embedding", "count"}
    live = find_boxes(run.model, test.images[:3])
    for row, boxes in enumerate(live):
        n = int(served["count"][row])
        assert n == len(boxes.scores)
        np.testing.assert_allclose(np.sort(served["scores"][row, :n]), np.sort(boxes.scores), 1e-4)
    assert served["embedding"].shape == (3, 100, 8)
    empty = loaded.signatures["detect"](image=tf.zeros([0, 64, 64, 3], tf.uint8))
    assert empty["boxes"].shape == (0, 100, 4)
    predictor = BoxPredictor(folder / "model")
    png = tf.io.encode_png(test.images[0]).numpy()
    np.testing.assert_allclose(
        predictor.ask_encoded([png])["scores"], predictor(test.images[:1])["scores"], atol=1e-5
    )
    with pytest.raises(DataError, match="uint8 images of shape"):
        predictor(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ModelError, match="no SavedModel in this folder"):
        BoxPredictor(folder / "run")


def test_a_kit_of_voc_trains_evaluates_and_exports(tmp_path, workplace):
    year = voc_kit.draw(tmp_path)
    run = train(
        TrainConfig(
            dataset=f"voc:{year}",
            image_size=64,
            task="detect",
            epochs=1,
            batch_size=4,
            min_steps=1,
            embedding_dim=8,
            run_dir="run",
            export_dir="model",
        )
    )
    report = run.metrics["detection"]["by_class"]
    # Of the four test images two have a person that counts, one a difficult one, one nothing.
    assert report["person"]["objects"] == 2 and report["car"]["objects"] == 2
    again = evaluate_run(run.folder, figures=False)
    assert again["detection"]["by_class"]["person"]["objects"] == 2
    assert again["test_ap50"] == pytest.approx(run.metrics["test_ap50"], abs=1e-6)
    assert pathlib.Path("model/saved_model.pb").is_file()


def test_what_cannot_be_is_refused(workplace):
    config = {"task": "detect", "dataset": "scenes:digits?n=4", "alpha": 0.1}
    with pytest.raises(ConfigError, match=r"`neighbors`"):
        TrainConfig(**config, neighbors="paired")
    with pytest.raises(ConfigError, match="`class_weights` has an effect only"):
        TrainConfig(**config, class_weights="balanced")
    with pytest.raises(DataError, match="no boxes of objects"):
        train(TrainConfig(task="detect", dataset="digits", image_size=64))
    with pytest.raises(ConfigError, match="A distance that learns cannot compare regions"):
        RegularizedDetector(None, 0.1, "mahalanobis")
    with pytest.raises(ModelError, match="no map of stride 8"):
        image = keras.Input((36, 36, 3))
        maps = [keras.layers.Conv2D(4, 3, s, "same")(image) for s in (2, 4)]
        detector.build_detector(keras.Model(image, maps), embedding_dim=2, num_classes=2)
