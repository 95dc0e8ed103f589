import numpy as np
import pytest
import references_evaluation as references

from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.detection import best_overlaps, box_iou


def _boxes(n, seed):
    rng = np.random.default_rng(seed)
    low = rng.random((n, 2)) * 50
    return np.hstack([low, low + rng.random((n, 2)) * 40])


def test_equals_plain_loops():
    boxes, others = _boxes(12, 0), _boxes(9, 1)
    expected = [[references.plain_iou(a, b) for b in others] for a in boxes]
    np.testing.assert_allclose(box_iou(boxes, others), expected)
    assert (np.array(expected) > 0).any()


def test_by_hand():
    np.testing.assert_allclose(
        box_iou([[0, 0, 2, 2]], [[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 3, 3], [1, 1, 1, 1]]),
        [[1, 1 / 3, 0, 0]],
    )
    assert box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]) == 0
    assert box_iou(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)


def test_best_overlap_is_by_class_and_leaves_out_what_is_ignored():
    truth = [[0, 0, 2, 2], [0, 0, 4, 4], [5, 5, 6, 6], [0, 0, 2, 2]]
    guess = [[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]]
    np.testing.assert_allclose(
        best_overlaps(truth, [7, 3, 3, -1], guess, [7, 3, -1]), [1 / 3, 1 / 4, 0]
    )
    person = best_overlaps(truth, [7, 3, 3, -1], guess, [7, 3, -1], only_class=7)
    np.testing.assert_allclose(person, [1 / 3])
    np.testing.assert_array_equal(best_overlaps(truth, [1, 1, 1, 1], [], []), [0, 0, 0, 0])
    assert best_overlaps([], [], guess, [7, 3, 1]).shape == (0,)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="end after they begin"):
        box_iou([[2, 0, 1, 1]], [[0, 0, 1, 1]])
    with pytest.raises(DataError, match=r"`boxes` must have the shape \[boxes, 4\]"):
        box_iou([[2, 0, 1]], [[0, 0, 1, 1]])
    with pytest.raises(DataError, match="Every box needs a class"):
        best_overlaps([[0, 0, 1, 1]], [1, 2], [], [])
