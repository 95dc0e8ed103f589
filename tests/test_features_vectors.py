"""Vectors of the user's own: every form of file gives the same rows, and nothing else passes."""

import io
import re
import zipfile

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.features.vectors import read_vectors
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.recipes.features import check_features
from tfgraphreg.recipes.graphs import file_mark
from tfgraphreg.recipes.material import prepare

IDS = ["a", "b", "c"]
X = np.arange(12, dtype=np.float32).reshape(3, 4)


def write_parquet(path, vectors, ids=None, fixed=True):
    width = vectors.shape[1] if fixed else -1
    columns = {"vector": pyarrow.array(vectors.tolist(), pyarrow.list_(pyarrow.float32(), width))}
    if ids is not None:
        columns["id"] = pyarrow.array(ids)
    parquet.write_table(pyarrow.table(columns), path)


def test_every_form_gives_the_rows_in_the_order_of_the_ids(tmp_path):
    np.save(tmp_path / "v.npy", X.astype(np.float64))
    np.savez(tmp_path / "v.npz", vectors=X)
    np.savez_compressed(tmp_path / "named.npz", vectors=X[::-1].astype("f2"), ids=IDS[::-1])
    write_parquet(tmp_path / "v.parquet", X)
    write_parquet(tmp_path / "named.parquet", X[[1, 0, 2, 2]], ["b", "a", "c", "test"], False)
    for name in ("v.npy", "v.npz", "named.npz", "v.parquet", "named.parquet"):
        rows = read_vectors(tmp_path / name, np.array(IDS), others=["test", "more"])
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, X, err_msg=name)


@pytest.mark.parametrize(
    "arrays,message",
    [
        ({"vectors": X, "ids": ["a", "b", "b"]}, "two vectors for one image. Received: 'b'."),
        ({"vectors": X, "ids": ["a", "b", "x"]}, "lacks the vectors of 1 of 3 training images"),
        ({"vectors": X[:2]}, "Received: 2 vectors, 3 training images"),
        ({"vectors": X, "ids": ["a", "b"]}, "one string for each vector"),
        ({"vectors": X, "ids": [0, 1, 2]}, "one string for each vector"),
        ({"vectors": X[:, 0]}, "of the shape [N, D]"),
        ({"vectors": X[:, :0]}, "of the shape [N, D]"),
        ({"vectors": X > 3}, "must be numbers"),
        ({"vectors": X.astype(str)}, "must be numbers"),
        ({"vectors": X.astype(object)}, "cannot be read (Object arrays cannot be loaded"),
        ({"vectors": np.where(X == 5, np.nan, X)}, "for 1 images, the first is 'b'"),
        ({"vectors": X.astype(float) * 1e300}, "NaN or infinity for 3 images"),
        ({"features": X}, "it has no array `vectors` but features"),
        (
            {"vectors": np.ones((4, 2)), "ids": [*IDS, "tset"]},
            "1 images that are not in this dataset. Received: 'tset'. Did you mean test?",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_vectors(tmp_path / "v.npz", IDS, others=["test"])
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_damaged_and_hostile_files_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", X)
    np.savez(tmp_path / "v.npz", vectors=X)
    write_parquet(tmp_path / "v.parquet", X)
    for name in ("v.npy", "v.npz", "v.parquet"):
        content = (tmp_path / name).read_bytes()
        for broken in (b"", content[: len(content) // 2], b"\x80\x04junk", content[20:]):
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(DataError, match="cannot be read"):
                read_vectors(tmp_path / name, IDS)
    # A header that claims a petabyte, and an archive that does.
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 256)}
    np.lib.format.write_array_header_1_0(header, shape)
    (tmp_path / "v.npy").write_bytes(header.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(tmp_path / "v.npy", IDS)
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("vectors.npy", header.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(tmp_path / "v.npz", IDS)
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("vectors.npy", b"no array")
    with pytest.raises(DataError, match="its `vectors` is no array"):
        read_vectors(tmp_path / "v.npz", IDS)


def test_parquet_that_holds_no_vectors(tmp_path):
    for columns, message in (
        ({"vector": [1.0, 2.0, 3.0]}, "list of numbers in every row"),
        ({"vector": [[1.0], None, [2.0]]}, "list of numbers in every row"),
        ({"vector": [[1.0], [2.0, 3.0, 4.0], []]}, "one length"),
        ({"vector": [[1.0], [2.0, 3.0], [4.0]]}, "one length"),
        ({"vector": [[1.0], [None], [2.0]]}, "one length"),
        ({"embedding": [[1.0], [2.0], [3.0]]}, "no column `vector` but embedding"),
        ({"vector": [["a"], ["b"], ["c"]]}, "must be numbers"),
    ):
        parquet.write_table(pyarrow.table(columns), tmp_path / "v.parquet")
        with pytest.raises(DataError, match=message):
            read_vectors(tmp_path / "v.parquet", IDS)


def test_a_name_that_cannot_be_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(DataError, match=r"must end with one of \.npy, \.npz, \.parquet"):
        check_features("file:vectors.csv")
    with pytest.raises(DataError, match=r"does not exist\. Received: none\.npy"):
        check_features("file:none.npy")
    with pytest.raises(ConfigError, match=r"`graph_features=file:` must name a file"):
        check_features("file:")


def test_a_graph_of_vectors_and_of_others_under_the_same_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "v.npz"
    config = TrainConfig(dataset="digits", limit=100, graph_features=f"file:{path}")
    rng = np.random.default_rng(0)
    ids = [f"digits/all/{i:05d}" for i in range(1797)]
    marks = []
    for _ in range(2):
        vectors = rng.normal(size=(1797, 5)).astype(np.float32)
        np.savez(path, vectors=vectors, ids=ids)
        material = prepare(config, lambda *_: None)
        rows = [ids.index(name) for name in material.dataset.train.ids]
        expected = knn_graph(vectors[rows], k=10)
        np.testing.assert_array_equal(material.graph.indices, expected.indices)
        marks.append(file_mark(config))
    assert marks[0] != marks[1] and None not in marks
