import numpy as np
import pytest
from references_neighbors import random_graph

from tfgraphreg.neighbors.grouping import grouped_order, grow_groups, spread_groups
from tfgraphreg.neighbors.order import epoch_order
from tfgraphreg.neighbors.sampling import sample_neighbors

N = 600


@pytest.fixture(scope="module")
def near():
    found, _ = sample_neighbors(random_graph(N), 2, draw=4)
    assert (found < 0).all(1).any() and (found >= 0).all(1).any()
    return found


def touching(near):
    """For each node, all that it shares an edge with, in either direction."""
    others = [set(row[row >= 0].tolist()) for row in near]
    for node, row in enumerate(near):
        for other in row[row >= 0]:
            others[other].add(node)
    return others


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_groups_hang_together_and_are_as_large_as_can_be(near, size):
    rows, starts = grow_groups(near, epoch_order(N, 0, 0), size=size)
    np.testing.assert_array_equal(np.sort(rows), np.arange(N))
    others = touching(near)
    groups = [group.tolist() for group in np.split(rows, starts[1:])]
    assert max(map(len, groups)) == size
    later = set(range(N))
    for group in groups:
        later -= set(group)
        for i in range(1, len(group)):
            assert others[group[i]] & set(group[:i])
        if len(group) < size:
            assert not set().union(*(others[node] for node in group)) & later


def test_groups_start_in_the_order_given(near):
    order = epoch_order(N, 3, 0)
    rows, starts = grow_groups(near, order, size=4)
    place = np.argsort(order)[rows[starts]]
    assert (np.diff(place) > 0).all()


def test_a_node_with_many_neighbors_and_nodes_with_none():
    star = np.full((50, 1), -1, np.int64)
    star[1:40] = 0
    rows, starts = grow_groups(star, np.arange(50), size=4)
    assert set(rows[:4]) == {0, 1, 2, 3} and len(starts) == 1 + 36 + 10
    alone = np.full((1, 2), -1, np.int64)
    np.testing.assert_array_equal(grouped_order(alone, np.arange(1), np.zeros(1, int), seed=0), [0])
    assert len(grouped_order(alone[:0], np.arange(0), np.zeros(0, int), seed=0)) == 0


def test_groups_stay_whole_and_kinds_come_at_even_distances():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 400)
    starts = np.cumsum(sizes) - sizes
    nodes = rng.permutation(sizes.sum())
    of_group = rng.choice([-1, 0, 1, 2], 400, p=[0.1, 0.5, 0.3, 0.1])
    kinds = np.repeat(of_group, sizes)[np.argsort(nodes)]
    # The first node that has a kind says it, whatever the later ones have.
    for group in np.flatnonzero((sizes > 2) & (of_group >= 0))[::2]:
        kinds[nodes[starts[group]]] = -1
        kinds[nodes[starts[group] + 2]] = (of_group[group] + 1) % 3

    rows = spread_groups(nodes, starts, kinds, seed=5)

    np.testing.assert_array_equal(np.sort(rows), np.arange(len(nodes)))
    group_of = np.repeat(np.arange(400), sizes)[rows]
    first = np.flatnonzero(np.append(True, group_of[1:] != group_of[:-1]))
    assert len(first) == 400
    for start, end in zip(first, np.append(first[1:], len(rows))):
        np.testing.assert_array_equal(rows[start:end], rows[start] + np.arange(end - start))
    # In every tenth of the epoch there are as many of a kind as in any other, give or take two
    # groups of four.
    kind_after = of_group[group_of]
    for part in np.array_split(kind_after, 10):
        for kind in (-1, 0, 1, 2):
            assert abs((part == kind).sum() - (kind_after == kind).sum() / 10) <= 8
    assert (rows != spread_groups(nodes, starts, kinds, seed=6)).any()
    np.testing.assert_array_equal(rows, spread_groups(nodes, starts, kinds, seed=5))
