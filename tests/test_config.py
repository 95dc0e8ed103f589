"""A config is right at birth, and says what is wrong in one line."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from tfgraphreg import config as configs
from tfgraphreg.commands.flags import add_config, to_config
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError
from tfgraphreg.reading import read_json, read_yaml


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alpha": -1.0}, r"`alpha` must be a finite number >= 0. Received: alpha=-1.0."),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"max_neighbors": 0}, "must be at least 1 when `alpha` is above 0"),
        ({"regularize": "embeding"}, "Did you mean embedding"),
        ({"neighbors": "paired", "batch_size": 7}, "must be even"),
        ({"augment": "mixup"}, "an edge between mixtures has no meaning"),
        ({"validation_fraction": 1.0}, r"must be in \[0, 1\)"),
        ({"learning_rate": 0.0}, "must be a finite number > 0"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"edge_kinds": "xx"}, "must name some of ll, lu and uu"),
        ({"seed": 2**31}, "smaller than"),
        ({"freeze": "some"}, "none, backbone or a number of stages"),
        ({"freeze": "²"}, "none, backbone or a number of stages"),
        ({"jit_compile": True, "augment": "flip_shift"}, "XLA cannot compile the random changes"),
    ],
)
def test_wrong_values_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alpha": "0.1"}, "`alpha` must be a finite number. Received: alpha='0.1'."),
        ({"alpha": 10**400}, "`alpha` must be a finite number"),
        ({"limit": "5"}, "`limit` must be a whole number. Received: limit='5'. Leave it out"),
        ({"limit": 50.0}, "`limit` must be a whole number. Received: limit=50.0."),
        ({"epochs": 1.5}, "Received: epochs=1.5. The default is 5."),
        ({"epochs": True}, "`epochs` must be a whole number"),
        ({"batch_size": 32.5}, "`batch_size` must be a whole number"),
        ({"seed": None}, "`seed` must be a whole number. Received: seed=None."),
        ({"symmetrize": "no"}, "`symmetrize` must be true or false. Received: symmetrize='no'."),
        ({"cache_images": 1}, "`cache_images` must be true or false"),
        ({"edge_kinds": ["ll"]}, r"`edge_kinds` must be a word. Received: edge_kinds=\['ll'\]."),
        ({"graph": None}, "`graph` must be a word. Received: graph=None. The default is knn."),
        ({"augment": 3}, "`augment` must be a word"),
        ({"freeze": 2.5}, "`freeze` must be a word or a whole number"),
        ({"freeze": True}, "`freeze` must be a word or a whole number"),
        ({"learning_rate": np.ones((2, 2))}, "`learning_rate` must be a finite number"),
    ],
)
def test_values_of_the_wrong_type_are_refused(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        TrainConfig(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"freeze": "2"}, "2"),
        ({"freeze": np.int64(2)}, "2"),
        ({"alpha": 0}, 0.0),
        ({"alpha": np.float32(0.5)}, 0.5),
        ({"learning_rate": None}, None),
        ({"limit": np.int32(7)}, 7),
        ({"symmetrize": np.bool_(True)}, True),
        ({"run_dir": pathlib.Path("runs") / "a"}, str(pathlib.Path("runs") / "a")),
        ({"distance": np.str_("cosine")}, "cosine"),
    ],
)
def test_values_are_kept_as_plain_python(given, kept):
    (name,) = given
    value = getattr(TrainConfig(**given), name)
    assert value == kept and type(value) is type(kept)
    json.dumps(dataclasses.asdict(TrainConfig(**given)))


def test_no_neighbors_are_fine_without_a_graph_term():
    assert not TrainConfig(alpha=0.0, max_neighbors=0).regularized


def test_round_trip_through_json(tmp_path):
    config = TrainConfig(dataset="digits", alpha=0.25, limit=10)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dataclasses.asdict(config)))
    assert configs.read(path) == config


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"alpah": 1}', '{"alpha": "x"}', '{"alpha": null}', '{"graph": 5}', '{"": 1}'],
)
def test_files_that_are_no_config(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        configs.read(path)


def test_differences_name_flags_and_skip_places():
    one = TrainConfig(alpha=0.1, run_dir="a")
    other = TrainConfig(alpha=0.2, run_dir="b", resume=True)
    assert configs.differences(one, other) == ["alpha: 0.1 against 0.2"]


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": 0.0, "neighbors": "paired"},
        {"alpha": 0.0, "max_neighbors": 3},
        {"alpha": 0.0, "regularize": "logits"},
        {"neighbors": "paired", "max_neighbors": 3},
        {"neighbor_sampling": "top"},
        {"pairing": "weight"},
        {"neighbors": "bank", "packer": "nsl"},
        {"graph": "edges.tsv", "graph_neighbors": 3},
        {"graph": "threshold", "graph_neighbors": 3},
        {"graph": "class", "graph_search": "exact"},
        {"graph_threshold": 0.5},
        {"graph_radius": 1.0},
        {"freeze": "backbone", "stage_decay": 0.5},
        {"dataset": "digits", "data_dir": "x"},
        {"dataset": "digits", "cache_images": True},
    ],
)
def test_settings_without_effect_are_refused_and_old_runs_with_them_are_read(values, tmp_path):
    name = list(values)[-1]
    with pytest.raises(ConfigError, match=f"`{name}` has an effect only with .* Received: {name}="):
        TrainConfig(**values)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    default = {field.name: field.default for field in dataclasses.fields(TrainConfig)}[name]
    assert getattr(configs.read(path), name) == default


def test_an_object_in_place_of_a_setting_is_one_short_line():
    for given in (object(), np.zeros((500, 500)), ["x" * 1000], "y" * 5000):
        with pytest.raises(ConfigError) as caught:
            TrainConfig(epochs=given)
        assert len(str(caught.value)) < 200


def test_a_setting_is_added_in_one_room():
    names = [name for section in configs.SECTIONS.values() for name in configs.names_of(section)]
    assert sorted(names) == sorted(configs.names_of(TrainConfig)) and len(set(names)) == len(names)


# The flags of version 0.1.0, each in a command line where it has an effect; what they must mean.
FOLDER = ["--dataset", "folder:photos"]
COMMAND_LINES = [
    (
        ["--dataset", "cifar10", "--data-dir", "d", "--limit", "500", "--labels-per-class", "3"],
        {"dataset": "cifar10", "data_dir": "d", "limit": 500, "labels_per_class": 3},
    ),
    (
        ["--validation-fraction", "0.2", "--image-size", "32", "--backbone", "cnn", "--seed", "7"],
        {"validation_fraction": 0.2, "image_size": 32, "backbone": "cnn", "seed": 7},
    ),
    (
        [*FOLDER, "--on-bad-image", "skip", "--cache-images", "--embedding-dim", "32"],
        {"dataset": "folder:photos", "on_bad_image": "skip", "cache_images": True}
        | {"embedding_dim": 32},
    ),
    (
        ["--backbone", "mobilenet_v2", "--weights", "imagenet", "--freeze", "2"],
        {"backbone": "mobilenet_v2", "weights": "imagenet", "freeze": "2"},
    ),
    (
        ["--backbone-learning-rate=0.1", "--stage-decay=0.8", "--warmup-epochs=2", "--epochs=9"],
        {"backbone_learning_rate": 0.1, "stage_decay": 0.8, "warmup_epochs": 2, "epochs": 9},
    ),
    (
        ["--alpha", "0.3", "--distance", "l2", "--regularize", "logits", "--packer", "stream"],
        {"alpha": 0.3, "distance": "l2", "regularize": "logits", "packer": "stream"},
    ),
    (
        ["--neighbors=gathered", "--max-neighbors=4", "--neighbor-sampling=top"],
        {"neighbors": "gathered", "max_neighbors": 4, "neighbor_sampling": "top"},
    ),
    (
        ["--neighbors", "paired", "--pairing", "weight", "--pair-correction"],
        {"neighbors": "paired", "pairing": "weight", "pair_correction": True},
    ),
    (
        ["--graph-features", "hog", "--graph-metric", "l2", "--graph-neighbors", "5"],
        {"graph_features": "hog", "graph_metric": "l2", "graph_neighbors": 5},
    ),
    (
        ["--graph=mutual", "--graph-search=exact", "--graph-weights=binary", "--edge-kinds=ll,lu"],
        {"graph": "mutual", "graph_search": "exact", "graph_weights": "binary"}
        | {"edge_kinds": "ll,lu"},
    ),
    (
        ["--graph", "threshold", "--graph-threshold", "0.8", "--symmetrize"],
        {"graph": "threshold", "graph_threshold": 0.8, "symmetrize": True},
    ),
    (
        ["--graph", "radius", "--graph-metric", "l2", "--graph-radius", "0.5"],
        {"graph": "radius", "graph_metric": "l2", "graph_radius": 0.5},
    ),
    (
        ["--alpha=0", "--objective=npairs", "--augment=mixup", "--batch-size=64"],
        {"alpha": 0.0, "objective": "npairs", "augment": "mixup", "batch_size": 64},
    ),
    (
        ["--learning-rate=0.01", "--schedule=fixed", "--precision=mixed_bfloat16"],
        {"learning_rate": 0.01, "schedule": "fixed", "precision": "mixed_bfloat16"},
    ),
    (
        ["--strategy", "none", "--jit-compile", "--run-dir", "r", "--export-dir", "e", "--resume"],
        {"strategy": "none", "jit_compile": True, "run_dir": "r", "export_dir": "e"}
        | {"resume": True},
    ),
]


@pytest.mark.parametrize(("words", "meant"), COMMAND_LINES, ids=lambda value: str(value)[:30])
def test_flags_mean_what_they_meant(words, meant):
    parser = ArgumentParser(exit_on_error=False)
    add_config(parser)
    given = to_config(parser.parse_args(words))
    assert dataclasses.asdict(given) == {**dataclasses.asdict(TrainConfig()), **meant}


def test_no_flag_of_the_first_version_is_gone():
    assert len({name for _, meant in COMMAND_LINES for name in meant}) == 47


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("alpha: 1\nalpha: 2", "alpha: 2"),
        ('{"graph": {"alpha": 1, "alpha": 2}}', '{"graph": {"alpha": 2}}'),
    ],
)
def test_a_file_that_names_a_key_twice_is_refused(text, same, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    for read in (read_yaml, read_json) if text.startswith("{") else (read_yaml,):
        with pytest.raises(ValueError, match="'alpha' twice"):
            read(path)
    path.write_text(same)
    assert read_yaml(path)


@pytest.mark.parametrize("text", ["seed: 0:3", "limit: 010", "alpha: 1:30.5"])
def test_a_number_that_yaml_reads_as_another_is_refused(text, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="which YAML reads as another number"):
        read_yaml(path)
    name, value = text.split(": ")
    path.write_text(f"{name}: '{value}'\nseeds: [0, 10, 1.5, 2024-01-10]")
    assert read_yaml(path)[name] == value


def test_a_value_of_a_flag_may_begin_as_a_comment_does():
    parser = ArgumentParser(exit_on_error=False)
    add_config(parser)
    assert to_config(parser.parse_args(["--labels", "#1.csv"])).labels == "#1.csv"
