import numpy as np
import pytest
import references_evaluation as references
from sklearn import metrics

from tfgraphreg.errors import DataError
from tfgraphreg.evaluation import segmentation


def _masks(seed=0, classes=4, shape=(3, 9, 7)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape)
    predictions = np.where(rng.random(shape) < 0.6, labels, rng.integers(0, classes, shape))
    labels[rng.random(shape) < 0.1] = segmentation.IGNORE
    return labels, predictions


def test_equals_torchmetrics():
    reference = references.torchmetrics("functional.classification")
    torch = pytest.importorskip("torch")
    labels, predictions = _masks()
    report = segmentation.segmentation_report(labels, predictions, list("abcd"))
    arguments = {"num_classes": 4, "ignore_index": segmentation.IGNORE}
    guess, truth = torch.tensor(predictions), torch.tensor(labels)

    def expect(function, average):
        value = getattr(reference, f"multiclass_{function}")(
            guess, truth, average=average, **arguments
        )
        return value.numpy()

    assert report["pixel_accuracy"] == pytest.approx(expect("accuracy", "micro"))
    assert report["mean_pixel_accuracy"] == pytest.approx(expect("accuracy", "macro"))
    np.testing.assert_allclose(
        list(report["class_accuracy"].values()), expect("accuracy", "none"), rtol=1e-6
    )
    assert report["mean_iou"] == pytest.approx(expect("jaccard_index", "macro"))
    np.testing.assert_allclose(
        list(report["iou"].values()), expect("jaccard_index", "none"), rtol=1e-6
    )
    assert report["mean_dice"] == pytest.approx(expect("f1_score", "macro"))
    np.testing.assert_allclose(list(report["dice"].values()), expect("f1_score", "none"), rtol=1e-6)


def test_by_hand_with_absent_classes():
    # Class 2 is guessed once and never true; class 3 is in neither.
    report = segmentation.segmentation_report(
        np.array([[0, 0, 1, 255]]), np.array([[0, 2, 1, 3]]), list("abcd")
    )
    assert report["pixels"] == 3
    assert report["pixel_accuracy"] == pytest.approx(2 / 3)
    assert report["mean_pixel_accuracy"] == 0.75
    np.testing.assert_equal(report["iou"], {"a": 0.5, "b": 1.0, "c": 0.0, "d": np.nan})
    assert report["mean_iou"] == 0.5
    np.testing.assert_equal(report["dice"], {"a": 2 / 3, "b": 1.0, "c": 0.0, "d": np.nan})
    np.testing.assert_equal(
        report["class_accuracy"], {"a": 0.5, "b": 1.0, "c": np.nan, "d": np.nan}
    )


def test_nothing_to_judge_gives_nan():
    report = segmentation.segmentation_report(np.full((2, 2), 255), np.zeros((2, 2)), ["a", "b"])
    for name in ("pixel_accuracy", "mean_pixel_accuracy", "mean_iou", "mean_dice"):
        assert np.isnan(report[name])


def test_without_an_ignore_label_every_pixel_counts():
    counts = segmentation.pixel_counts([0, 1], [1, 1], classes=2, ignore_label=None)
    np.testing.assert_array_equal(counts, [[0, 1], [0, 1]])
    with pytest.raises(DataError, match="`labels` must be from 0 to 1"):
        segmentation.pixel_counts([0, 255], [1, 1], classes=2, ignore_label=None)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="same shape"):
        segmentation.pixel_counts([0], [[0]], classes=1)
    with pytest.raises(DataError, match="`predictions` must be from 0 to 1"):
        segmentation.pixel_counts([0], [2], classes=2)


@pytest.mark.parametrize("seed", range(8))
def test_equals_scikit_learn(seed):
    """Also with classes that are never true, never predicted, or neither."""
    labels, predictions = _masks(seed, classes=6)
    labels[labels == seed % 6] = segmentation.IGNORE
    predictions[predictions == (seed + 1) % 6] = seed % 6 if seed % 2 else 0
    report = segmentation.segmentation_report(labels, predictions, list("abcdef"))
    counted = labels != segmentation.IGNORE
    true, found = labels[counted], predictions[counted]
    numbers = range(6)
    np.testing.assert_array_equal(
        report["confusion_matrix"], metrics.confusion_matrix(true, found, labels=numbers)
    )
    assert report["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(true, found))
    options = {"labels": numbers, "average": None, "zero_division": np.nan}
    either = np.isin(numbers, np.union1d(true, found))
    for name, function in (("iou", metrics.jaccard_score), ("dice", metrics.f1_score)):
        wanted = function(true, found, **{**options, "zero_division": 0})
        wanted[~either] = np.nan
        np.testing.assert_allclose(list(report[name].values()), wanted)
        assert report[f"mean_{name}"] == pytest.approx(np.nanmean(wanted))
    recall = metrics.recall_score(true, found, **options)
    np.testing.assert_allclose(list(report["class_accuracy"].values()), recall)
    assert report["mean_pixel_accuracy"] == pytest.approx(np.nanmean(recall))
