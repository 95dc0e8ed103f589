"""Freezing, stages and rates for fine-tuning."""

import numpy as np
import pytest

from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.backbones.transfer import freeze, learning_rate_factors, network, stages
from tfgraphreg.compat import keras
from tfgraphreg.errors import ModelError


@pytest.fixture(scope="module")
def classifier():
    backbone = build_backbone("mobilenet_025", input_shape=(32, 32, 3))
    logits = keras.layers.Dense(3, name="logits")(backbone.output)
    return keras.Model(backbone.input, logits)


@pytest.fixture(autouse=True)
def thaw(classifier):
    yield
    freeze(classifier, "none")


def test_stages_hold_every_weight_once_in_order(classifier):
    parts = stages(classifier)
    assert [part.name for part in parts] == [f"stage_{n}" for n in range(1, 6)]
    weights = [id(w) for part in parts for w in part.trainable_weights]
    assert len(weights) == len(set(weights))
    assert set(weights) == {id(w) for w in network(classifier).trainable_weights}
    # The halvings of MobileNet: 16 -> 8 -> 4 -> 2 -> 1.
    firsts = [part.layers[0].name for part in parts]
    assert firsts == ["conv1", "conv_dw_2", "conv_dw_4", "conv_dw_6", "conv_dw_12"]


def test_a_network_of_one_size_is_cut_evenly():
    flat = keras.Sequential([keras.layers.Dense(2, name=f"d{n}") for n in range(7)])
    flat.build((None, 2))
    assert [len(part.layers) for part in stages(flat, count=3)] == [2, 3, 2]
    assert [len(part.layers) for part in stages(flat, count=20)] == [1] * 7


def test_frozen_stages_do_not_move(classifier):
    frozen = freeze(classifier, 2)
    assert "conv1" in frozen and "conv_dw_12" not in frozen
    before = [part.layers[0].get_weights() for part in stages(classifier)]
    classifier.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    classifier.fit(images, np.arange(8) % 3, verbose=0)
    moved = [
        any((a != b).any() for a, b in zip(old, part.layers[0].get_weights()))
        for old, part in zip(before, stages(classifier))
    ]
    assert moved == [False, False, True, True, True]


def test_freeze_backbone_leaves_the_head_and_none_undoes_it(classifier):
    total = len(classifier.trainable_weights)
    freeze(classifier, "backbone")
    assert [w.name for w in classifier.trainable_weights] == ["logits/kernel:0", "logits/bias:0"]
    assert freeze(classifier, "none") == []
    assert len(classifier.trainable_weights) == total
    assert freeze(classifier, "1") == freeze(classifier, 1)


@pytest.mark.parametrize("what", ["head", 6, -1, True, 1.5, None])
def test_freeze_refuses_what_it_cannot_do(classifier, what):
    with pytest.raises(ModelError, match=r"`freeze` must be none, backbone or .* 0 to 5"):
        freeze(classifier, what)


def test_rates_fall_towards_the_pixels(classifier):
    factors = {w.name: f for w, f in learning_rate_factors(classifier, backbone=0.4, decay=0.5)}
    # The head is not named: it learns at the rate itself.
    assert set(factors) == {w.name for w in network(classifier).trainable_weights}
    assert factors["conv1/kernel:0"] == 0.4 * 0.5**4
    assert sorted(set(factors.values())) == [0.4 * 0.5**n for n in range(4, -1, -1)]
    assert {f for _, f in learning_rate_factors(classifier)} == {1.0}
    for decay in (0, 1.1, float("nan")):
        with pytest.raises(ModelError, match="`decay` of the learning rate"):
            learning_rate_factors(classifier, decay=decay)
    for multiple in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="`backbone`, a multiple of the learning rate"):
            learning_rate_factors(classifier, backbone=multiple)
