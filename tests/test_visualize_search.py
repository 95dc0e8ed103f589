import json
import threading
import time

import numpy as np
import pytest

from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.search.saved import saved_ids
from tfgraphreg.visualize.search import Searcher, model_fingerprint

faiss = pytest.importorskip("faiss")


def _points(n, width=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def _model(folder, content=b"graph"):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(content)
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    return folder


def _ids(n, prefix="item"):
    return [f"{prefix} {i}" for i in range(n)]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_exact_search_equals_the_registered_distance(distance):
    x, q = _points(50), _points(4, seed=1)
    searcher = Searcher(8, distance=distance)
    searcher.add(_ids(50), embeddings=x)
    found = searcher.search(q, k=5)
    for row in range(4):
        values = DISTANCES.get(distance).array(np.broadcast_to(q[row], x.shape), x)
        order = np.argsort(values)[:5]
        assert found.ids[row].tolist() == [f"item {i}" for i in order]
        np.testing.assert_allclose(found.distances[row], values[order], atol=1e-5)


def test_saved_and_loaded_it_answers_the_same_and_grows(tmp_path):
    model = _model(tmp_path / "model")
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 1), np.uint8)
    first, second = Searcher(8), Searcher(8)
    first.add(_ids(20), embeddings=_points(30)[:20], images=images[:20])
    first.save(model)
    loaded = Searcher.load(model)
    loaded.add(_ids(10, "late"), embeddings=_points(30)[20:], images=images[20:])
    second.add(_ids(20) + _ids(10, "late"), embeddings=_points(30), images=images)
    a, b = loaded.search(_points(3, seed=2)), second.search(_points(3, seed=2))
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.distances, b.distances)
    np.testing.assert_array_equal(loaded.thumbnails, images)
    assert sorted(p.name for p in (model / "search").iterdir()) == [
        "index.faiss",
        "items.npz",
        "meta.json",
    ]


def test_hnsw_keeps_its_measured_recall(tmp_path):
    searcher = Searcher(16, method="hnsw")
    searcher.add(_ids(3000), embeddings=_points(3000, 16))
    assert 0.8 < searcher.recall <= 1
    model = _model(tmp_path / "model")
    searcher.save(model)
    assert Searcher.load(model).recall == searcher.recall
    before = searcher.recall
    searcher._index._index.hnsw.efSearch = 10
    searcher.add(_ids(1000, "more"), embeddings=_points(1000, 16, seed=1))
    assert searcher.recall < before


def test_fewer_items_than_asked_for():
    searcher = Searcher(8)
    searcher.add(["only"], embeddings=_points(1))
    found = searcher.search(_points(2), k=3)
    assert found.ids.tolist() == [["only", "", ""]] * 2
    assert np.isinf(found.distances[:, 1:]).all() and (found.positions[:, 1:] == -1).all()
    assert Searcher(8).search(_points(1), k=2).ids.tolist() == [["", ""]]


def test_images_go_through_embed_and_become_thumbnails():
    images = np.random.default_rng(0).integers(0, 256, (5, 300, 200, 3), np.uint8)
    searcher = Searcher(3, embed=lambda x: x.mean(axis=(1, 2)))
    searcher.add(_ids(5), images=images)
    assert searcher.thumbnails.shape == (5, 75, 50, 3)
    np.testing.assert_allclose(searcher.thumbnails.mean(), images.mean(), atol=1)
    assert searcher.search(images=images, k=1).ids[:, 0].tolist() == _ids(5)


def test_a_reader_beside_a_writer_finds_one_index_whole(tmp_path):
    model = _model(tmp_path / "model")
    both = [Searcher(8), Searcher(8)]
    for count, searcher in zip((20, 30), both):
        searcher.add(_ids(count), embeddings=_points(count))
    both[0].save(model)
    ended, wrong = threading.Event(), []

    def write():
        try:
            for number in range(150):
                both[number % 2].save(model)
        except Exception as error:
            wrong.append(error)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    read = set()
    while not ended.is_set():
        read.add(len(Searcher.load(model)))
    writer.join()
    assert not wrong and read == {20, 30}


def test_an_index_of_another_model_is_refused(tmp_path):
    model = _model(tmp_path / "model")
    searcher = Searcher(8)
    searcher.add(_ids(3), embeddings=_points(3))
    searcher.save(model)
    (model / "variables" / "variables.index").write_bytes(b"other weights")
    with pytest.raises(DataError, match="does not belong to this model"):
        Searcher.load(model)
    assert model_fingerprint(model) != model_fingerprint(_model(tmp_path / "b", b"else"))


@pytest.mark.parametrize("name", ["index.faiss", "items.npz", "meta.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04junk"])
def test_a_damaged_index_is_named(tmp_path, name, content):
    model = _model(tmp_path / "model")
    searcher = Searcher(8)
    searcher.add(_ids(3), embeddings=_points(3))
    searcher.save(model)
    (model / "search" / name).write_bytes(content)
    with pytest.raises(DataError, match="The search index is damaged"):
        Searcher.load(model)


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    model = _model(tmp_path / "model")
    searcher = Searcher(8)
    searcher.add(_ids(3), embeddings=_points(3))
    searcher.save(model)
    path = model / "search" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "items": 4}))
    with pytest.raises(DataError, match="do not fit together"):
        Searcher.load(model)


def test_bad_input_is_named_and_adds_nothing(tmp_path):
    searcher = Searcher(8)
    searcher.add(["a"], embeddings=_points(1))
    with pytest.raises(DataError, match="'a' more than once"):
        searcher.add(["b", "a"], embeddings=_points(2))
    with pytest.raises(DataError, match="'c' more than once"):
        searcher.add(["c", "c"], embeddings=_points(2))
    with pytest.raises(DataError, match="width of the index"):
        searcher.add(["b"], embeddings=_points(1, 4))
    with pytest.raises(DataError, match="images of one size, or none"):
        searcher.add(["b"], embeddings=_points(1), images=np.zeros((1, 2, 2, 1), np.uint8))
    with pytest.raises(ConfigError, match="needs `embeddings`"):
        searcher.add(["b"], images=np.zeros((1, 2, 2, 1), np.uint8))
    assert len(searcher) == 1 and len(searcher._index) == 1
    with pytest.raises(ConfigError, match="`method` must be one of exact, ivf, hnsw"):
        Searcher(8, method="lsh")
    with pytest.raises(DataError, match="there is none"):
        searcher.save(tmp_path)
    with pytest.raises(DataError, match="no search index beside this model"):
        Searcher.load(_model(tmp_path / "model"))


@pytest.mark.parametrize("method", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_embeddings_come_back_from_a_saved_index(tmp_path, method, distance):
    model, x = _model(tmp_path / "model"), 7 * _points(6)
    x[4] = 0
    searcher = Searcher(8, method=method, distance=distance)
    searcher.add(_ids(4), embeddings=x[:4])
    searcher.save(model)
    loaded = Searcher.load(model)
    loaded.add(_ids(2, "late"), embeddings=x[4:])
    np.testing.assert_allclose(loaded.embeddings([5, 4, 0]), x[[5, 4, 0]], rtol=1e-5)
    assert saved_ids(model) == _ids(4)


def test_an_index_without_lengths_knows_no_embeddings_by_cosine(tmp_path):
    model = _model(tmp_path / "model")
    searcher = Searcher(8)
    searcher.add(_ids(3), embeddings=_points(3))
    searcher.save(model)
    with np.load(model / "search" / "items.npz") as items:
        kept = {name: items[name] for name in items if name != "lengths"}
    np.savez(model / "search" / "items.npz", **kept)
    # Such an index had no digests either.
    path = model / "search" / "meta.json"
    meta = {n: v for n, v in json.loads(path.read_text()).items() if "digest" not in n}
    path.write_text(json.dumps({**meta, "format": 1}))
    loaded = Searcher.load(model)
    loaded.add(["new"], embeddings=_points(1, seed=3))
    assert loaded.embeddings([0]) is None and len(loaded) == 4


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_inverted_lists_find_what_they_say(tmp_path, distance):
    x = _points(3000, 16) + 4 * _points(20, 16, seed=1)[np.arange(3000) % 20]
    exact, lists = (Searcher(16, method=name, distance=distance) for name in ("exact", "ivf"))
    for searcher in (exact, lists):
        searcher.add(_ids(2500), embeddings=x[:2500])
        searcher.add(_ids(500, "late"), embeddings=x[2500:])
    model = _model(tmp_path / "model")
    lists.save(model)
    loaded = Searcher.load(model)
    truth, mine, again = (s.search(x[::10], k=10) for s in (exact, lists, loaded))
    shares = [len(np.intersect1d(a, b)) / 10 for a, b in zip(truth.ids, mine.ids)]
    assert np.mean(shares) > 0.97 and lists.recall == pytest.approx(np.mean(shares), abs=0.03)
    np.testing.assert_array_equal(mine.ids, again.ids)
    np.testing.assert_allclose(again.distances, mine.distances)


def test_any_flipped_byte_of_an_index_is_seen(tmp_path):
    model, rng = _model(tmp_path / "model"), np.random.default_rng(0)
    searcher = Searcher(8)
    images = rng.integers(0, 256, (40, 6, 6, 1), np.uint8)
    searcher.add(_ids(40), embeddings=_points(40), images=images, labels=_ids(40, "class"))
    searcher.save(model)
    for _ in range(60):
        path = model / "search" / rng.choice(["index.faiss", "items.npz", "meta.json"])
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        before, _ = path.read_bytes(), path.write_bytes(content)
        with pytest.raises(DataError) as error:
            Searcher.load(model)
        assert "\n" not in str(error.value)
        path.write_bytes(before)
    assert Searcher.load(model).search(_points(1), k=1).ids[0, 0] == "item 0"
    # Files of another index of the same model.
    other = Searcher(8)
    other.add(_ids(40), embeddings=_points(40, seed=1))
    kept = (model / "search" / "meta.json").read_bytes()
    other.save(model)
    (model / "search" / "meta.json").write_bytes(kept)
    with pytest.raises(DataError, match="do not fit together"):
        Searcher.load(model)


def test_a_repeated_id_among_many_is_found_at_once():
    ids = [*_ids(20_000), "item 19999"]
    searcher, start = Searcher(4), time.monotonic()
    with pytest.raises(DataError, match="'item 19999' more than once"):
        searcher.add(ids, embeddings=np.ones((20_001, 4), np.float32))
    # A hundredth of this on an idle core; the quadratic way took 39 seconds.
    assert time.monotonic() - start < 5


def test_more_results_than_can_be_are_refused():
    searcher = Searcher(8)
    searcher.add(_ids(3), embeddings=_points(3))
    assert searcher.search(_points(1), k=1000).ids.shape == (1, 1000)
    for k in (1001, 10**10):
        with pytest.raises(ConfigError, match=rf"Received: k={k}\. Use at most 1000\."):
            searcher.search(_points(1), k=k)
    assert repr(searcher) == "Searcher(3 items, exact, cosine, dim=8)"
