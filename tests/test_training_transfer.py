"""The transfer recipe in training: what is frozen, what moves less, what begins later."""

import numpy as np
import pytest

from tfgraphreg.backbones import transfer
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.backbones.transfer import freeze, learning_rate_factors, stages
from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, TrainingError
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.training.fit import FitPlan, fit
from tfgraphreg.training.optimizer import FineTuningAdam, make_optimizer

SIDE, CLASSES, ROWS, STEPS = 8, 3, 16, 2


def examples():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS * STEPS, SIDE, SIDE, 1)).astype(np.uint8)
    features = {
        "image": images,
        "NL_nbr_0_image": images[::-1].copy(),
        "NL_nbr_0_weight": np.ones((ROWS * STEPS, 1), np.float32),
    }
    return features, np.arange(ROWS * STEPS) % CLASSES


def batches(first):
    return tf.data.Dataset.from_tensor_slices(examples()).batch(ROWS, drop_remainder=True).repeat()


@pytest.fixture(autouse=True)
def _fresh():
    keras.backend.clear_session()


OPTIONS = {"cnn": {"filters": (4, 6, 8)}, "fcnn": {"units": (8, 6, 4)}}


def compiled(
    network="cnn",
    *,
    first_step=0,
    backbone=1.0,
    decay=1.0,
    frozen="none",
    precision="float32",
    **kw,
):
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(precision)
    try:
        base = build_classifier(
            build_backbone(network, input_shape=(SIDE, SIDE, 1), options=OPTIONS[network]),
            embedding_dim=4,
            num_classes=CLASSES,
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    freeze(base, frozen)
    model = RegularizedClassifier(base, alpha=0.1, distance=DISTANCES.get("cosine"))
    optimizer = make_optimizer(
        1e-2,
        schedule="fixed",
        steps=100,
        precision=precision,
        factors=learning_rate_factors(base, backbone=backbone, decay=decay),
        first_step=first_step,
        bounded=True,
    )
    model.compile(optimizer, **kw)
    return model


def plan(folder, epochs, **changes):
    return FitPlan(
        folder=folder,
        epochs=epochs,
        steps=STEPS,
        images=ROWS * STEPS,
        batches=batches,
        **changes,
    )


def backbone_weights(model):
    return [w.numpy() for w in transfer.network(model.base_model).weights]


def equal(one, other):
    return [bool(np.array_equal(a, b)) for a, b in zip(one, other)]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_in_the_warm_up_the_head_moves_and_the_backbone_does_not(tmp_path, precision):
    model = compiled(first_step=STEPS, precision=precision)
    before, head = backbone_weights(model), model.base_model.get_layer("logits").get_weights()
    fit(model, plan(tmp_path / "one", 1, warmup_epochs=1))
    # The statistics of batch normalization count among the weights.
    assert all(equal(before, backbone_weights(model)))
    assert not any(equal(head, model.base_model.get_layer("logits").get_weights()))
    fit(model, plan(tmp_path / "one", 2, warmup_epochs=1))
    assert not any(equal(before, backbone_weights(model)))


@pytest.mark.one_stack
def test_a_run_stopped_in_or_after_the_warm_up_goes_on_as_if_it_had_not(tmp_path):
    whole = compiled(first_step=2 * STEPS, backbone=0.5)
    rows = fit(whole, plan(tmp_path / "whole", 3, warmup_epochs=2))
    for stop in (1, 2):
        folder = tmp_path / f"stopped{stop}"
        fit(
            compiled(first_step=2 * STEPS, backbone=0.5),
            plan(folder, stop, warmup_epochs=stop),
        )
        again = compiled(first_step=2 * STEPS, backbone=0.5)
        resumed = fit(again, plan(folder, 3, warmup_epochs=2))
        assert [r["loss"] for r in resumed] == pytest.approx([r["loss"] for r in rows], rel=1e-6)
        assert all(equal(whole.base_model.get_weights(), again.base_model.get_weights()))


def test_frozen_stages_stay_after_a_warm_up_too(tmp_path):
    model = compiled(first_step=STEPS, frozen=2)
    before = [[w.numpy() for w in stage_weights(s)] for s in stages(model.base_model)]
    fit(model, plan(tmp_path, 3, warmup_epochs=1, frozen="2"))
    after = [[w.numpy() for w in stage_weights(s)] for s in stages(model.base_model)]
    still = [all(equal(old, new)) for old, new in zip(before, after)]
    assert still == [True, True] + [False] * (len(still) - 2)


def stage_weights(stage):
    return [w for layer in stage.layers for w in layer.weights]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_steps_are_scaled_by_the_factor_of_their_stage(jit_compile):
    """Against plain Adam: the first step of each weight is the factor times as long."""
    features, labels = examples()
    part = {k: tf.constant(v[:ROWS]) for k, v in features.items()}
    moves = []
    for backbone, decay in ((1.0, 1.0), (0.1, 0.5)):
        model = compiled("fcnn", backbone=backbone, decay=decay, jit_compile=jit_compile)
        assert isinstance(model.optimizer, FineTuningAdam) == (backbone != 1)
        before = [w.numpy() for w in model.trainable_variables]
        model.train_on_batch(part, tf.constant(labels[:ROWS]))
        moves.append([w.numpy() - b for w, b in zip(model.trainable_variables, before)])
    expected = {
        id(w): f for w, f in learning_rate_factors(model.base_model, backbone=0.1, decay=0.5)
    }
    factors = [expected.get(id(w), 1.0) for w in model.trainable_variables]
    assert 1.0 in factors and 0.1 in factors and min(factors) < 0.03
    for plain, scaled, factor in zip(*moves, factors):
        np.testing.assert_allclose(scaled, factor * plain, rtol=1e-3, atol=1e-7)


def test_a_late_backbone_begins_as_adam_begins():
    """Its first step is one learning rate long, as the paper's bias correction makes it."""
    late, other = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
    optimizer = FineTuningAdam(0.1, factors=[(late, 0.5)], first_step=100)
    optimizer.build([late, other])
    for _ in range(100):
        optimizer.apply_gradients([(tf.constant([0.3]), other)])
    np.testing.assert_array_equal(late, [1.0, 2.0])
    optimizer.apply_gradients([(tf.constant([7.0, -1.0]), late)])
    np.testing.assert_allclose(late, [0.95, 2.05], atol=1e-5)


def test_without_factors_the_steps_are_adams():
    ours, theirs = tf.Variable([1.0, -2.0]), tf.Variable([1.0, -2.0])
    pairs = [(FineTuningAdam(0.01, factors=[]), ours), (keras.optimizers.Adam(0.01), theirs)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        gradient = tf.constant(rng.normal(size=2).astype("float32"))
        for optimizer, weight in pairs:
            optimizer.apply_gradients([(gradient, weight)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_two_replicas_fine_tune_like_one(two_replicas, tmp_path):
    """Without batch normalization, whose statistics are those of a replica's own rows."""
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = compiled("fcnn", first_step=STEPS, backbone=0.1, decay=0.5, frozen=1)
            before = backbone_weights(model)
        folder = tmp_path / type(strategy).__name__
        fit(model, plan(folder, 1, warmup_epochs=1, frozen="1"))
        assert all(equal(before, backbone_weights(model)))
        fit(model, plan(folder, 2, warmup_epochs=1, frozen="1"))
        results.append(model.base_model.trainable_weights)
    for one, two in zip(*results):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=2e-4)


def test_huge_gradients_of_dead_features_do_no_harm():
    weight = tf.Variable([1.0])
    optimizer = make_optimizer(0.1, schedule="fixed", steps=1, precision="float32", bounded=True)
    optimizer.apply_gradients([(tf.constant([1e25]), weight)])
    np.testing.assert_allclose(weight, [0.9], atol=1e-5)


def adamw_by_loops(weight, gradients, *, rate, decay):
    """Loshchilov and Hutter 2019, algorithm 2, for one number."""
    mean = square = 0.0
    for step, gradient in enumerate(gradients, start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        move = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-7)
        weight -= rate * (move + decay * weight)
    return weight


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_weight_decay_is_decoupled_and_follows_the_rate_of_a_weight(factor):
    named, other = tf.Variable([2.0]), tf.Variable([3.0])
    optimizer = make_optimizer(
        0.1,
        schedule="fixed",
        steps=1,
        precision="float32",
        factors=[(named, factor)],
        weight_decay=0.2,
    )
    gradients = [0.5, -3.0, 0.0, 0.0]
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant([gradient]), v) for v in (named, other)])
    for variable, start, rate in ((named, 2.0, 0.1 * factor), (other, 3.0, 0.1)):
        wanted = adamw_by_loops(start, gradients, rate=rate, decay=0.2)
        np.testing.assert_allclose(variable, [wanted], rtol=1e-4)
        without = adamw_by_loops(start, gradients, rate=rate, decay=0.0)
        assert abs(wanted - without) > 0.01


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weight_decay": -0.1}, r"`weight_decay` must be in \[0, 1\)"),
        ({"weight_decay": 1.0}, r"`weight_decay` must be in \[0, 1\)"),
        ({"weight_decay": float("nan")}, r"`weight_decay` must be in \[0, 1\)"),
        ({"stage_decay": 0.0}, r"`stage_decay` must be in \(0, 1\]"),
        ({"stage_decay": 1.5}, r"`stage_decay` must be in \(0, 1\]"),
        ({"backbone_learning_rate": 0.0}, "must be a finite number > 0"),
        ({"warmup_epochs": 5, "epochs": 5}, "must be smaller than `epochs`"),
        ({"warmup_epochs": 1, "freeze": "backbone"}, "not with `freeze=backbone`"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        TrainConfig(**changes)


def test_what_xla_cannot_do_is_an_error_in_words(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise tf.errors.InternalError(None, None, "Seen floating point types")

    for jit_compile, kind in ((True, TrainingError), (False, tf.errors.InternalError)):
        model = compiled(jit_compile=jit_compile)
        monkeypatch.setattr(model, "fit", fails)
        with pytest.raises(kind):
            fit(model, plan(tmp_path / str(jit_compile), 1))
