"""Unknown queries, votes of neighbors, and an index that keeps its limit: on arrays alone."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.open_set import auroc, left_out_report, open_set_report
from tfgraphreg.search.threshold import accepting_limit, least_known
from tfgraphreg.search.vote import vote
from tfgraphreg.visualize.search import Searcher

rng = np.random.default_rng


def points(n, width=8, seed=0, at=0.0):
    return (rng(seed).normal(size=(n, width)) + at).astype(np.float32)


def ids(n, prefix="item"):
    return [f"{prefix} {i}" for i in range(n)]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize("decimals", [8, 1])
def test_auroc_is_that_of_scikit_learn_with_ties_too(decimals):
    known, unknown = rng(0).normal(size=300), rng(1).normal(0.7, size=70)
    known, unknown = known.round(decimals), unknown.round(decimals)
    truth = np.repeat([0, 1], [300, 70])
    expected = roc_auc_score(truth, np.concatenate([known, unknown]))
    assert auroc(known, unknown) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(auroc(known, [])) and auroc([1, 1], [1]) == 0.5
    report = open_set_report(known, unknown, limit=0.5)
    assert report["known_accepted"] == np.mean(known <= 0.5)
    assert report["unknown_accepted"] == np.mean(unknown <= 0.5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5, 17])
def test_the_vote_is_that_of_scikit_learn(metric, k):
    x, q = points(400), points(60, seed=1)
    labels = np.array(["cat", "dog", "eel", "fox"])[rng(2).integers(0, 4, 400)]
    q[:5] = x[:5]  # at distance 0
    theirs = KNeighborsClassifier(k, weights="distance", metric=metric).fit(x, labels)
    distances, near = theirs.kneighbors(q)
    found, shares = vote(labels[near], distances)
    assert found.tolist() == theirs.predict(q).tolist()
    np.testing.assert_allclose(shares, theirs.predict_proba(q).max(axis=1))


def test_a_vote_counts_labeled_neighbors_only():
    labels = np.array([["", "b", "a"], ["", "", ""], ["a", "b", "b"], ["b", "a", ""]])
    distances = np.array([[0, 2, 1], [1, 2, 3], [0.1, 1, 1], [1, 1, np.inf]])
    found, shares = vote(labels, distances)
    assert found.tolist() == ["a", "", "a", "a"]  # alphabetical order where weights are equal
    np.testing.assert_allclose(shares, [2 / 3, 0, 10 / 12, 0.5])
    assert [len(part) for part in vote(np.empty((0, 3), str), np.empty((0, 3)))] == [0, 0]
    assert vote(np.empty((2, 0), str), np.empty((2, 0)))[0].tolist() == ["", ""]


def test_a_limit_accepts_new_images_with_the_probability_that_it_says():
    accepted = []
    for seed in range(400):
        scores = rng(seed).normal(size=140)
        limit = accepting_limit(scores[:39], 0.9)
        assert limit == np.sort(scores[:39])[35]  # the 36th of 39: 40 * 0.9
        accepted.append(np.mean(scores[39:] <= limit))
    assert np.mean(accepted) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(("share", "least"), [(0.95, 19), (0.9, 9), (0.5, 1), (0.99, 99)])
def test_a_limit_needs_images_enough_for_its_share(share, least):
    assert least_known(share) == least
    assert accepting_limit(np.arange(float(least)), share) == least - 1
    with pytest.raises(DataError, match=f"at least {least} images"):
        accepting_limit(np.arange(float(least - 1)), share)
    with pytest.raises(DataError, match="needs items"):
        accepting_limit(np.full(least, np.inf), share)


@pytest.mark.parametrize("method", ["exact", "hnsw"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_far_queries_are_unknown_and_a_saved_index_says_the_same(model, method, distance):
    searcher = Searcher(8, method=method, distance=distance)
    searcher.add(ids(300), embeddings=points(300, at=2.0))
    queries = np.concatenate([points(200, seed=1, at=2.0), points(50, seed=2, at=-2.0)])
    assert searcher.search(queries).unknown is None
    searcher.calibrate(0.95, embeddings=points(100, seed=3, at=2.0), source="test images")
    unknown = searcher.search(queries, k=3).unknown
    nearest = NearestNeighbors(n_neighbors=1, metric=distance).fit(points(300, at=2.0))
    known = nearest.kneighbors(points(100, seed=3, at=2.0))[0][:, 0]
    assert searcher.limit == pytest.approx(np.sort(known)[95], rel=1e-3)
    # What lies at the limit is accepted: 96 of the 100.
    assert searcher.search(points(100, seed=3, at=2.0)).unknown.sum() == 4
    np.testing.assert_array_equal(unknown, nearest.kneighbors(queries)[0][:, 0] > searcher.limit)
    assert unknown[:200].mean() < 0.12 and unknown[200:].mean() > 0.9
    searcher.save(model)
    assert (model / "search" / "known.npz").exists()
    loaded = Searcher.load(model)
    assert (loaded.limit, loaded.calibration.source) == (searcher.limit, "test images")
    np.testing.assert_array_equal(loaded.search(queries).unknown, unknown)
    assert loaded.search(np.empty((0, 8), np.float32)).unknown.shape == (0,)


def test_what_is_added_moves_the_limit_and_is_known(model):
    searcher = Searcher(8)
    searcher.add(ids(100), embeddings=points(100, at=2.0), labels=["old"] * 100)
    searcher.calibrate(0.9, embeddings=points(60, seed=1, at=2.0))
    other = points(20, seed=2, at=-2.0)
    assert searcher.search(other).unknown.all()
    before = searcher.limit
    searcher.add(ids(40, "near"), embeddings=points(60, seed=1, at=2.0)[:40])
    assert searcher.limit < before
    searcher.add(["new"], embeddings=other[:1], labels=["new"])
    searcher.save(model)
    loaded = Searcher.load(model)
    assert loaded.limit == searcher.limit < before
    found = loaded.search(other[:1], k=3)
    assert not found.unknown.any() and found.vote()[0].tolist() == ["new"]


def test_another_share_needs_no_images_and_1_takes_the_limit_away(model):
    searcher = Searcher(8)
    searcher.add(ids(100), embeddings=points(100))
    searcher.calibrate(0.9, embeddings=points(60, seed=1), labels=["a"] * 60)
    before = searcher.limit
    searcher.calibrate(0.5)
    assert searcher.limit < before and searcher.calibration.labels.tolist() == ["a"] * 60
    with pytest.raises(DataError, match="at least 99 images"):
        searcher.calibrate(0.99)
    assert searcher.calibration.share == 0.5
    searcher.calibrate(1)
    assert searcher.limit is None and searcher.search(points(1) + 99).unknown is None
    searcher.save(model)
    # As an earlier version of this package wrote it.
    assert json.loads((model / "search" / "meta.json").read_text())["format"] == 2
    assert not (model / "search" / "known.npz").exists()
    assert Searcher.load(model).limit is None


def test_what_cannot_calibrate_is_refused():
    searcher = Searcher(8)
    with pytest.raises(DataError, match="needs items"):
        searcher.calibrate(0.5, embeddings=points(9))
    searcher.add(ids(9), embeddings=points(9))
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="`reject` must be above 0 and at most 1"):
            searcher.calibrate(share, embeddings=points(9))
    with pytest.raises(ConfigError, match="needs `embeddings`"):
        searcher.calibrate(0.5)
    with pytest.raises(DataError, match="width of the index"):
        searcher.calibrate(0.5, embeddings=points(9, 4))
    with pytest.raises(DataError, match="3 labels, 9 images"):
        searcher.calibrate(0.5, embeddings=points(9), labels=["a"] * 3)
    assert searcher.limit is None


def test_a_calibration_keeps_so_many_images_at_most():
    searcher = Searcher(2)
    searcher.add(ids(3), embeddings=points(3, 2))
    searcher.calibrate(0.5, embeddings=points(6000, 2, seed=1))
    assert searcher.calibration.embeddings.shape == (5000, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"share": 2.0},
        {"share": "0.9"},
        {"limit": "inf"},
        {"limit": None},
        {"limit": float("nan")},
        {"images": 3},
        {"source": 1},
        None,
        [],
    ],
)
def test_a_limit_that_cannot_be_is_damage(model, change):
    from tfgraphreg.storage import fingerprint

    searcher = Searcher(8)
    searcher.add(ids(50), embeddings=points(50))
    searcher.calibrate(0.9, embeddings=points(20, seed=1))
    searcher.save(model)
    path = model / "search" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["digest"]
    meta["reject"] = {**meta["reject"], **change} if isinstance(change, dict) else change
    # By somebody who can write a digest.
    path.write_text(json.dumps({**meta, "digest": fingerprint(meta)}))
    with pytest.raises(DataError, match="The search index is damaged") as error:
        Searcher.load(model)
    assert "\n" not in str(error.value)


def test_known_images_that_were_changed_or_lost_are_seen(model):
    searcher = Searcher(8)
    searcher.add(ids(50), embeddings=points(50))
    searcher.calibrate(0.9, embeddings=points(20, seed=1))
    searcher.save(model)
    path = model / "search" / "known.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="do not fit together"):
        Searcher.load(model)
    path.unlink()
    with pytest.raises(DataError, match="The search index is damaged"):
        Searcher.load(model)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_classes_left_out_are_those_of_an_index_without_them(distance):
    centers = 3 * points(4, seed=9)
    x, q = (centers[np.arange(n) % 4] + points(n, seed=n) for n in (120, 60))
    names = np.array(["a", "b", "c", "d"])
    own, asked = names[np.arange(120) % 4], names[np.arange(60) % 4]
    searcher = Searcher(8, distance=distance)
    searcher.add(ids(120), embeddings=x, labels=own)
    searcher.add(["unlabeled"], embeddings=centers[:1])
    of, distances = searcher.nearest_of_each_label(q)
    assert of == names.tolist()
    found = left_out_report(distances, asked, of, share=0.9)
    for name in names:
        rest = NearestNeighbors(n_neighbors=1, metric=distance).fit(x[own != name])
        scores = rest.kneighbors(q)[0][:, 0]
        expected = roc_auc_score(asked == name, scores)
        report = found["classes"][name]
        assert report["auroc"] == pytest.approx(expected, abs=1e-3)
        limit = np.sort(scores[asked != name])[41]  # ceil(46 * 0.9)
        accepted = np.mean(scores[asked == name] <= limit)
        assert report["unknown_accepted"] == pytest.approx(accepted, abs=0.07)
    aurocs = [report["auroc"] for report in found["classes"].values()]
    assert found["auroc"] == pytest.approx(np.mean(aurocs))


def test_what_cannot_be_left_out_is_none():
    one = left_out_report(np.ones((3, 1)), np.array(["a"] * 3), ["a"], share=0.9)
    assert one["classes"] == {} and np.isnan(one["auroc"])
    few = left_out_report(np.ones((4, 2)), np.array(["a", "b", "c", "a"]), ["a", "b"], share=0.95)
    assert few["classes"]["a"]["auroc"] == 0.5 and np.isnan(few["unknown_accepted"])
    assert few["classes"]["a"]["known"] == 1  # c is no class of the index
