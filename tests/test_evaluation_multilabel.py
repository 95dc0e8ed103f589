import numpy as np
import pytest
import references_evaluation as references

from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.multilabel import average_precision_voc, multilabel_report

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("eleven_point", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_development_kit_with_ties_and_difficult_items(seed, eleven_point):
    rng = np.random.default_rng(seed)
    relevant = rng.random(40) < 0.3
    difficult = rng.random(40) < 0.2
    relevant[0], difficult[0] = True, False
    scores = rng.integers(0, 12, 40) / 12  # many ties
    expected = references.voc_average_precision(
        relevant, scores, difficult, eleven_point=eleven_point
    )
    actual = average_precision_voc(relevant, scores, difficult=difficult, eleven_point=eleven_point)
    assert actual == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    # Ranking: hit, miss, hit. Area: 1/2 * 1 + 1/2 * 2/3. Recalls 0 to 0.5 have 1, others 2/3.
    relevant, scores = [1, 0, 1], [0.9, 0.8, 0.7]
    assert average_precision_voc(relevant, scores) == pytest.approx(5 / 6)
    eleven = average_precision_voc(relevant, scores, eleven_point=True)
    assert eleven == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert average_precision_voc(relevant, scores, difficult=[0, 1, 0]) == 1.0


def test_tenths_of_recall_are_reached_exactly():
    # With 10 relevant items 3 found are a recall of 0.3, whatever 3 * 0.1 is in binary.
    relevant = np.array([1] * 3 + [0] * 20 + [1] * 7)
    scores = -np.arange(30.0)
    expected = (4 * 1.0 + 7 * 10 / 30) / 11
    assert average_precision_voc(relevant, scores, eleven_point=True) == pytest.approx(expected)


def test_nothing_relevant_gives_nan_and_one_item_gives_one():
    assert np.isnan(average_precision_voc([0, 0], [0.1, 0.2]))
    assert np.isnan(average_precision_voc([1], [0.1], difficult=[1]))
    assert average_precision_voc([1], [0.1]) == 1.0
    assert average_precision_voc([1], [0.1], eleven_point=True) == pytest.approx(1.0)


def test_report_equals_scikit_learn():
    rng = np.random.default_rng(1)
    labels = (rng.random((60, 5)) < 0.4).astype(np.int8)
    scores = rng.random((60, 5))
    report = multilabel_report(labels, scores, list("abcde"))
    predicted = scores >= 0.5
    for average in ("micro", "macro"):
        assert report[f"{average}_f1"] == pytest.approx(
            metrics.f1_score(labels, predicted, average=average)
        )
    assert report["micro_precision"] == pytest.approx(
        metrics.precision_score(labels, predicted, average="micro")
    )
    assert report["micro_recall"] == pytest.approx(
        metrics.recall_score(labels, predicted, average="micro")
    )
    areas = [average_precision_voc(labels[:, c], scores[:, c]) for c in range(5)]
    assert report["mean_average_precision"] == pytest.approx(np.mean(areas))
    assert report["support"] == dict(zip("abcde", labels.sum(0)))


def test_absent_classes_unlabeled_rows_and_difficult_entries():
    labels = np.array([[1, 0], [0, 0], [1, 0], [-1, -1]])
    scores = np.array([[0.9, 0.9], [0.2, 0.1], [0.1, 0.1], [0.0, 1.0]])
    report = multilabel_report(labels, scores, ["a", "b"])
    assert np.isnan(report["average_precision"]["b"]) and np.isnan(report["f1"]["b"])
    assert report["mean_average_precision"] == report["average_precision"]["a"]
    assert report["micro_precision"] == 0.5 and report["micro_recall"] == 0.5
    assert report["macro_f1"] == pytest.approx(2 / 3)
    assert report["items"] == 3 and report["support"] == {"a": 2, "b": 0}
    difficult = np.zeros((4, 2), bool)
    difficult[2, 0] = difficult[0, 1] = True
    report = multilabel_report(labels, scores, ["a", "b"], difficult=difficult)
    assert report["mean_average_precision"] == 1.0 and report["micro_f1"] == 1.0


def test_nothing_labeled_gives_nan():
    report = multilabel_report(np.full((2, 2), -1), np.ones((2, 2)), ["a", "b"])
    assert np.isnan(report["mean_average_precision"]) and np.isnan(report["micro_f1"])
    assert np.isnan(report["macro_f1"]) and report["items"] == 0


def test_bad_input_is_named():
    with pytest.raises(DataError, match="one column for each"):
        multilabel_report(np.ones((2, 2)), np.ones((2, 3)), ["a", "b", "c"])
    with pytest.raises(DataError, match="must be 0, 1 or -1"):
        multilabel_report(np.full((2, 2), 2), np.ones((2, 2)), ["a", "b"])
    with pytest.raises(DataError, match="`difficult` must have the shape"):
        multilabel_report(np.ones((2, 2)), np.ones((2, 2)), ["a", "b"], difficult=np.ones(2))
