"""Graph files over images that are divided anew."""

import itertools
import logging
import pathlib

import numpy as np
import pytest
from PIL import Image

from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.recipes.build_graph import build_graph
from tfgraphreg.recipes.material import prepare


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))


def material(**settings):
    return prepare(TrainConfig(**settings), lambda *_: None)


def test_its_own_graph_file_works_under_another_seed_limit_and_validation(caplog):
    caplog.set_level(logging.INFO, "tfgraphreg")
    settings = {"dataset": "digits", "graph_features": "pixels", "graph_neighbors": 3}
    build_graph(TrainConfig(**settings), "graph")
    first = material(**settings)
    before = first.dataset.train.ids
    ends = [(before[i], before[j]) for i, j in first.graph.to_pairs()[0].tolist()]
    for kind in ("tsv", "npz"):
        file = f"graph/graph.{kind}"
        again = material(dataset="digits", graph=file, seed=1, limit=800, validation_fraction=0.1)
        assert again.graph.num_nodes == len(again.dataset.train) == 720
        # The edges are those of the first graph whose ends are both still training images.
        after = again.dataset.train.ids
        kept = {pair for pair in ends if set(pair) <= set(after)}
        found = {(after[i], after[j]) for i, j in again.graph.to_pairs()[0].tolist()}
        assert found == kept and kept
        said = f"{len(ends) - len(kept)} edges of {file} to images that are not for training"
        assert said in caplog.text


def test_a_graph_of_a_flat_folder_and_ids_that_nobody_knows():
    rng = np.random.default_rng(0)
    names = [f"{c}/{i}" for c in ("ant", "bee") for i in range(10)]
    for name in names:
        path = pathlib.Path("photos") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    pathlib.Path("photos/bee/broken.png").write_bytes(b"no image")
    edges = [f"{a}\t{b}\n" for a, b in zip(names, [*names[1:], "bee/broken"])]
    pathlib.Path("edges.tsv").write_text("".join(edges))
    settings = {"dataset": "folder:photos", "on_bad_image": "skip", "image_size": 8}
    found = material(**settings, graph="edges.tsv")
    train = set(found.dataset.train.ids)
    assert found.graph.num_edges == sum({a, b} <= train for a, b in itertools.pairwise(names)) < 20
    pathlib.Path("edges.tsv").write_text("".join([*edges, "ant/1\tbee/12\n"]))
    with pytest.raises(GraphError, match=r"line 21: 'bee/12' is no id\..*Did you mean bee/2"):
        material(**settings, graph="edges.tsv")
    pathlib.Path("edges.tsv").write_text("".join(edges).replace("\n", "\t1e38\n"))
    with pytest.raises(GraphError, match=r"largest weight of 1e\+38"):
        material(**settings, graph="edges.tsv")


def test_a_cached_graph_that_was_rewritten_is_built_again(caplog):
    caplog.set_level("INFO", "tfgraphreg")
    settings = {"dataset": "digits", "limit": 100, "graph_features": "pixels"}
    first = material(**settings).graph
    (path,) = pathlib.Path("cache/graphs").glob("*.npz")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "weights": arrays["weights"] / 2})
    again = material(**settings).graph
    np.testing.assert_array_equal(again.weights, first.weights)
    assert "the cached file is damaged and is built again" in caplog.text


def test_more_neighbors_than_images_are_refused_by_the_name_of_the_setting():
    with pytest.raises(ConfigError, match="Use `graph_neighbors=19` or less"):
        material(dataset="digits", limit=20, graph="knn,random", graph_neighbors=20)
