import numpy as np
import pytest
import references_evaluation as references

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import ConfigError, DataError, UnknownNameError
from tfgraphreg.evaluation.retrieval import full_retrieval_report, retrieval_report
from tfgraphreg.search.ranking import nearest

NUMBERS = (
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "precision_at_10",
    "mean_average_precision",
    "map_at_r",
    "r_precision",
    "ndcg",
    "mean_reciprocal_rank",
)
PLAIN = {
    "cosine": references.cosine,
    "euclidean": references.euclidean,
    "sqeuclidean": lambda x, y: references.euclidean(x, y) ** 2,
    "manhattan": references.manhattan,
}


def _clusters(n, width=6, classes=4, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centers = np.random.default_rng(99).normal(size=(classes, width))
    return (centers[labels] + spread * rng.normal(size=(n, width))).astype(np.float32), labels


@pytest.mark.parametrize("distance", PLAIN)
@pytest.mark.parametrize("cutoff", [3, 100, None])
def test_equals_plain_loops(distance, cutoff):
    queries, query_labels = _clusters(25, seed=1)
    gallery, gallery_labels = _clusters(60, seed=2)
    report = full_retrieval_report(
        queries, query_labels, gallery, gallery_labels, distance=distance, map_cutoff=cutoff
    )
    expected = references.retrieval(
        queries,
        query_labels,
        gallery,
        gallery_labels,
        distance=PLAIN[distance],
        ks=(1, 5, 10),
        cutoff=cutoff or 60,
    )
    for name in NUMBERS:
        assert report[name] == pytest.approx(expected[name], abs=1e-12), name


def test_the_short_report_is_part_of_the_full_one():
    x, y = _clusters(40)
    ids = [f"item {i}" for i in range(40)]
    short = retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids, ks=(1, 2))
    full = full_retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids, ks=(1, 2))
    assert short == {name: full[name] for name in short}
    assert {"recall_at_1", "recall_at_2", "precision_at_2"} <= set(short)


def test_self_is_removed_by_id_wherever_it_stands():
    x, y = _clusters(50)
    shuffled = np.random.default_rng(5).permutation(50)
    own = np.argsort(shuffled)
    report = full_retrieval_report(
        x, y, x[shuffled], y[shuffled], query_ids=np.arange(50), gallery_ids=shuffled
    )
    expected = references.retrieval(
        x,
        y,
        x[shuffled],
        y[shuffled],
        distance=references.cosine,
        ks=(1, 5, 10),
        cutoff=100,
        own=own,
    )
    for name in NUMBERS:
        assert report[name] == pytest.approx(expected[name], abs=1e-12), name


def test_self_is_removed_even_among_many_duplicates():
    # All points equal: the query may not even be among the neighbors that are found.
    x = np.ones((30, 3), np.float32)
    y = np.arange(30) // 2
    ids = np.arange(30)
    report = retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids, ks=(1,), map_cutoff=1)
    # Equal distances go by position: all but the first pair find item 0 first.
    assert report["recall_at_1"] == pytest.approx(2 / 30)


def test_map_at_r_equals_pytorch_metric_learning():
    torch = pytest.importorskip("torch", reason="the reference is a PyTorch package")
    module = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    x, y = _clusters(80, seed=4)
    y[5] = 7  # a class of one item, which both leave out
    calculator = module.AccuracyCalculator(
        include=("mean_average_precision_at_r", "r_precision", "precision_at_1"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    expected = calculator.get_accuracy(torch.tensor(x), torch.tensor(y))
    ids = np.arange(80)
    report = full_retrieval_report(x, y, x, y, distance="euclidean", query_ids=ids, gallery_ids=ids)
    assert report["map_at_r"] == pytest.approx(expected["mean_average_precision_at_r"])
    assert report["r_precision"] == pytest.approx(expected["r_precision"])
    assert report["recall_at_1"] == pytest.approx(expected["precision_at_1"])


@pytest.mark.parametrize("distance", PLAIN)
@pytest.mark.parametrize("cutoff", [2, 5, None])
def test_ties_go_by_position_and_single_items_have_no_say(distance, cutoff):
    # Points of a small grid: most distances are equal to many others; for angles, a few
    # directions at several lengths. Class 9 has one item.
    rng = np.random.default_rng(3)
    x = rng.integers(1, 4, (40, 2)).astype(np.float32)
    if distance == "cosine":
        few = rng.normal(size=(6, 4)).astype(np.float32)
        x = few[rng.integers(0, 6, 40)] * 2.0 ** rng.integers(0, 4, (40, 1)).astype(np.float32)
    y = rng.integers(0, 4, 40)
    y[7] = 9
    ids = np.arange(40)
    options = {"distance": distance, "map_cutoff": cutoff, "ks": (1, 3)}
    report = full_retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids, **options)
    # Rounded, or equal angles would differ in the last bit.
    expected = references.retrieval(
        *(x, y, x, y),
        distance=lambda a, b: round(PLAIN[distance](a, b), 5),
        ks=(1, 3),
        cutoff=cutoff or 40,
        own=ids,
    )
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, abs=1e-12), name
    assert report["queries_without_relevant"] == 1


def test_neighbors_equal_faiss_brute_force():
    faiss = pytest.importorskip("faiss")
    x, _ = _clusters(300, seed=6)
    queries, _ = _clusters(20, seed=7)
    for distance, metric in (("euclidean", faiss.METRIC_L2), ("manhattan", faiss.METRIC_L1)):
        values, positions = faiss.knn(queries, x, 9, metric=metric)
        ((_, found, distances),) = nearest(queries, x, 9, distance=distance)
        np.testing.assert_array_equal(found, positions)
        values = np.sqrt(values) if distance == "euclidean" else values
        np.testing.assert_allclose(distances, values, rtol=1e-5)


def test_average_precision_by_hand():
    # Ranked labels for the query of class 0: 0 1 0 1 0; three are relevant.
    gallery = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    report = full_retrieval_report(
        np.array([[0.0]]), [0], gallery, [0, 1, 0, 1, 0], distance="euclidean", ks=(1, 2, 10)
    )
    assert report["mean_average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert report["map_at_r"] == pytest.approx((1 + 2 / 3) / 3)
    assert report["r_precision"] == pytest.approx(2 / 3)
    assert report["precision_at_2"] == 0.5
    assert report["precision_at_10"] == pytest.approx(0.3)


def test_multi_hot_labels_are_relevant_when_they_share_a_class():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    y = (rng.random((40, 6)) < 0.3).astype(np.int8)
    ids = np.arange(40)
    report = full_retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids)
    expected = references.retrieval(
        x, y, x, y, distance=references.cosine, ks=(1, 5, 10), cutoff=100, own=ids
    )
    for name in NUMBERS:
        assert report[name] == pytest.approx(expected[name], abs=1e-12), name
    assert report["queries_without_relevant"] >= int((y.sum(1) == 0).sum())


def test_queries_without_relevant_items_are_left_out_and_counted():
    gallery = np.array([[0.0, 1.0], [1.0, 0.0]])
    report = retrieval_report(np.array([[0.0, 1.0], [1.0, 0.0]]), [0, 7], gallery, [0, 1])
    assert report["recall_at_1"] == 1.0
    assert report["queries"] == 2 and report["queries_without_relevant"] == 1


def test_unlabeled_items_are_neither_queries_nor_gallery():
    x, y = _clusters(60)
    ids = np.arange(60)
    hidden = y.copy()
    hidden[::3] = -1
    kept = hidden >= 0
    report = retrieval_report(x, hidden, x, hidden, query_ids=ids, gallery_ids=ids)
    expected = retrieval_report(
        x[kept], y[kept], x[kept], y[kept], query_ids=ids[kept], gallery_ids=ids[kept]
    )
    assert report == expected


@pytest.mark.parametrize("size", [0, 1])
def test_no_other_item_gives_nan(size):
    x, y = np.ones((size, 3)), np.zeros(size, int)
    ids = np.arange(size)
    report = full_retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids)
    assert all(np.isnan(report[name]) for name in NUMBERS)
    assert report["queries_without_relevant"] == size


def test_other_registered_distances_are_searched_by_brute_force():
    name = "chebyshev for this test"
    record = Distance(name, tensor=None, array=lambda x, y: np.abs(x - y).max(axis=1))
    DISTANCES.register(name, record, replace=True)
    x, y = _clusters(30, seed=8)
    report = full_retrieval_report(x[:9], y[:9], x[9:], y[9:], distance=name)
    expected = references.retrieval(
        x[:9],
        y[:9],
        x[9:],
        y[9:],
        distance=lambda a, b: float(np.abs(a - b).max()),
        ks=(1, 5, 10),
        cutoff=100,
    )
    for number in NUMBERS:
        assert report[number] == pytest.approx(expected[number], abs=1e-12), number


def test_distances_of_distributions_see_softmax_rows_and_keep_their_direction():
    name = "divergence for this test"

    def divergence(x, y):
        assert np.allclose(x.sum(1), 1) and np.allclose(y.sum(1), 1)
        return (x * np.log(x / y)).sum(axis=1)

    DISTANCES.register(
        name,
        Distance(name, tensor=None, array=divergence, symmetric=False, distributions=True),
        replace=True,
    )
    x, _ = _clusters(20)
    p = np.exp(x.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    expected = (p[:5, None] * np.log(p[:5, None] / p[None, 5:])).sum(-1)
    ((part, positions, values),) = nearest(x[:5], x[5:], 4, distance=name)
    assert part == slice(0, 5)
    np.testing.assert_array_equal(positions, np.argsort(expected, axis=1)[:, :4])
    np.testing.assert_allclose(values, np.sort(expected, axis=1)[:, :4], rtol=1e-5)


def test_chunks_change_nothing_and_progress_counts_up():
    x, y = _clusters(2500)
    whole = np.concatenate([p for _, p, _ in nearest(x, x[:300], 7, distance="euclidean")])
    parts = np.concatenate(
        [p for _, p, _ in nearest(x, x[:300], 7, distance="euclidean", chunk_entries=70)]
    )
    np.testing.assert_array_equal(whole, parts)
    calls = []
    retrieval_report(x, y, x[:300], y[:300], progress=lambda *call: calls.append(call))
    assert len(calls) > 1 and calls[-1] == (2500, 2500) and calls == sorted(calls)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sqeuclidean", "manhattan"])
def test_fast_search_agrees_with_the_registered_distance_even_on_zero_rows(distance):
    x = np.array([[0, 0], [1, 0], [-1, 0], [2, 0], [0, 0], [3, 4]], np.float32)
    ((_, positions, distances),) = nearest(x, x, 6, distance=distance)
    for row, order, values in zip(x, positions, distances):
        expected = DISTANCES.get(distance).array(np.broadcast_to(row, x.shape), x)
        np.testing.assert_allclose(values, np.sort(expected), atol=1e-6)
        np.testing.assert_array_equal(order, np.argsort(expected.round(6), kind="stable"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"queries": np.ones((3, 2))}, "same width. Received: 2 and 4"),
        ({"queries": np.full((3, 4), np.nan)}, "`queries` must be finite"),
        ({"gallery": np.ones(5)}, r"`gallery` must be numbers of the shape \[N, D\]"),
        ({"gallery_labels": [0, 1]}, "for each of 5 items"),
        ({"gallery_labels": np.ones((5, 2))}, "same kind"),
        ({"query_ids": [1, 2, 3]}, "must both be given"),
        ({"query_ids": [1, 2, 3], "gallery_ids": [1, 1, 2, 3, 4]}, "must differ"),
    ],
)
def test_bad_input_is_named(change, match):
    arguments = {
        "queries": np.ones((3, 4)),
        "query_labels": [0, 0, 1],
        "gallery": np.ones((5, 4)),
        "gallery_labels": [0, 0, 1, 1, 1],
    }
    with pytest.raises(DataError, match=match):
        retrieval_report(**{**arguments, **change})


def test_bad_settings_are_named():
    x = np.ones((3, 2))
    with pytest.raises(ConfigError, match="`ks` and `map_cutoff` must be at least 1"):
        retrieval_report(x, [0, 0, 0], x, [0, 0, 0], ks=(0,))
    with pytest.raises(UnknownNameError, match=r"Unknown distance\. Received: 'cosin'"):
        retrieval_report(x, [0, 0, 0], x, [0, 0, 0], distance="cosin")


@pytest.mark.slow
def test_seventy_thousand_items_against_themselves_stay_within_one_gigabyte():
    import subprocess
    import sys

    code = """
import resource, numpy as np
from tfgraphreg.evaluation.retrieval import retrieval_report
rng = np.random.default_rng(0)
y = rng.integers(0, 10, 70_000)
x = (rng.normal(size=(10, 128))[y] + rng.normal(size=(70_000, 128))).astype(np.float32)
ids = np.arange(70_000)
print(retrieval_report(x, y, x, y, query_ids=ids, gallery_ids=ids)["recall_at_1"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    recall, peak = map(float, done.stdout.split())
    assert recall > 0.9
    assert peak < 1
