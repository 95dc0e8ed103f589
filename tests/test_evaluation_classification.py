import numpy as np
import pytest
import references_evaluation as references

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.classification import classification_report, top_k_accuracy

metrics = pytest.importorskip("sklearn.metrics")


def _random(n, classes, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    labels = rng.integers(0, classes, n)
    logits[np.arange(n), labels] += 1
    values = np.exp(logits)
    return labels, values / values.sum(axis=1, keepdims=True)


def _names(classes):
    return [f"class {i}" for i in range(classes)]


def test_equals_scikit_learn_on_random_predictions():
    labels, probabilities = _random(300, 7)
    report = classification_report(labels, probabilities, _names(7))
    predicted = probabilities.argmax(1)
    assert report["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert report["top_5_accuracy"] == pytest.approx(
        metrics.top_k_accuracy_score(labels, probabilities, k=5)
    )
    assert report["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, predicted)
    )
    for average in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(labels, predicted, average=average)
        for name, value in zip(("precision", "recall", "f1"), expected):
            assert report[f"{average}_{name}"] == pytest.approx(value)
    assert report["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
    )
    assert report["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities))
    assert report["cohen_kappa"] == pytest.approx(metrics.cohen_kappa_score(labels, predicted))
    matrix = metrics.confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(report["confusion_matrix"], matrix)
    recalls = np.diag(matrix) / matrix.sum(1)
    np.testing.assert_allclose(list(report["per_class_accuracy"].values()), recalls)
    assert report["support"] == dict(zip(_names(7), matrix.sum(1)))


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_equals_torchmetrics(bins):
    reference = references.torchmetrics("functional.classification")
    torch = pytest.importorskip("torch")
    labels, probabilities = _random(500, 4, seed=3)
    report = classification_report(labels, probabilities, _names(4), bins=bins)
    expected = reference.multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(labels), num_classes=4, n_bins=bins
    )
    assert report["expected_calibration_error"] == pytest.approx(float(expected), abs=1e-6)


def test_calibration_error_by_hand():
    # Confidences .5 and .75 in (.4, .6] and (.6, .8]: gaps |1 - .5| and |0.5 - .75|.
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.75, 0.25]])
    report = classification_report([0, 0, 1], probabilities, ["a", "b"], bins=5)
    assert report["expected_calibration_error"] == pytest.approx((0.5 * 1 + 0.25 * 2) / 3)


def test_a_class_without_items_stays_out_of_means_but_wrong_guesses_of_it_count():
    probabilities = np.eye(3)[[0, 2, 1, 1]]
    report = classification_report([0, 0, 1, 1], probabilities, ["a", "b", "c"])
    assert report["accuracy"] == 0.75
    assert report["balanced_accuracy"] == 0.75
    assert report["macro_precision"] == 1.0
    assert report["macro_recall"] == 0.75
    assert np.isnan(report["per_class_accuracy"]["c"])
    assert report["support"] == {"a": 2, "b": 2, "c": 0}
    assert 0.5 < report["roc_auc"] <= 1


def test_a_class_never_predicted_has_precision_zero():
    report = classification_report([0, 1], np.array([[1.0, 0], [1.0, 0]]), ["a", "b"])
    assert report["macro_precision"] == 0.25
    assert report["macro_recall"] == 0.5


def test_unlabeled_items_are_ignored():
    labels, probabilities = _random(50, 4)
    expected = classification_report(labels[10:], probabilities[10:], _names(4))
    labels[:10] = -1
    report = classification_report(labels, probabilities, _names(4))
    for name in expected:
        np.testing.assert_equal(report[name], expected[name])
    assert report["items"] == 40


def test_nothing_labeled_gives_nan():
    report = classification_report([-1, -1], np.full((2, 2), 0.5), ["a", "b"])
    assert np.isnan(report["accuracy"]) and np.isnan(report["log_loss"])
    assert np.isnan(report["roc_auc"]) and np.isnan(report["expected_calibration_error"])
    assert report["confusion_matrix"].sum() == 0 and report["items"] == 0


def test_a_single_item():
    report = classification_report([1], np.array([[0.25, 0.75]]), ["a", "b"])
    assert report["accuracy"] == 1.0
    assert report["log_loss"] == pytest.approx(-np.log(0.75))
    assert np.isnan(report["roc_auc"]) and np.isnan(report["cohen_kappa"])


def test_equal_probabilities_go_to_the_lower_class_in_every_number():
    probabilities = np.full((8, 8), 1 / 8)
    labels = np.arange(8)
    report = classification_report(labels, probabilities, _names(8))
    assert report["accuracy"] == 1 / 8
    assert report["top_5_accuracy"] == 5 / 8
    assert top_k_accuracy(labels, probabilities, k=1) == report["accuracy"]


def test_a_zero_probability_of_the_true_class_keeps_the_loss_finite():
    report = classification_report([1], np.array([[1.0, 0.0]]), ["a", "b"])
    assert report["log_loss"] == pytest.approx(-np.log(np.finfo(np.float64).eps))


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "match"),
    [
        ([0], [[1.0, 2.0]], ["a", "b"], "Rows of `probabilities` must be non-negative and sum"),
        ([0], [[np.nan, 1.0]], ["a", "b"], "`probabilities` must be finite"),
        ([2], [[0.5, 0.5]], ["a", "b"], "smaller than the number of columns"),
        ([-2], [[0.5, 0.5]], ["a", "b"], "from 0 on, or -1"),
        ([0, 1], [[0.5, 0.5]], ["a", "b"], "for each of 1 items"),
        ([0.5], [[0.5, 0.5]], ["a", "b"], "must be whole numbers"),
        ([0], [[0.5, 0.5]], ["a"], "one name of its own for each column"),
        ([0], [[0.5, 0.5]], ["a", "a"], r"2 names \(1 different\)"),
        ([[0, 1]], [[0.5, 0.5]], ["a", "b"], "Use multilabel_report"),
    ],
)
def test_bad_input_is_named(labels, probabilities, names, match):
    with pytest.raises(DataError, match=match):
        classification_report(np.array(labels), np.array(probabilities), names)


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match=r"`bins` must be at least 1\. Received: bins=0\."):
        classification_report([0], np.array([[0.5, 0.5]]), ["a", "b"], bins=0)
    with pytest.raises(ConfigError, match="`k` must be at least 1"):
        top_k_accuracy(np.array([0]), np.array([[1.0]]), k=0)
