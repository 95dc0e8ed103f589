"""Average precision beside pycocotools, torchmetrics and plain loops after the VOC kit."""

import contextlib
import io

import numpy as np
import pytest
import references_evaluation as references

from tfgraphreg.data.local import Objects
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.average_precision import (
    COCO_IOU,
    FoundBoxes,
    average_best_overlap,
    average_precision_coco,
    average_precision_voc,
    detection_report,
    rank_coco,
    rank_voc,
    recall_by_count,
)

NAMES = ("cat", "dog", "person")
NOTHING = (np.zeros((0, 4)), [], [])


def _scene(rng, *, ties, duplicates):
    """A scene of at most 5 objects with detections near them, elsewhere, and again."""
    count = rng.integers(0, 6)
    low = rng.integers(0, 60, (count, 2)).astype(float)
    boxes = np.hstack([low, low + rng.integers(4, 40, (count, 2))])
    classes = rng.integers(0, len(NAMES), count)
    near = np.repeat(np.arange(count), duplicates)
    shift = rng.integers(-3, 4, (len(near), 4)) * (rng.random((len(near), 1)) < 0.7)
    guess = boxes[near] + shift
    guess_classes = np.where(rng.random(len(near)) < 0.8, classes[near], rng.integers(0, 3))
    low = rng.integers(0, 60, (4, 2)).astype(float)
    guess = np.vstack([guess, np.hstack([low, low + rng.integers(4, 40, (4, 2))])])
    guess_classes = np.append(guess_classes, rng.integers(0, 3, 4))
    guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 1)
    scores = rng.random(len(guess))
    if ties:
        scores = np.round(scores * 4) / 4
    return Objects(boxes, classes, rng.random(count) < 0.25), FoundBoxes(
        guess, guess_classes, scores
    )


def _scenes(seed, *, ties=False, duplicates=2, count=25):
    rng = np.random.default_rng(seed)
    scenes = [_scene(rng, ties=ties, duplicates=duplicates) for _ in range(count)]
    return [truth for truth, _ in scenes], [found for _, found in scenes]


CASES = {
    "plain": _scenes(0),
    "ties": _scenes(1, ties=True),
    "many duplicates": _scenes(2, duplicates=40, count=8),
    "duplicates with ties": _scenes(3, ties=True, duplicates=9),
    "nothing found": (_scenes(4)[0], [FoundBoxes(*NOTHING)] * 25),
    "no objects": ([Objects([], [])] * 25, _scenes(5)[1]),
    "empty": ([Objects([], [])] * 2, [FoundBoxes(*NOTHING)] * 2),
}


def _pycocotools(truth, found):
    """`[T, C]` COCO's average precision, NaN where a class has no objects."""
    coco = pytest.importorskip("pycocotools.coco", reason="the reference is pycocotools")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    objects, detections = [], []
    for image, (true, guess) in enumerate(zip(truth, found), start=1):
        for box, number, hard in zip(true.boxes, true.classes, true.difficult):
            wide, high = box[2:] - box[:2]
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": int(number) + 1,
                    "bbox": [*box[:2], wide, high],
                    "area": wide * high,
                    "iscrowd": int(hard),
                }
            )
        for box, number, score in zip(guess.boxes, guess.classes, guess.scores):
            detections.append([image, *box[:2], *(box[2:] - box[:2]), score, int(number) + 1])
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = {
            "images": [{"id": i + 1} for i in range(len(truth))],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
            "annotations": objects,
        }
        true.createIndex()
        guess = true.loadRes(np.array(detections)) if detections else coco.COCO()
        run = cocoeval.COCOeval(true, guess, "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]
    return np.where(precision < 0, np.nan, precision).mean(axis=1)


@pytest.mark.parametrize("case", CASES)
def test_equals_pycocotools(case):
    truth, found = CASES[case]
    ours = [average_precision_coco(rank_coco(truth, found, i)) for i in range(len(NAMES))]
    expected = _pycocotools(truth, found)
    np.testing.assert_allclose(np.transpose(ours), expected, atol=1e-12)
    assert case in ("no objects", "empty") or not np.isnan(expected).any()


@pytest.mark.parametrize("case", ["plain", "duplicates with ties"])
def test_equals_torchmetrics(case):
    torch = pytest.importorskip("torch")
    module = references.torchmetrics("detection")
    pytest.importorskip("pycocotools", reason="torchmetrics computes with it")
    truth, found = CASES[case]
    # Its own thresholds are float32 numbers, which are not COCO's.
    metric = module.MeanAveragePrecision(
        class_metrics=True,
        iou_thresholds=COCO_IOU.tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    metric.update(
        [
            {
                "boxes": torch.tensor(f.boxes),
                "scores": torch.tensor(f.scores),
                "labels": torch.tensor(f.classes),
            }
            for f in found
        ],
        [
            {
                "boxes": torch.tensor(t.boxes),
                "labels": torch.tensor(t.classes),
                "iscrowd": torch.tensor(t.difficult.astype(int)),
            }
            for t in truth
        ],
    )
    expected = metric.compute()
    report = detection_report(truth, found, NAMES)
    for ours, theirs in (("ap", "map"), ("ap50", "map_50"), ("ap75", "map_75")):
        assert report[ours] == pytest.approx(float(expected[theirs]), abs=1e-6)
    by_class = [report["by_class"][name]["ap"] for name in NAMES]
    np.testing.assert_allclose(by_class, expected["map_per_class"], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_equals_the_voc_kit_in_plain_loops(case, iou):
    truth, found = CASES[case]
    for number in range(len(NAMES)):
        ranking = rank_voc(truth, found, number, iou=iou)
        for eleven in (False, True):
            expected = references.voc_detection_ap(truth, found, number, iou, eleven)
            ours = average_precision_voc(ranking, eleven_point=eleven)
            np.testing.assert_allclose(ours, [expected], atol=1e-12)


def test_persons_by_hand():
    # Two persons and a difficult one. By score: a hit, a second hit of the same person (wrong),
    # a hit of the difficult one (does not count), a dog where a person is, a hit.
    truth = [
        Objects([[0, 0, 10, 10], [20, 0, 30, 10]], [2, 2], [False, True]),
        Objects([[0, 0, 10, 10], [50, 50, 60, 60]], [2, 1]),
    ]
    found = [
        FoundBoxes([[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10]], [2, 2, 2], [0.9, 0.8, 0.7]),
        FoundBoxes([[0, 0, 10, 10], [0, 0, 10, 10]], [1, 2], [0.6, 0.5]),
    ]
    report = detection_report(truth, found, NAMES, only_class=2)
    # Precision is 1 up to recall 1/2, then 2/3: ((1 + 2/3) / 2 by area, 6 and 5 of 11 points,
    # 51 and 50 of 101).
    assert list(report["by_class"]) == ["person"]
    assert report["voc_ap50"] == pytest.approx((1 + 2 / 3) / 2)
    assert report["voc07_ap50"] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert report["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    # At IoU 0.95 the first is wrong and the second right: 1/2, then 2/3.
    ninety_five = average_precision_coco(rank_coco(truth, found, 2, iou=COCO_IOU[-1:]))
    assert ninety_five == pytest.approx(2 / 3)
    assert report["by_class"]["person"]["objects"] == 2
    assert report["by_class"]["person"]["detections"] == 4
    everyone = detection_report(truth, found, NAMES)
    assert everyone["by_class"]["dog"]["ap50"] == 0 and np.isnan(everyone["by_class"]["cat"]["ap"])
    assert everyone["ap50"] == pytest.approx(report["ap50"] / 2)


def test_rules_differ_on_a_second_detection_between_two_objects():
    # Both detections like the first object best; the second overlaps the other one enough.
    truth = [Objects([[0, 0, 10, 10], [2, 0, 12, 10]], [0, 0])]
    found = [FoundBoxes([[0, 0, 10, 10], [0.9, 0, 10.9, 10]], [0, 0], [0.9, 0.8])]
    assert average_precision_coco(rank_coco(truth, found, 0))[0] == 1
    assert average_precision_voc(rank_voc(truth, found, 0)) == [0.5]


def test_recall_and_overlap_by_hand():
    truth = [
        Objects([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1]),
        Objects([[0, 0, 10, 10], [0, 0, 1, 1]], [0, 1], [False, True]),
    ]
    proposals = [np.array([[0, 0, 10, 5], [20, 20, 30, 29]]), np.zeros((0, 4))]
    assert recall_by_count(truth, proposals, [1, 2, 500]) == {1: 1 / 3, 2: 2 / 3, 500: 2 / 3}
    assert recall_by_count(truth, proposals, [2], iou=0.6) == {2: 1 / 3}
    overlap = average_best_overlap(truth, proposals, NAMES)
    assert overlap["abo"]["cat"] == pytest.approx(0.25) and np.isnan(overlap["abo"]["person"])
    assert overlap["abo"]["dog"] == pytest.approx(0.9)
    assert overlap["mabo"] == pytest.approx((0.25 + 0.9) / 2)
    assert np.isnan(recall_by_count([], [], [1])[1])


def test_bad_input_is_named():
    with pytest.raises(DataError, match="one entry for each of 1 boxes"):
        FoundBoxes([[0, 0, 1, 1]], [1, 2], [0.5])
    with pytest.raises(DataError, match="end after they begin"):
        FoundBoxes([[0, 0, -1, 1]], [1], [0.5])
    with pytest.raises(DataError, match="`scores` must be finite"):
        FoundBoxes([[0, 0, 1, 1]], [1], [np.nan])
    one, none = Objects([[0, 0, 1, 1]], [3]), FoundBoxes(*NOTHING)
    with pytest.raises(DataError, match="1 and 2 images"):
        rank_voc([one], [none, none], 0)
    with pytest.raises(DataError, match="`truth` must be from 0 to 2"):
        detection_report([one], [none], NAMES)
    with pytest.raises(DataError, match="`only_class` must be from 0 to 2"):
        detection_report([], [], NAMES, only_class=3)
