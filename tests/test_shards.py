"""Work on shards by an engine, against the same work in memory."""

import os
import pathlib
import signal
import sys

import numpy as np
import pytest

from tfgraphreg import cli, compat
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.dataset import Split
from tfgraphreg.errors import ConfigError, DataError, GraphError, MissingExtraError, RunError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.npz import read_npz
from tfgraphreg.neighbors.packing import pack_neighbors
from tfgraphreg.progress import silent
from tfgraphreg.recipes.build_graph import build_graph
from tfgraphreg.recipes.versions import packing_key
from tfgraphreg.shards import dask_engine as engines
from tfgraphreg.shards import graph as graphs
from tfgraphreg.shards import neighbors as search
from tfgraphreg.shards.engine import InProcess
from tfgraphreg.shards.graph import sharded_knn_graph
from tfgraphreg.shards.packing import packing_on
from tfgraphreg.shards.store import RowShards, shard_starts
from tfgraphreg.storage import cache_folder


@pytest.fixture
def small_parts(monkeypatch):
    """Several chunks and ranges of queries where there are few rows."""
    monkeypatch.setattr(graphs, "chunk_rows", lambda width: 300)
    monkeypatch.setattr(graphs, "QUERIES", 256)


@pytest.fixture(scope="module")
def two_workers():
    with engines.dask_engine(None, workers=2, memory="2GB") as engine:
        yield engine


def stored(rows, folder, size=170):
    """The rows in shards of a size that divides nothing else."""
    starts = (*range(0, len(rows), size), len(rows))
    kept = RowShards(pathlib.Path(folder), "rows", starts, rows.shape[1:], str(rows.dtype))
    for shard in range(kept.count):
        kept.write(shard, rows[slice(*kept.bounds(shard))])
    return kept


def vectors(n=1000, width=8, seed=0):
    """Rows with a duplicate and positive numbers, so that every distance takes them."""
    rows = np.random.default_rng(seed).gamma(2.0, size=(n, width)).astype(np.float32)
    rows[n - 1] = rows[3]
    return rows


def test_rows_are_read_by_number_from_every_shard(tmp_path):
    rows = vectors(500)
    kept = stored(rows, tmp_path)
    order = np.random.default_rng(1).permutation(500)[:77]
    np.testing.assert_array_equal(kept[order], rows[order])
    np.testing.assert_array_equal(kept[160:345], rows[160:345])
    np.testing.assert_array_equal(kept.range(495, 600), rows[495:])
    np.testing.assert_array_equal(kept[-1 + 500], rows[-1])
    assert kept.shape == (500, 8) and kept[[]].shape == (0, 8)
    with pytest.raises(DataError, match="do not fit"):
        kept.write(0, rows[:3])
    (tmp_path / "rows-00001.npy").unlink()
    with pytest.raises(DataError, match="same path"):
        RowShards(tmp_path / ".", "rows", kept.starts, (8,), "float32")[[200]]


def test_shards_are_bounded_by_bytes_and_rows():
    assert shard_starts(20_000, 4) == (0, 8192, 16384, 20_000)
    assert shard_starts(3, 1 << 30) == (0, 1, 2, 3)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "distance", ["cosine", "euclidean", "manhattan", "histogram_intersection", "kl"]
)
@pytest.mark.parametrize("weighting", ["cosine", "gaussian"])
def test_exact_edges_are_those_of_memory(tmp_path, distance, weighting):
    rows = vectors()
    settings = {"k": 6, "distance": distance, "weighting": weighting, "method": "exact"}
    expected = knn_graph(rows, **settings)
    found = sharded_knn_graph(InProcess(), stored(rows, tmp_path), scratch=tmp_path, **settings)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)
    assert found.about == expected.about


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_lists_find_the_share_of_true_neighbors_that_is_said(tmp_path, distance):
    rows = vectors(1500, 8)
    kept = stored(rows, tmp_path, 400)
    settings = {"k": 5, "distance": distance, "scratch": tmp_path}
    found = sharded_knn_graph(InProcess(), kept, method="ivf", **settings)
    true = knn_graph(rows, k=5, distance=distance, method="exact")
    share = np.mean(
        [
            len(np.intersect1d(a, b)) / 5
            for a, b in zip(found.indices.reshape(-1, 5), true.indices.reshape(-1, 5))
        ]
    )
    assert found.about["method"] == "ivf" and share > 0.98
    assert found.about["recall"] == pytest.approx(share, abs=0.005)


def test_lists_that_hold_too_few_are_searched_exactly(tmp_path):
    rows = vectors(400)
    kept = stored(rows, tmp_path)
    lists = search.Lists(tmp_path, "cosine", rows.mean(0), search.spans(400, 150))
    lists.train(rows, 64, seed=0)
    for bounds in lists.chunks:
        lists.fill(kept, *bounds)
    found = lists.search(kept, 0, 400, 30, 1)
    assert (found.indices >= 0).all()
    assert not (found.indices == np.arange(400)[:, None]).any()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"k": 1000}, ConfigError, "smaller than"),
        ({"k": 3, "method": "hnsw"}, ConfigError, "auto, exact or ivf"),
        ({"k": 3, "distance": "mahalanobis"}, GraphError, "part by part"),
        ({"k": 3, "distance": "js"}, GraphError, "part by part"),
        ({"k": 3, "distance": "manhattan", "method": "ivf"}, GraphError, "no inverted lists"),
    ],
)
def test_what_cannot_be_searched_in_parts_is_refused(tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        kept = stored(vectors(), tmp_path)
        sharded_knn_graph(InProcess(), kept, scratch=tmp_path, **settings)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_two_workers_find_the_edges_of_one_process(tmp_path, two_workers, method):
    kept = stored(vectors(2000), tmp_path)
    settings = {"k": 5, "method": method, "scratch": tmp_path}
    one = sharded_knn_graph(InProcess(), kept, **settings)
    two = sharded_knn_graph(two_workers, kept, **settings)
    assert one.about == two.about
    for name in ("indptr", "indices", "weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(tmp_path, workers):
    kept = stored(vectors(30_000, 16), tmp_path, 4000)
    settings = {"k": 5, "method": "ivf", "scratch": tmp_path}
    one = sharded_knn_graph(InProcess(), kept, **settings)
    with engines.dask_engine(None, workers=workers, memory="2GB") as engine:
        other = sharded_knn_graph(engine, kept, **settings)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.about == other.about


def square(number, folder, deaths):
    """The square, and who computed it; its worker is killed at 3, the first times."""
    died = len(list(folder.glob("died-*")))
    if number == 3 and died < deaths:
        (folder / f"died-{died}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, os.getpid()


def refuse(number):
    raise DataError("The part is wrong.", received=str(number), cure="Mend it.")


def test_a_killed_worker_changes_nothing(tmp_path, two_workers):
    told = []
    found = two_workers.map(
        square,
        [(n, tmp_path, 1) for n in range(40)],
        "squares",
        lambda what, done, total: told.append((what, done, total)),
    )
    assert [value for value, _ in found] == [n**2 for n in range(40)]
    assert (tmp_path / "died-0").exists()
    assert {pid for _, pid in found}.isdisjoint({os.getpid()})
    assert told == [("squares", done, 40) for done in range(41)]


@pytest.mark.slow
def test_work_that_kills_every_worker_ends_in_a_sentence(tmp_path, two_workers):
    with pytest.raises(RunError, match=r"again and again.*--worker-memory"):
        two_workers.map(square, [(3, tmp_path, 99)], "squares", silent)


def test_an_error_of_a_part_is_the_error(two_workers):
    with pytest.raises(DataError, match=r"The part is wrong\. Received: 5\. Mend it\."):
        two_workers.map(refuse, [(5,)], "parts", silent)


def records(packed):
    from tfgraphreg.compat import tf

    return list(tf.data.TFRecordDataset(list(packed.files)).as_numpy_iterator())


@pytest.mark.parametrize("where", ["here", pytest.param("workers", marks=pytest.mark.slow)])
def test_engines_pack_the_records_of_the_stream_packer(tmp_path, monkeypatch, request, where):
    from tfgraphreg.shards import packing

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (700, 6, 6, 1), dtype=np.uint8)
    ids = np.array([f"item {n}" for n in range(700)])
    split = Split(images, draw.integers(0, 3, 700), ids)
    graph = knn_graph(images.reshape(700, -1), k=4)
    settings = {"max_neighbors": 3, "key": {"test": 1}, "packer": "stream"}
    expected = pack_neighbors(split, graph, folder=tmp_path / "one", **settings)
    engine = InProcess() if where == "here" else request.getfixturevalue("two_workers")
    kept = stored(images, tmp_path)
    monkeypatch.setattr(packing, "SHARD_BYTES", 300_000)
    found = pack_neighbors(
        split, graph, folder=tmp_path / "two", writer=packing_on(engine, kept), **settings
    )
    assert len(found.files) > 1 and records(found) == records(expected)
    # The same name, by which training finds it.
    assert os.path.basename(os.path.dirname(found.files[0])) == os.path.basename(
        os.path.dirname(expected.files[0])
    )


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("features", "where"), [("pixels", "here"), ("file:rows.npy", "here"), ("pca", "workers")]
)
def test_a_graph_by_an_engine_is_that_of_memory(features, where, request):
    engine = InProcess() if where == "here" else request.getfixturevalue("two_workers")
    rows = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    np.save("rows.npy", rows)
    config = TrainConfig(dataset="digits", limit=300, graph_features=features, symmetrize=True)
    build_graph(config, "one")
    build_graph(config, "two", engine=engine)
    one, two = read_npz("one/graph.npz")[0], read_npz("two/graph.npz")[0]
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-5)
    names = {path.name for path in pathlib.Path("two").iterdir()}
    assert names == {path.name for path in pathlib.Path("one").iterdir()}


class Failing(InProcess):
    """Ends in the middle."""

    def map(self, function, parts, what, progress):
        if what == "neighbors":
            raise RunError("The cluster was lost.")
        return super().map(function, parts, what, progress)


@pytest.mark.usefixtures("workplace")
def test_work_that_ends_in_the_middle_leaves_nothing():
    config = TrainConfig(dataset="digits", limit=300)
    with pytest.raises(RunError, match="lost"):
        build_graph(config, "out", engine=Failing())
    assert not list(pathlib.Path("out").iterdir())


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("engine", [None, InProcess()], ids=["memory", "engine"])
def test_too_many_neighbors_are_refused_by_their_setting(engine):
    config = TrainConfig(dataset="digits", limit=300, graph_neighbors=300)
    with pytest.raises(ConfigError, match="`graph_neighbors` must be smaller") as error:
        build_graph(config, "out", engine=engine)
    assert "graph_neighbors=299" in str(error.value)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--engine", "dsk"], "Did you mean dask?"),
        (["--workers", "2"], "only with `--engine dask`"),
        (["--pack", "2"], "only with `--engine dask`"),
        (["--engine", "dask", "--pack", "0"], "at least 1"),
        (["--engine", "dask", "--workers", "0"], "1 to 1024"),
        (["--engine", "dask", "--worker-memory", "lots"], "Try 2GB"),
        (["--engine", "dask", "--scheduler", "nowhere"], "tcp://HOST:PORT"),
        (["--engine", "dask", "--scheduler", "a:1", "--workers", "2"], "its own workers"),
        (["--engine", "dask", "--graph", "threshold"], "nearest neighbors"),
        (["--engine", "dask", "--graph-search", "hnsw"], "auto, exact or ivf"),
        (["--engine", "dask", "--graph-metric", "js"], "part by part"),
        (["--engine", "dask", "--scheduler", "127.0.0.1:9"], "No Dask scheduler answers"),
    ],
)
def test_flags_that_cannot_be_are_one_line(monkeypatch, capsys, flags, words):
    monkeypatch.setattr(engines, "_CONNECT", "1s")
    assert cli.main(["build-graph", "--dataset", "digits", "--out", "out", *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
    assert not pathlib.Path("out").exists()


def test_without_dask_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tfgraphreg\[scale\]"), engines.dask_engine(None):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_all_of_fashion_mnist_by_two_workers(tmp_path, two_workers, method):
    """The whole way: images, features, neighbors and records of 60,000 images."""
    config = TrainConfig(dataset="fashion_mnist", graph_search=method, graph_neighbors=10)
    squares = [(number, tmp_path, 0) for number in range(40)]
    processes = {process for _, process in two_workers.map(square, squares, "who", silent)}
    assert len(processes) == 2 and os.getpid() not in processes
    build_graph(config, tmp_path / "one")
    build_graph(config, tmp_path / "two", engine=two_workers, pack=1)
    one, two = (read_npz(tmp_path / name / "graph.npz")[0] for name in ("one", "two"))
    if method == "ivf":
        assert two.about["recall"] == pytest.approx(one.about["recall"], abs=0.002)
        return
    near, other = (graph.indices.reshape(-1, 10) for graph in (one, two))
    weights = [np.sort(graph.weights.reshape(-1, 10), axis=1) for graph in (one, two)]
    # Where the edges differ, neighbors are equally near but for rounding.
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert (np.sort(near, axis=1) == np.sort(other, axis=1)).mean() > 0.9999
    data = load_dataset("fashion_mnist")
    packed = {"max_neighbors": 1, "key": packing_key(data), "packer": "stream"}
    # The workers' are found in the cache, under the name by which training finds them.
    before = set(cache_folder().rglob("*.tfrecord"))
    theirs = pack_neighbors(data.train, two, folder=cache_folder() / "packed", **packed)
    assert before == set(cache_folder().rglob("*.tfrecord"))
    mine = pack_neighbors(data.train, two, folder=tmp_path / "packed", **packed)
    assert len(records(mine)) == len(data.train) and records(mine) == records(theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_a_worker_builds_from_more_data_than_its_memory_may_hold():
    from PIL import Image

    draw = np.random.default_rng(0)
    names = [f"photos/train/{'ab'[n % 2]}/{n:04d}.png" for n in range(3000)]
    for name in [*names, "photos/test/a/0.png", "photos/test/b/0.png"]:
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        low = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(low).resize((400, 400), Image.Resampling.NEAREST).save(name)
    config = TrainConfig(dataset="folder:photos", graph_features="color")
    with engines.dask_engine(None, workers=1, memory="1GB") as engine:
        build_graph(config, "out", engine=engine)
    graph, _ = read_npz("out/graph.npz")
    assert graph.num_nodes * 400 * 400 * 3 > 1.3 * 2**30
    assert (graph.degrees() == config.graph_neighbors).all()
