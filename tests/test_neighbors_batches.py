import dataclasses
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from references_neighbors import random_graph, random_split
from test_neighbors_packing import Lazy

from tfgraphreg.compat import tf
from tfgraphreg.errors import ConfigError, DataError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.neighbors import lookup
from tfgraphreg.neighbors.batches import (
    gathered_batches,
    indexed_batches,
    paired_batches,
    plain_batches,
)
from tfgraphreg.neighbors.order import epoch_draw, epoch_order, steps_per_epoch
from tfgraphreg.neighbors.packed import packed_batches
from tfgraphreg.neighbors.packing import pack_neighbors
from tfgraphreg.neighbors.sampling import sample_neighbors

N, B, K = 101, 16, 3
WINDOW = {"batch_size": B, "seed": 7, "epochs": 3}
STEPS = 7  # ceil(101 / 16)


@pytest.fixture(scope="module")
def split():
    return random_split(N)


@pytest.fixture(scope="module")
def graph():
    return random_graph(N)


@pytest.fixture(scope="module")
def packed(split, graph, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    return pack_neighbors(split, graph, max_neighbors=K, folder=folder, key={}, packer="stream")


@pytest.fixture(scope="module")
def ways(split, graph, packed):
    """Every way to make batches, as a function of the window of epochs."""
    top = {"max_neighbors": K}
    return {
        "plain": lambda **w: plain_batches(split, **w),
        "packed": lambda **w: packed_batches(packed, **w),
        "packed from disk": lambda **w: packed_batches(packed, memory_bytes=4000, **w),
        "gathered": lambda **w: gathered_batches(split, graph, **top, **w),
        "sampled": lambda **w: gathered_batches(split, graph, sample="weight", **top, **w),
        "indexed": lambda **w: indexed_batches(split, graph, **top, **w),
        "paired": lambda **w: paired_batches(split, graph, **w),
    }


WAYS = ["plain", "packed", "packed from disk", "gathered", "sampled", "indexed", "paired"]


def as_arrays(dataset):
    return [
        ({name: value.numpy() for name, value in features.items()}, labels.numpy())
        for features, labels in dataset
    ]


def assert_same(first, second):
    assert len(first) == len(second)
    for (features, labels), (others, other_labels) in zip(first, second):
        assert set(features) == set(others)
        for name in features:
            assert features[name].dtype == others[name].dtype
            np.testing.assert_array_equal(features[name], others[name], err_msg=name)
        np.testing.assert_array_equal(labels, other_labels)


def rows_of(split, image_rows):
    """Which images of the split these are; no two of them are alike."""
    known = {image.tobytes(): i for i, image in enumerate(split.images)}
    assert len(known) == len(split)
    return np.array([known[image.tobytes()] for image in image_rows])


@pytest.mark.parametrize("way", WAYS)
def test_every_epoch_shows_every_image_once_with_its_label(way, ways, split):
    batches = as_arrays(ways[way](**WINDOW))
    assert len(batches) == 3 * STEPS == 3 * steps_per_epoch(N, B)
    orders = []
    for epoch in range(3):
        part = batches[epoch * STEPS : (epoch + 1) * STEPS]
        assert [len(labels) for _, labels in part] == [16] * 6 + [5]
        assert part[0][0]["image"].dtype == np.uint8 and part[0][1].dtype == np.int64
        order = rows_of(split, np.concatenate([features["image"] for features, _ in part]))
        np.testing.assert_array_equal(np.sort(order), np.arange(N))
        labels = np.concatenate([labels for _, labels in part])
        np.testing.assert_array_equal(labels, split.labels[order])
        orders.append(tuple(order))
    assert len(set(orders)) == 3


@pytest.mark.parametrize("way", WAYS)
def test_taken_up_again_it_goes_on_as_if_it_had_not_stopped(way, ways):
    whole = as_arrays(ways[way](**WINDOW))
    rest = as_arrays(ways[way](**WINDOW, first_epoch=2))
    assert_same(whole[2 * STEPS :], rest)
    assert as_arrays(ways[way](**WINDOW, first_epoch=3)) == []
    other = as_arrays(ways[way](**{**WINDOW, "seed": 8, "epochs": 1}))
    assert any((a["image"] != b["image"]).any() for (a, _), (b, _) in zip(whole, other))


@pytest.mark.parametrize("seed", [0, 3])
def test_records_on_disk_are_shuffled_by_the_seed_that_is_given_alone(packed, seed):
    window = {**WINDOW, "seed": seed, "memory_bytes": 4000}
    before = as_arrays(packed_batches(packed, **window))
    for program_seed in (0, 5):
        tf.random.set_seed(program_seed)
        assert_same(as_arrays(packed_batches(packed, **window)), before)


def test_gathered_equals_packed_bit_for_bit_and_plain_sees_the_same_images(ways):
    made = {way: as_arrays(ways[way](**WINDOW)) for way in ("plain", "packed", "gathered")}
    assert_same(made["packed"], made["gathered"])
    bare = [({"image": f["image"]}, labels) for f, labels in made["packed"]]
    assert_same(made["plain"], bare)


def test_neighbors_are_the_heaviest_and_missing_ones_are_the_image_itself(ways, split, graph):
    near, weights = graph.top(K, split.ids)
    assert (near < 0).any() and (near >= 0).any()
    for way in ("packed", "packed from disk", "indexed"):
        for features, _ in as_arrays(ways[way](**WINDOW)):
            index = rows_of(split, features["image"])
            expected = np.where(near[index] < 0, index[:, None], near[index])
            if way == "indexed":
                np.testing.assert_array_equal(features["index"], index)
                np.testing.assert_array_equal(features["neighbor_index"], expected)
                np.testing.assert_array_equal(features["neighbor_weight"], weights[index])
                continue
            for i in range(K):
                found = rows_of(split, features[f"NL_nbr_{i}_image"])
                np.testing.assert_array_equal(found, expected[:, i])
                weight = features[f"NL_nbr_{i}_weight"]
                assert weight.shape == (len(index), 1) and weight.dtype == np.float32
                np.testing.assert_array_equal(weight[:, 0], weights[index, i])


def test_sampled_neighbors_change_from_epoch_to_epoch(ways, split, graph):
    batches = as_arrays(ways["sampled"](**WINDOW))
    seen = [{}, {}, {}]
    for step, (features, _) in enumerate(batches):
        index = rows_of(split, features["image"])
        found = np.stack([rows_of(split, features[f"NL_nbr_{i}_image"]) for i in range(K)], 1)
        weight = np.concatenate([features[f"NL_nbr_{i}_weight"] for i in range(K)], 1)
        for node, others, some in zip(index, found, weight):
            assert set(others[some > 0]) <= set(graph.neighbors(node)[0])
            assert (others[some == 0] == node).all()
            seen[step // STEPS][int(node)] = tuple(others)
    changed = np.mean([seen[0][i] != seen[1][i] for i in range(N)])
    assert changed > 0.5


@pytest.mark.parametrize("sample", ["uniform", "weight"])
def test_sampled_batches_name_their_images_and_hold_fewer(sample, split, graph):
    """The neighbors are those that are drawn for the epoch, whatever the order of images."""
    distinct = at_random = 0
    batches = gathered_batches(split, graph, max_neighbors=K, sample=sample, **WINDOW)
    for step, (features, _) in enumerate(as_arrays(batches)):
        index = features["index"]
        assert index.shape == (len(features["image"]),) and index.dtype == np.int64
        np.testing.assert_array_equal(index, rows_of(split, features["image"]))
        epoch, batch = divmod(step, STEPS)
        number = epoch_draw(WINDOW["seed"], epoch)
        near, weights = sample_neighbors(graph, K, draw=number, by_weight=sample == "weight")
        near = np.where(near < 0, np.arange(N)[:, None], near)
        for i in range(K):
            np.testing.assert_array_equal(features[f"NL_nbr_{i}_index"], near[index, i])
            found = rows_of(split, features[f"NL_nbr_{i}_image"])
            np.testing.assert_array_equal(found, near[index, i])
            np.testing.assert_array_equal(features[f"NL_nbr_{i}_weight"][:, 0], weights[index, i])
        others = epoch_order(N, WINDOW["seed"], epoch)[batch * B : (batch + 1) * B]
        distinct += len(np.unique(np.append(near[index], index)))
        at_random += len(np.unique(np.append(near[others], others)))
    assert distinct < 0.9 * at_random


def test_pairs_are_edges_side_by_side(ways, split, graph):
    edges = dict(zip(zip(graph.sources().tolist(), graph.indices.tolist()), graph.weights))
    drawn = [set(), set(), set()]
    for step, (features, _) in enumerate(as_arrays(ways["paired"](**WINDOW))):
        index = rows_of(split, features["image"]).tolist()
        weight = features["pair_weight"]
        assert weight.shape == (len(index),) and weight.dtype == np.float32
        for i in range(0, len(index) // 2 * 2, 2):
            assert weight[i] == weight[i + 1]
            if weight[i]:
                pair = (index[i], index[i + 1])
                assert weight[i] in (edges.get(pair), edges.get(pair[::-1]))
                drawn[step // STEPS].add(frozenset(pair))
        if len(index) % 2:
            assert weight[-1] == 0
    assert all(len(pairs) > 35 for pairs in drawn) and len(set(map(frozenset, drawn))) == 3


@pytest.mark.parametrize("multilabel", [False, True])
def test_every_batch_of_pairs_has_its_share_of_every_class(multilabel):
    n, classes = 960, 4
    graph = random_graph(n)
    split = random_split(n)
    split = dataclasses.replace(split, labels=_in_classes(n, classes, multilabel))
    even = _spread_of_shares(paired_batches(split, graph, **LONG), classes, step=2)
    at_random = _spread_of_shares(plain_batches(split, **LONG), classes, step=2)
    # Only the first rows of pairs are spread; one in five of those is unlabeled.
    assert even < 0.6 * at_random


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("multilabel", [False, True])
def test_every_batch_of_groups_has_its_share_of_every_class(multilabel, k):
    n, classes = 960, 4
    labels = _in_classes(n, classes, multilabel)
    number = _in_classes(n, classes, False)
    members = [np.flatnonzero(number == c) for c in range(-1, classes)]
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(n), 5)
    targets = np.concatenate([rng.choice(members[c + 1], 5, replace=False) for c in number])
    real = sources != targets
    ones = np.ones(real.sum(), np.float32)
    graph = SimilarityGraph.from_edges(sources[real], targets[real], ones, n)
    split = dataclasses.replace(random_split(n), labels=labels)
    batches = gathered_batches(split, graph, max_neighbors=k, sample="uniform", **LONG)
    even = _spread_of_shares(batches, classes)
    # Edges stay within classes here, so groups do, and in random order would be far less even.
    assert even < 0.9 * _spread_of_shares(plain_batches(split, **LONG), classes)


@pytest.mark.parametrize("mode", ["paired", "gathered"])
def test_no_part_of_an_epoch_holds_what_others_left_over(mode):
    """Images with many edges are grouped first; they must not come first."""
    n = 2000
    graph = random_graph(n)
    degree = np.bincount(graph.indices, minlength=n) + np.diff(graph.indptr)
    split = random_split(n)
    ways = {
        "paired": lambda **w: paired_batches(split, graph, **w),
        "gathered": lambda **w: gathered_batches(
            split, graph, max_neighbors=2, sample="uniform", **w
        ),
    }
    halves = []
    for epoch in range(4):
        batches = as_arrays(ways[mode](batch_size=100, seed=epoch, epochs=1))
        order = rows_of(split, np.concatenate([features["image"] for features, _ in batches]))
        halves.append(degree[order].reshape(2, -1).mean(1))
    early, late = np.mean(halves, axis=0)
    # The standard error of this difference is 0.05 in random order.
    assert abs(early - late) < 0.2


LONG = {"batch_size": 96, "seed": 0, "epochs": 4}


def _in_classes(n, classes, multilabel):
    number = np.random.default_rng(3).integers(-1, classes, n)
    if not multilabel:
        return number
    return np.where(number[:, None] < 0, -1, number[:, None] == np.arange(classes)).astype("int8")


def _spread_of_shares(batches, classes, step=1):
    """Standard deviation of a class' share in a batch, mean over classes."""
    shares = []
    for _, labels in as_arrays(batches):
        single = labels
        if labels.ndim == 2:
            single = np.where(labels[:, 0] < 0, -1, labels.argmax(1))
        shares.append([(single[::step] == c).mean() for c in range(classes)])
    assert len(shares) == 40
    return np.std(shares, axis=0).mean()


def test_correction_multiplies_the_weights(split, graph):
    factors = np.linspace(0.5, 2, graph.num_edges).astype(np.float32)
    plain = as_arrays(paired_batches(split, graph, **WINDOW))
    corrected = as_arrays(paired_batches(split, graph, correction=factors, **WINDOW))
    corners = dict(zip(zip(graph.sources().tolist(), graph.indices.tolist()), factors))
    for (features, _), (others, _) in zip(plain, corrected):
        index = rows_of(split, features["image"]).tolist()
        for i in range(0, len(index) // 2 * 2, 2):
            if features["pair_weight"][i]:
                ratio = others["pair_weight"][i] / features["pair_weight"][i]
                pair = (index[i], index[i + 1])
                near = [corners[p] for p in (pair, pair[::-1]) if p in corners]
                assert min(abs(ratio - f) for f in near) < 1e-5


def test_images_that_are_read_when_needed_give_the_same_batches(ways, split, graph, monkeypatch):
    lazy = dataclasses.replace(split, images=Lazy(split.images))
    expected = as_arrays(ways["gathered"](**WINDOW))
    assert_same(as_arrays(gathered_batches(lazy, graph, max_neighbors=K, **WINDOW)), expected)
    assert lazy.images.most <= B * (K + 1)
    sampled = {"max_neighbors": K, "sample": "uniform", **WINDOW}
    expected = as_arrays(gathered_batches(split, graph, **sampled))
    lazy.images.most = 0
    assert_same(as_arrays(gathered_batches(lazy, graph, **sampled)), expected)
    # An image that comes twice in a batch is read once.
    assert lazy.images.most < 0.9 * B * (K + 1)
    assert_same(as_arrays(plain_batches(lazy, **WINDOW)), as_arrays(ways["plain"](**WINDOW)))


def test_large_arrays_are_not_made_a_tensor(split):
    small = lookup.row_lookup(split.images, memory_bytes=split.images.nbytes)
    large = lookup.row_lookup(split.images, memory_bytes=split.images.nbytes - 1)
    index = tf.constant([[3, 5], [1, 1]], tf.int64)
    np.testing.assert_array_equal(small(index), split.images[index.numpy()])
    np.testing.assert_array_equal(large(index), split.images[index.numpy()])


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_multi_hot_labels(tmp_path, graph, memory_bytes):
    split = random_split(N, multilabel=True)
    packed = pack_neighbors(split, graph, max_neighbors=K, folder=tmp_path, key={}, packer="stream")
    for dataset in (
        packed_batches(packed, memory_bytes=memory_bytes, **WINDOW),
        paired_batches(split, graph, **WINDOW),
    ):
        for features, labels in as_arrays(dataset):
            assert labels.dtype == np.int64 and labels.shape[1] == 4
            index = rows_of(split, features["image"])
            np.testing.assert_array_equal(labels, split.labels[index])


def test_records_damaged_after_the_check(tmp_path, split, graph):
    packed = pack_neighbors(split, graph, max_neighbors=K, folder=tmp_path, key={}, packer="stream")
    path = pathlib.Path(packed.files[0])
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"are damaged. Delete their folder"):
        packed_batches(packed, **WINDOW)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"are damaged. Delete their folder"):
        packed_batches(packed, **WINDOW)


def test_mistakes_are_told(split, graph):
    window = {"seed": 0, "epochs": 2}
    with pytest.raises(ConfigError, match=r"Received: batch_size=15, replicas=1. Use 14."):
        paired_batches(split, graph, batch_size=15, **window)
    with pytest.raises(ConfigError, match=r"Received: batch_size=6, replicas=2. Use 4."):
        paired_batches(split, graph, batch_size=6, replicas=2, **window)
    with pytest.raises(ConfigError, match="`batch_size` must be at least 1"):
        plain_batches(split, batch_size=0, **window)
    with pytest.raises(ConfigError, match="Received: first_epoch=3, epochs=2"):
        plain_batches(split, batch_size=4, first_epoch=3, **window)
    with pytest.raises(ConfigError, match="`max_neighbors` must be at least 1"):
        gathered_batches(split, graph, max_neighbors=0, batch_size=4, **window)
    for make in (gathered_batches, indexed_batches):
        with pytest.raises(GraphError, match="Received: 101 nodes, 50 images"):
            make(split.take(np.arange(50)), graph, max_neighbors=2, batch_size=4, **window)
    with pytest.raises(GraphError, match="Received: 101 nodes, 50 images"):
        paired_batches(split.take(np.arange(50)), graph, batch_size=4, **window)


def test_order_and_draw_depend_on_seed_and_epoch():
    np.testing.assert_array_equal(epoch_order(50, 3, 2), epoch_order(50, 3, 2))
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    draws = {epoch_draw(seed, epoch) for seed in range(4) for epoch in range(4)}
    assert len(orders) == len(draws) == 16


def test_pairs_stay_whole_on_every_replica():
    """A strategy's own cut, on two and three devices; a new process, which has one as yet."""
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        from references_neighbors import random_graph, random_split
        from tfgraphreg.compat import tf
        from tfgraphreg.neighbors.batches import paired_batches
        device = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * 3
        tf.config.set_logical_device_configuration(device, logical)
        cut = 0
        for replicas in (2, 3):
            strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
            for n in (97, 98, 101, 106):
                split, graph = random_split(n), random_graph(n)
                edges = dict(zip(zip(graph.sources(), graph.indices), graph.weights))
                index = {image.tobytes(): i for i, image in enumerate(split.images)}
                batches = paired_batches(split, graph, batch_size=24, seed=0, epochs=1,
                                         replicas=replicas)
                rows = pairs = 0
                for features, _ in strategy.experimental_distribute_dataset(batches):
                    images = strategy.experimental_local_results(features["image"])
                    weights = strategy.experimental_local_results(features["pair_weight"])
                    for image, weight in zip(images, weights):
                        own = [index[x.tobytes()] for x in image.numpy()]
                        weight = weight.numpy()
                        rows += len(own)
                        for i in range(0, len(own) // 2 * 2, 2):
                            if weight[i]:
                                pairs += 1
                                a, b = own[i], own[i + 1]
                                assert weight[i] in (edges.get((a, b)), edges.get((b, a)))
                        cut += len(own) % 2
                assert rows == n and pairs > 0.3 * n, (rows, pairs)
        assert cut > 2
        print("whole")
    """
    here = str(pathlib.Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), here], capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("whole"), done.stderr[-3000:]
