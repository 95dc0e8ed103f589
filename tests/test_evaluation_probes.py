import numpy as np
import pytest

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.probes import PROBES, probe_report

pytest.importorskip("sklearn")


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data[:600], digits.target[:600], digits.data[600:900], digits.target[600:900]


def test_every_probe_reads_real_digits_and_repeats():
    data = _digits()
    calls = []
    report = probe_report(*data, seeds=(0, 1), progress=lambda *call: calls.append(call))
    assert list(report) == list(PROBES)
    for name, row in report.items():
        assert 0.8 < row["accuracy"] <= 1, name
        assert row["accuracy"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["std"] == pytest.approx(np.std(row["accuracies"], ddof=1))
    assert calls[-1] == (10, 10)
    assert (
        probe_report(*data, probes=["mlp", "random_forest"], seeds=(0, 1))["mlp"] == report["mlp"]
    )


def test_knn_equals_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    x, y, test_x, test_y = _digits()
    expected = KNeighborsClassifier(10).fit(x, y).score(test_x, test_y)
    report = probe_report(x, y, test_x, test_y, probes=["knn"], seeds=[5])
    assert report["knn"]["accuracies"] == [expected] and np.isnan(report["knn"]["std"])


def test_a_limit_draws_by_seed():
    report = probe_report(*_digits(), probes=["knn"], seeds=(0, 1), limit=60)
    first, second = report["knn"]["accuracies"]
    assert first != second and min(first, second) < 0.95


def test_unlabeled_items_and_tiny_classes():
    x, y, test_x, test_y = _digits()
    hidden = y.copy()
    hidden[12:] = -1
    report = probe_report(x, hidden, test_x, np.full(300, -1), seeds=[0])
    assert all(np.isnan(row["accuracy"]) for row in report.values())
    report = probe_report(x, hidden, test_x, test_y, seeds=[0])
    assert all(0 < row["accuracy"] < 1 for row in report.values())
    assert report["logistic_regression"]["accuracy"] > 0.3


def test_bad_input_is_named():
    x, y, test_x, test_y = _digits()
    with pytest.raises(ConfigError, match="`probes` must be among knn"):
        probe_report(x, y, test_x, test_y, probes=["boosting"])
    with pytest.raises(DataError, match="at least two classes"):
        probe_report(x, np.zeros(600, int), test_x, test_y)
    with pytest.raises(DataError, match="same width"):
        probe_report(x, y, test_x[:, :5], test_y)
