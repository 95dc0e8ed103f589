"""Metric-learning baselines, beside the graph term, on the stack that has them."""

import itertools
import json
from importlib.util import find_spec

import numpy as np
import pytest

from tfgraphreg import cli
from tfgraphreg.compat import tf
from tfgraphreg.errors import MissingExtraError
from tfgraphreg.model import objectives

NAMES = ("triplet_semihard", "lifted_structured", "npairs", "contrastive")
HERE = find_spec("tensorflow_addons") is not None
needs_addons = pytest.mark.skipif(
    not HERE, reason="tensorflow-addons, of the extra addons, is not installed"
)
LABELS = np.array([2, 0, -1, 1, 0, 2, 1, 0, -1, 2])


def _rows(objective, labels=LABELS, seed=0):
    """The loss beside the softmax, and the embedding's gradient."""
    rng = np.random.default_rng(seed)
    embedding = tf.Variable(rng.normal(size=(len(labels), 4)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = objectives.metric_learning(objective, tf.constant(labels, tf.int64), embedding)
    gradient = tape.gradient(loss, embedding)
    return loss.numpy(), np.asarray(tf.convert_to_tensor(gradient))


def _embedding(labels=LABELS, seed=0):
    x = np.random.default_rng(seed).normal(size=(len(labels), 4)).astype(np.float32)
    return x[labels >= 0].astype(np.float64), labels[labels >= 0]


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _plain_triplet(x, y):
    d = np.linalg.norm(_unit(x)[:, None] - _unit(x)[None], axis=-1)
    losses = []
    for a, p in itertools.permutations(range(len(y)), 2):
        if y[a] != y[p]:
            continue
        negatives = d[a][y != y[a]]
        outside = negatives[negatives > d[a, p]]
        negative = outside.min() if len(outside) else negatives.max()
        losses.append(max(d[a, p] - negative + 1.0, 0.0))
    return np.mean(losses)


def _plain_lifted(x, y):
    d = np.linalg.norm(_unit(x)[:, None] - _unit(x)[None], axis=-1)
    losses = []
    for i, j in itertools.combinations(range(len(y)), 2):
        if y[i] == y[j]:
            pushed = sum(np.exp(1.0 - d[k][y != y[k]]).sum() for k in (i, j))
            losses.append(max(np.log(pushed) + d[i, j], 0.0) ** 2 / 2)
    return np.mean(losses)


def _plain_pairs(y):
    """Within each class in order of appearance: first with second, third with fourth, ..."""
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        yield from zip(own[::2], own[1::2])


def _plain_npairs(x, y):
    pairs = np.array(list(_plain_pairs(y)))
    similarity = x[pairs[:, 0]] @ x[pairs[:, 1]].T
    logs = similarity - np.log(np.exp(similarity).sum(1, keepdims=True))
    same = y[pairs[:, 0]][:, None] == y[pairs[:, 0]][None]
    return -np.mean((logs * same / same.sum(1, keepdims=True)).sum(1))


def _plain_contrastive(x, y):
    pairs = np.array(list(_plain_pairs(y)))
    first, second, kinds = _unit(x)[pairs[:, 0]], _unit(x)[pairs[:, 1]], y[pairs[:, 0]]
    losses = []
    for i in range(len(pairs)):
        losses.append(((first[i] - second[i]) ** 2).sum())
        d = np.linalg.norm(first[i] - second[i - 1])
        losses.append(d**2 if kinds[i] == kinds[i - 1] else max(1 - d, 0) ** 2)
    return np.mean(losses)


PLAIN = dict(zip(NAMES, (_plain_triplet, _plain_lifted, _plain_npairs, _plain_contrastive)))


@needs_addons
@pytest.mark.parametrize("objective", NAMES)
def test_equals_plain_loops_over_the_labeled_rows(objective):
    extra, gradient = _rows(objective)
    expected = PLAIN[objective](*_embedding())
    np.testing.assert_allclose(extra, expected, rtol=1e-4)
    assert np.abs(gradient[LABELS >= 0]).max() > 0
    assert (gradient[LABELS < 0] == 0).all()


@needs_addons
@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize(
    "labels",
    [[-1, -1, -1], [0, -1, -1], [1, 1, 1], [0, 1, 2], [0, 1, 1]],
    ids=["none", "single", "one class", "no pair", "one pair"],
)
def test_poor_batches_stay_finite(objective, labels):
    extra, gradient = _rows(objective, np.array(labels))
    assert np.isfinite(extra) and np.isfinite(gradient).all()
    if labels != [0, 1, 1]:
        np.testing.assert_allclose(extra, 0, atol=1e-6)


@needs_addons
@pytest.mark.parametrize("objective", NAMES)
def test_runs_beside_the_graph_term(objective, tmp_path, monkeypatch):
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "r"
    words = "--dataset digits --backbone fcnn --limit 200 --epochs 3 --batch-size 50 --alpha 0.5"
    where = ["--run-dir", str(run), "--export-dir", str(run / "model")]
    assert cli.run_command("train", [*words.split(), "--objective", objective, *where]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert found["final"]["graph_loss"] > 0 and np.isfinite(found["final"]["loss"])
    assert found["recall_at_1"] > 0.5


@pytest.mark.skipif(HERE, reason="tensorflow-addons is installed")
@pytest.mark.parametrize("objective", NAMES)
def test_without_the_extra_one_sentence_says_how_to_get_it(objective, tmp_path, capsys):
    words = ["--dataset", "digits", "--objective", objective, "--run-dir", str(tmp_path / "r")]
    assert cli.run_command("train", words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and 'pip install "tfgraphreg[addons]"' in lines[-1]
    with pytest.raises(MissingExtraError, match="tensorflow-addons"):
        objectives.check_objective(objective, multilabel=False)
