"""The flags that reach the neighbors room: what each changes in the batches of a run."""

import dataclasses
import json
import logging
import pathlib

import numpy as np
import pytest

from tfgraphreg.cli import run_command
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.splits import keep_labels
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.neighbors import matching
from tfgraphreg.recipes.batches import batch_source

N = 240


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits", limit=N)
    graph = knn_graph(data.train.images.reshape(N, -1).astype(np.float32), k=6)
    return data, graph


def epoch(digits, dataset=None, **settings):
    """All rows of the first epoch, feature by feature, and labels."""
    data, graph = digits
    config = TrainConfig(dataset="digits", epochs=1, batch_size=40, **settings)
    batches = list(batch_source(config, dataset or data, graph)(0))
    names = batches[0][0]
    rows = {name: np.concatenate([f[name].numpy() for f, _ in batches]) for name in names}
    return rows, np.concatenate([labels.numpy() for _, labels in batches])


@pytest.mark.parametrize("pairing", ["uniform", "weight"])
def test_corrected_pairs_weigh_their_edge_times_its_factor(digits, pairing, caplog):
    caplog.set_level(logging.INFO, "tfgraphreg")
    _, graph = digits
    plain, _ = epoch(digits, neighbors="paired", pairing=pairing)
    corrected, _ = epoch(digits, neighbors="paired", pairing=pairing, pair_correction=True)
    assert "200 matchings drawn" in caplog.text
    np.testing.assert_array_equal(plain["image"], corrected["image"])
    chances = matching.edge_probabilities(graph, draws=200, by_weight=pairing == "weight")
    factors = matching.correction(chances, draws=200)
    possible = {np.float32(w): set() for w in graph.weights}
    for weight, product in zip(graph.weights, graph.weights * factors):
        possible[np.float32(weight)].add(np.float32(product))
    paired = plain["pair_weight"] > 0
    assert paired.mean() > 0.8
    for before, after in zip(plain["pair_weight"][paired], corrected["pair_weight"][paired]):
        assert min(abs(after - p) for p in possible[before]) < 1e-6
    assert (plain["pair_weight"] != corrected["pair_weight"])[paired].mean() > 0.9


def test_pairing_by_weight_draws_other_and_heavier_pairs(digits):
    data, graph = digits
    # Weights of one node's edges must differ for the choice between them to show.
    uneven = dataclasses.replace(graph, weights=graph.weights ** np.float32(40))
    means = {}
    for pairing in ("uniform", "weight"):
        totals = []
        for seed in range(5):
            rows, _ = epoch((data, uneven), neighbors="paired", pairing=pairing, seed=seed)
            totals.append(rows["pair_weight"].mean())
        means[pairing] = np.mean(totals)
    assert means["weight"] > 1.05 * means["uniform"]


@pytest.mark.parametrize(
    ("mode", "name"), [("gathered", "NL_nbr_0_image"), ("bank", "neighbor_index")]
)
def test_sampling_top_is_what_packed_takes_and_uniform_is_not(digits, mode, name):
    top, _ = epoch(digits, neighbors=mode, neighbor_sampling="top")
    again, _ = epoch(digits, neighbors=mode, neighbor_sampling="top")
    other, _ = epoch(digits, neighbors=mode)
    np.testing.assert_array_equal(top[name], again[name])
    assert (top[name] != other[name]).any()
    if mode == "bank":
        near, _ = digits[1].top(1, digits[0].train.ids)
        np.testing.assert_array_equal(top[name], near[top["index"]])


def test_partners_may_be_unlabeled(digits):
    data, _ = digits
    few = dataclasses.replace(data, train=keep_labels(data.train, 2, seed=0))
    rows, labels = epoch(digits, few, neighbors="paired")
    pairs = rows["pair_weight"][0::2] > 0
    known = labels >= 0
    assert known.sum() == 20
    # Labeled images stand beside unlabeled ones, and most pairs have no label at all.
    assert (known[0::2] ^ known[1::2])[pairs].sum() > 5
    assert (~known[0::2] & ~known[1::2])[pairs].mean() > 0.5


def test_flags_of_pairs_need_pairs():
    for settings in ({"pair_correction": True}, {"pairing": "weight"}):
        with pytest.raises(ConfigError, match=r"has an effect only with `neighbors=paired`"):
            TrainConfig(**settings)
        TrainConfig(neighbors="paired", **settings)


def test_a_run_with_corrected_pairs_is_kept_and_gone_on_with_as_such(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))
    words = ["--dataset", "digits", "--backbone", "fcnn", "--limit", "200", "--batch-size", "40"]
    words += ["--epochs", "1", "--run-dir", "r", "--neighbors", "paired", "--pairing", "weight"]
    assert run_command("train", [*words, "--pair-correction"]) == 0
    config = json.loads(pathlib.Path("r/config.json").read_text())
    assert config["pair_correction"] is True and config["pairing"] == "weight"
    capsys.readouterr()
    assert run_command("train", [*words, "--resume"]) == 2
    assert "pair_correction: True against False" in capsys.readouterr().err
