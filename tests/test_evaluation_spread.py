import logging
import math

import numpy as np
import pytest

from tfgraphreg import load_dataset
from tfgraphreg.compat import keras
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.spread import embedding_spread, evenly_spaced, has_collapsed
from tfgraphreg.model.classifier import build_classifier, infer
from tfgraphreg.progress import silent
from tfgraphreg.recipes.evaluate import measure
from tfgraphreg.training.history import read_history, write_history


def by_loops(rows):
    """Both numbers from eigenvalues of the covariance and from each pair in turn."""
    rows = np.asarray(rows, float)
    centered = [row - np.mean(rows, axis=0) for row in rows]
    scatter = sum(np.outer(row, row) for row in centered)
    sizes = [math.sqrt(max(value, 0.0)) for value in np.linalg.eigvalsh(scatter)]
    shares = [size / sum(sizes) for size in sizes if size > 1e-9 * max(sizes)]
    rank = math.exp(-sum(share * math.log(share) for share in shares))
    units = [row / math.sqrt(sum(row * row)) for row in rows]
    distances = [math.dist(units[i], units[j]) for i in range(len(rows)) for j in range(i)]
    return {"effective_rank": rank, "mean_pairwise_distance": sum(distances) / len(distances)}


@pytest.mark.parametrize("shape", [(30, 5), (4, 9), (2, 3)])
def test_both_numbers_equal_plain_loops(shape):
    rows = np.random.default_rng(0).normal(1.0, 2.0, shape).astype(np.float32)
    assert embedding_spread(rows) == pytest.approx(by_loops(rows), rel=1e-6)


def test_known_shapes():
    # The four ends of a cross: two directions of one size; 4 pairs at right angles, 2 opposite.
    cross = embedding_spread([[1, 0], [-1, 0], [0, 1], [0, -1]])
    assert cross["effective_rank"] == pytest.approx(2)
    assert cross["mean_pairwise_distance"] == pytest.approx((4 * math.sqrt(2) + 2 * 2) / 6)
    line = embedding_spread(np.outer(np.arange(1, 9), [1.0, 2.0, 3.0]))
    assert line["effective_rank"] == pytest.approx(1, abs=1e-6)
    assert line["mean_pairwise_distance"] == pytest.approx(0, abs=1e-7)
    point = embedding_spread(np.full((7, 3), 0.1, np.float32))
    assert point == {"effective_rank": 0.0, "mean_pairwise_distance": 0.0}
    assert embedding_spread(np.zeros((5, 2))) == point
    assert all(math.isnan(value) for value in embedding_spread(np.ones((1, 4))).values())


def test_scale_and_place_count_as_the_docstring_says():
    rows = np.random.default_rng(1).normal(size=(40, 6))
    plain, scaled, moved = (embedding_spread(x) for x in (rows, 1e-6 * rows, rows + 100))
    assert scaled == pytest.approx(plain)
    assert moved["effective_rank"] == pytest.approx(plain["effective_rank"])
    assert moved["mean_pairwise_distance"] < 0.1 < 1 < plain["mean_pairwise_distance"]


def test_of_many_rows_a_thousand_at_even_steps_are_used():
    rows = np.random.default_rng(2).normal(size=(2_998, 3))
    rows[1::3], rows[2::3] = 1e6, -1e6
    assert embedding_spread(rows) == embedding_spread(rows[::3])
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spaced(3, 500).tolist() == [0, 1, 2] and len(evenly_spaced(0, 500)) == 0


@pytest.mark.parametrize("bad", [np.ones(3), np.array([[0.0, np.nan]]), np.array([[np.inf]])])
def test_what_is_no_embedding_is_refused(bad):
    with pytest.raises(DataError, match="`embedding` must be"):
        embedding_spread(bad)


def test_two_classes_on_a_line_have_not_collapsed_and_ten_have():
    line = embedding_spread([[-1, 0, 0], [1, 0, 0]] * 5)
    assert not has_collapsed(line, width=3, num_classes=2)
    assert not has_collapsed(line, width=1, num_classes=10)
    assert has_collapsed(line, width=3, num_classes=10)
    tight = embedding_spread(np.random.default_rng(3).normal(1.0, 0.01, (50, 8)))
    assert tight["effective_rank"] > 5 and has_collapsed(tight, width=8, num_classes=2)
    nothing = embedding_spread(np.zeros((0, 4)))
    assert not has_collapsed(nothing, width=4, num_classes=10)


@pytest.mark.parametrize("offset, said", [(0.0, False), (1e4, True)])
def test_measuring_a_collapsed_embedding_warns(offset, said, caplog):
    keras.utils.set_random_seed(0)
    flat = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model = build_classifier(flat, embedding_dim=4, num_classes=10)
    kernel, bias = model.get_layer("embedding").get_weights()
    model.get_layer("embedding").set_weights([kernel, bias + offset])
    dataset = load_dataset("digits", limit=100)
    with caplog.at_level(logging.WARNING, logger="tfgraphreg"):
        found = measure(model, dataset, dataset.train.labels, "cosine", silent)
    assert ("The embedding has collapsed" in caplog.text) == said
    expected = embedding_spread(infer(model, dataset.test.images)["embedding"])
    assert {name: found[name] for name in expected} == expected
    assert (found["mean_pairwise_distance"] < 0.05) == said


def test_a_history_that_an_older_version_began_goes_on(tmp_path):
    rows = [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": 1.0, "effective_rank": 3.25}]
    write_history(tmp_path / "history.csv", rows)
    first, second = read_history(tmp_path / "history.csv")
    assert math.isnan(first.pop("effective_rank")) and [first, second] == rows
