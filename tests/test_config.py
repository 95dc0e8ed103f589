"""A config is right at birth, and says what is wrong in one line."""

import dataclasses
import json

import pytest

from tfgraphreg import config as configs
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alpha": -1.0}, r"`--alpha` must be a finite number >= 0. Received: alpha=-1.0."),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"max_neighbors": 0}, "must be at least 1 when alpha > 0"),
        ({"regularize": "embeding"}, "Did you mean embedding"),
        ({"neighbors": "paired", "batch_size": 7}, "must be even"),
        ({"augment": "mixup"}, "an edge between mixtures has no meaning"),
        ({"validation_fraction": 1.0}, r"must be in \[0, 1\)"),
        ({"learning_rate": 0.0}, "must be a finite number > 0"),
        ({"epochs": 0}, "`--epochs` must be at least 1"),
        ({"edge_kinds": "xx"}, "must name some of ll, lu and uu"),
        ({"seed": 2**31}, "smaller than"),
        ({"freeze": "some"}, "none, backbone or a number of stages"),
    ],
)
def test_wrong_values_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)


def test_no_neighbors_are_fine_without_a_graph_term():
    assert not TrainConfig(alpha=0.0, max_neighbors=0).regularized


def test_round_trip_through_json(tmp_path):
    config = TrainConfig(dataset="digits", alpha=0.25, limit=10)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dataclasses.asdict(config)))
    assert configs.read(path) == config


@pytest.mark.parametrize("text", ["", "[1]", '{"alpah": 1}', '{"alpha": "x"}', '{"alpha": null}'])
def test_files_that_are_no_config(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        configs.read(path)


def test_differences_name_flags_and_skip_places():
    one = TrainConfig(alpha=0.1, run_dir="a")
    other = TrainConfig(alpha=0.2, run_dir="b", resume=True)
    assert configs.differences(one, other) == ["--alpha: 0.1 against 0.2"]
