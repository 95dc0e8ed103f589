import dataclasses
import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from references_neighbors import random_graph, random_split

from tfgraphreg import storage
from tfgraphreg.compat import nsl, tf
from tfgraphreg.data.dataset import Split
from tfgraphreg.errors import ConfigError, DataError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.tsv import write_tsv
from tfgraphreg.neighbors import packing
from tfgraphreg.neighbors.packing import pack_neighbors, read_packed
from tfgraphreg.neighbors.records import example_records

PACKERS = ("nsl", "stream")


def read(packed):
    raw = tf.data.TFRecordDataset(list(packed.files)).as_numpy_iterator()
    return [tf.train.Example.FromString(record) for record in raw]


def values(example):
    """Features as plain lists."""
    plain = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        plain[name] = list(getattr(feature, kind).value)
    return plain


def hand_made():
    images = np.arange(4 * 2 * 1 * 1, dtype=np.uint8).reshape(4, 2, 1, 1)
    split = Split(images, np.array([3, -1, 0, 1]), np.array(["a", "b10", "b9", "c"]))
    # a: a tie between b10 and b9 (larger string first), and a lighter one; b10: one neighbor;
    # b9: none; c: one-way back to a.
    sources, targets = [0, 0, 0, 1, 3], [1, 2, 3, 0, 0]
    return split, SimilarityGraph.from_edges(sources, targets, [0.5, 0.5, 0.25, 1.0, 0.75], 4)


@pytest.mark.parametrize("packer", PACKERS)
def test_the_definition_on_a_graph_made_by_hand(tmp_path, packer):
    split, graph = hand_made()
    packed = pack_neighbors(split, graph, max_neighbors=2, folder=tmp_path, key={}, packer=packer)
    found = [values(example) for example in read(packed)]
    assert found[0] == {
        "id": [b"a"],
        "image": [b"\0\1"],
        "label": [3],
        "NL_num_nbrs": [2],
        "NL_nbr_0_id": [b"b9"],
        "NL_nbr_0_image": [b"\4\5"],
        "NL_nbr_0_label": [0],
        "NL_nbr_0_weight": [0.5],
        "NL_nbr_1_id": [b"b10"],
        "NL_nbr_1_image": [b"\2\3"],
        "NL_nbr_1_label": [-1],
        "NL_nbr_1_weight": [0.5],
    }
    assert found[1]["NL_num_nbrs"] == [1] and found[1]["NL_nbr_0_id"] == [b"a"]
    assert "NL_nbr_1_id" not in found[1]
    assert found[2] == {"id": [b"b9"], "image": [b"\4\5"], "label": [0], "NL_num_nbrs": [0]}
    assert found[3]["NL_nbr_0_id"] == [b"a"] and found[3]["NL_nbr_0_weight"] == [0.75]
    assert packed.num_examples == 4 and packed.image_shape == (2, 1, 1) and not packed.multilabel


def packed_by_nsl(split, graph, k, folder, *, undirected=False):
    examples, edges, out = (str(folder / n) for n in ("examples", "edges.tsv", "out"))
    with tf.io.TFRecordWriter(examples) as writer:
        for name, image, label in zip(split.ids, split.images, split.labels):
            feature = {
                "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
                "label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=np.atleast_1d(label).astype(int))
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    write_tsv(graph, list(split.ids), edges)
    nsl.tools.pack_nbrs(examples, "", edges, out, add_undirected_edges=undirected, max_nbrs=k)
    raw = tf.data.TFRecordDataset([out]).as_numpy_iterator()
    return [tf.train.Example.FromString(record) for record in raw]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("multilabel", [False, True])
def test_equals_pack_nbrs_on_a_random_graph(tmp_path, packer, multilabel):
    split, graph = random_split(multilabel=multilabel), random_graph()
    packed = pack_neighbors(
        split, graph, max_neighbors=3, folder=tmp_path / "p", key={}, packer=packer
    )
    assert read(packed) == packed_by_nsl(split, graph, 3, tmp_path)
    assert packed.label_width == (4 if multilabel else 0)


def test_undirected_edges_are_those_of_the_symmetrized_graph(tmp_path):
    split, graph = random_split(), random_graph()
    packed = pack_neighbors(
        split,
        graph.symmetrized(),
        max_neighbors=4,
        folder=tmp_path / "p",
        key={},
        packer="stream",
    )
    assert read(packed) == packed_by_nsl(split, graph, 4, tmp_path, undirected=True)


def test_plain_examples_are_those_of_tensorflow():
    split, _ = hand_made()
    first = tf.train.Example.FromString(next(example_records(split)))
    assert values(first) == {"id": [b"a"], "image": [b"\0\1"], "label": [3]}
    assert first.SerializeToString(deterministic=True) is not None


class Lazy:
    """Images that say how many rows were asked for at once."""

    def __init__(self, images):
        self.images, self.shape, self.dtype = images, images.shape, images.dtype
        self.most = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, indices):
        self.most = max(self.most, len(indices))
        return self.images[indices]


def test_streams_images_in_blocks_and_cuts_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "SHARD_BYTES", 4000)
    monkeypatch.setattr("tfgraphreg.neighbors.records._BLOCK", 10)
    whole, graph = random_split(), random_graph()
    lazy = Lazy(whole.images)
    split = dataclasses.replace(whole, images=lazy)
    calls = []
    packed = pack_neighbors(
        split,
        graph,
        max_neighbors=3,
        folder=tmp_path / "p",
        key={},
        packer="stream",
        progress=lambda *a: calls.append(a),
    )
    assert lazy.most <= 30
    assert calls[0] == (0, 101) and calls[-1] == (101, 101)
    assert len(packed.files) > 3
    names = [os.path.basename(f) for f in packed.files]
    assert names == [f"packed-{i:05d}-of-{len(names):05d}.tfrecord" for i in range(len(names))]
    assert max(os.path.getsize(f) for f in packed.files) < 5000
    assert read(packed) == packed_by_nsl(whole, graph, 3, tmp_path)


def test_images_in_a_mapped_file_are_packed_without_keeping_its_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("tfgraphreg.neighbors.records._BLOCK", 8)
    whole, graph = random_split(shape=(64, 64, 1)), random_graph()
    np.save(tmp_path / "images.npy", whole.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    split = dataclasses.replace(whole, images=mapped)
    packed = pack_neighbors(
        split, graph, max_neighbors=3, folder=tmp_path / "p", key={}, packer="stream"
    )
    assert read(packed) == packed_by_nsl(whole, graph, 3, tmp_path)


def small(tmp_path, *, key=None, split=None, graph=None, **kwargs):
    own_split, own_graph = hand_made()
    kwargs = {"max_neighbors": 2, "packer": "stream", **kwargs}
    return pack_neighbors(
        split or own_split, graph or own_graph, folder=tmp_path / "c", key=key or {}, **kwargs
    )


def test_found_again_only_when_everything_matches(tmp_path):
    first = small(tmp_path)
    written = os.stat(first.files[0]).st_mtime_ns, os.stat(first.files[0]).st_ino
    assert small(tmp_path) == first
    assert (os.stat(first.files[0]).st_mtime_ns, os.stat(first.files[0]).st_ino) == written
    split, graph = hand_made()
    other_labels = dataclasses.replace(split, labels=np.array([0, 0, 0, 0]))
    other_ids = dataclasses.replace(split, ids=np.array(["a", "b", "c", "d"]))
    other_weights = dataclasses.replace(graph, weights=graph.weights * 0.5)
    others = [
        small(tmp_path, key={"seed": 1}),
        small(tmp_path, max_neighbors=1),
        small(tmp_path, packer="nsl"),
        small(tmp_path, split=other_labels),
        small(tmp_path, split=other_ids),
        small(tmp_path, graph=other_weights),
    ]
    assert len({p.files for p in [first, *others]}) == 7


def truncate(folder):
    with open(next(folder.glob("*.tfrecord")), "r+b") as file:
        file.truncate(20)


def alter(folder):
    path = next(folder.glob("*.tfrecord"))
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def garble_manifest(folder):
    (folder / "manifest.json").write_text("[1, 2")


def remove_records(folder):
    next(folder.glob("*.tfrecord")).unlink()


@pytest.mark.parametrize(
    "damage", [truncate, alter, remove_manifest, garble_manifest, remove_records]
)
def test_damaged_results_are_made_again_with_a_word(tmp_path, caplog, damage):
    first = small(tmp_path)
    content = pathlib.Path(first.files[0]).read_bytes()
    folder = pathlib.Path(first.files[0]).parent
    damage(folder)
    with caplog.at_level("WARNING"):
        assert read_packed(folder) is None
    caplog.clear()
    with caplog.at_level("WARNING"):
        second = small(tmp_path)
    assert re.search("cannot be used .* made again", caplog.text)
    assert second == first and pathlib.Path(second.files[0]).read_bytes() == content
    assert not list((tmp_path / "c").glob(".*.part")) + list((tmp_path / "c").glob(".*.old.*"))


def test_what_the_dead_left_is_removed_and_what_the_living_write_is_not(tmp_path):
    dead = tmp_path / "c" / ".dead.abcd1234.part"
    dead.mkdir(parents=True)
    with storage.atomic_folder(tmp_path / "c" / "living") as living:
        small(tmp_path)
        assert not dead.exists() and living.exists()


def test_killed_in_the_middle(tmp_path):
    code = """
        import sys, pathlib, time
        sys.path.insert(0, sys.argv[3])
        from references_neighbors import random_graph, random_split
        from tfgraphreg.neighbors import packing, records
        real = records.packed_records
        def slow(*args):
            for i, record in enumerate(real(*args)):
                if i == 50:
                    print("half", flush=True)
                    time.sleep(60)
                yield record
        if sys.argv[2] == "slow":
            packing.records.packed_records = slow
        packed = packing.pack_neighbors(random_split(), random_graph(), max_neighbors=3,
                              folder=sys.argv[1], key={}, packer="stream")
        print(packed.files[0])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "c")]
    here = str(pathlib.Path(__file__).parent)
    victim = subprocess.Popen([*command, "slow", here], stdout=subprocess.PIPE, text=True)
    assert victim.stdout.readline() == "half\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert len(list((tmp_path / "c").glob(".*.part"))) == 1
    split, graph = random_split(), random_graph()
    packed = pack_neighbors(
        split, graph, max_neighbors=3, folder=tmp_path / "c", key={}, packer="stream"
    )
    assert read(packed) == packed_by_nsl(split, graph, 3, tmp_path)
    assert not list((tmp_path / "c").glob(".*.part"))


def test_a_second_process_waits_for_the_first(tmp_path):
    name = pathlib.Path(small(tmp_path).files[0]).parent.name
    code = """
        import sys, pathlib
        from tfgraphreg.neighbors import packing
        print("started", flush=True)
        with packing._lock(pathlib.Path(sys.argv[1]), sys.argv[2]):
            print("held", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "c"), name]
    with packing._lock(tmp_path / "c", name):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "started\n"
        time.sleep(0.2)
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == "held\n"


def test_a_full_disk():
    with pytest.raises(OSError) as caught, packing.record_writer(pathlib.Path("/dev/full")) as out:
        out.write(b"x" * 10_000_000)
    assert caught.value.errno == errno.ENOSPC


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    real = packing.record_writer
    monkeypatch.setattr(packing, "record_writer", lambda path: real(pathlib.Path("/dev/full")))
    split, graph = random_split(n=101, shape=(64, 64, 3)), random_graph()
    with pytest.raises(DataError, match="The disk is full while writing"):
        pack_neighbors(
            split, graph, max_neighbors=3, folder=tmp_path / "c", key={}, packer="stream"
        )
    assert [p.name for p in (tmp_path / "c").iterdir() if p.is_dir()] == []


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"`max_neighbors` must be at least 1 .*=0"):
        small(tmp_path, max_neighbors=0)
    with pytest.raises(ConfigError, match=r"Received: 'zip'. Use nsl or stream."):
        small(tmp_path, packer="zip")
    with pytest.raises(GraphError, match="Received: 101 nodes, 4 images"):
        small(tmp_path, graph=random_graph())
    split, _ = hand_made()
    tab = dataclasses.replace(split, ids=np.array(["a", "b\tc", "d", "e"]))
    with pytest.raises(GraphError, match="tab"):
        small(tmp_path, split=tab, packer="nsl")
    assert [p.name for p in (tmp_path / "c").iterdir() if p.is_dir()] == []
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        pack_neighbors(*hand_made(), max_neighbors=1, folder=tmp_path / "file", key={})
