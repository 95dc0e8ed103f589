import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import distance as scipy_distance
from scipy.stats import entropy

from tfgraphreg.compat import nsl, tf
from tfgraphreg.distances import (
    DISTANCES,
    RunningMahalanobis,
    mahalanobis,
    register_distance,
    shrunk_covariance,
)
from tfgraphreg.errors import ConfigError, UnknownNameError

SCIPY = {
    "euclidean": scipy_distance.euclidean,
    "sqeuclidean": scipy_distance.sqeuclidean,
    "manhattan": scipy_distance.cityblock,
    "cosine": scipy_distance.cosine,
}


def rows(seed, n=7, d=5):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(SCIPY))
def test_equals_scipy(name):
    x, y = rows(0), rows(1)
    expected = [SCIPY[name](a.astype(float), b.astype(float)) for a, b in zip(x, y)]
    record = DISTANCES.get(name)
    np.testing.assert_allclose(record.array(x, y), expected, rtol=1e-9)
    np.testing.assert_allclose(record.tensor(x, y), expected, rtol=2e-5)
    assert record.array(x, y).dtype == np.float64


def hard_pairs():
    x = rows(2, 4, 64)
    zero = np.zeros_like(x)
    yield "equal", x, x
    yield "zero", zero, zero
    yield "one zero", x, zero
    for size in (1e18, 1e-18, 1e-30, 1e-38):
        yield f"{size:g} equal", x * size, x * size
        yield f"{size:g} opposite", x * size, -x * size
        yield f"{size:g} and one", x * size, x
    yield "nearly equal", x, np.nextafter(x, np.float32(np.inf))


BUILT_IN = sorted(set(DISTANCES))


def ready(name, width):
    """The record of a name, fitted where it learns from data."""
    record = DISTANCES.get(name)
    return record.fit(rows(9, 50, width)) if record.fit else record


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("pair", list(hard_pairs()), ids=lambda pair: pair[0])
def test_finite_with_finite_gradients(name, pair):
    what, x, y = pair
    record = ready(name, x.shape[1])
    x, y = tf.constant(x, tf.float32), tf.constant(y, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        value = record.tensor(x, y)
    gradients = tape.gradient(value, [x, y])
    assert np.isfinite(value).all() and (value.numpy() >= 0).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    if "equal" in what and what != "nearly equal":
        np.testing.assert_array_equal(value, 0)


def test_cosine_of_zero_rows():
    record = DISTANCES.get("cosine")
    x, zero = rows(0), np.zeros((7, 5), np.float32)
    for function in (record.tensor, record.array):
        np.testing.assert_allclose(function(x, zero), 1.0, rtol=1e-6)
        np.testing.assert_array_equal(function(zero, zero), 0.0)


def test_half_precision_is_computed_in_float32():
    x = tf.constant(rows(0) * 300, tf.float16)
    value = DISTANCES.get("sqeuclidean").tensor(x, -x)
    assert value.dtype == tf.float32 and np.isfinite(value).all()


def test_sqeuclidean_is_nsls_l2_and_manhattan_its_l1():
    x, y = rows(0), rows(1)
    weights = np.random.default_rng(3).uniform(size=(7, 1)).astype(np.float32)
    for name, kind in (("sqeuclidean", "l2"), ("manhattan", "l1")):
        config = nsl.configs.DistanceConfig(distance_type=kind, sum_over_axis=-1)
        expected = nsl.lib.pairwise_distance_wrapper(
            tf.constant(x), tf.constant(y), tf.constant(weights), config
        )
        mine = np.mean(DISTANCES.get(name).tensor(x, y).numpy() * weights[:, 0])
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


def test_gradient_of_euclidean_and_cosine_by_differences():
    x, y = rows(4).astype(np.float64), rows(5).astype(np.float64)
    for name in ("euclidean", "cosine"):
        record = DISTANCES.get(name)
        tensor = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = record.tensor(tensor, y)
        gradient = tape.gradient(value, tensor).numpy()
        for column in range(5):
            step = np.zeros_like(x)
            step[:, column] = 1e-6
            slope = (record.array(x + step, y) - record.array(x - step, y)) / 2e-6
            np.testing.assert_allclose(gradient[:, column], slope, atol=1e-7)


def test_unknown_name_gives_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown distance. Received: 'euclidian'. Did you"):
        DISTANCES.get("euclidian")


def shares(seed, n=7, d=5):
    x = np.random.default_rng(seed).dirichlet(np.ones(d), size=n)
    x[0, :2] = [x[0, 0] + x[0, 1], 0]  # an empty bin
    return x.astype(np.float32)


DISTRIBUTIONS = {
    "histogram_intersection": lambda a, b: 1 - np.minimum(a, b).sum(),
    "kl": lambda a, b: entropy(a + 1e-7, b + 1e-7),
    "js": lambda a, b: scipy_distance.jensenshannon(a, b) ** 2,
}


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_histogram_distances_equal_scipy(name):
    x, y = shares(0).astype(float), shares(1).astype(float)
    x, y = (v / v.sum(1, keepdims=True) for v in (x, y))
    expected = [DISTRIBUTIONS[name](a, b) for a, b in zip(x, y)]
    record = DISTANCES.get(name)
    assert record.distributions
    np.testing.assert_allclose(record.array(x, y), expected, atol=2e-6)
    np.testing.assert_allclose(record.tensor(x, y), expected, atol=2e-6)


def test_kl_and_js_are_nsls():
    x, y = tf.constant(shares(2)), tf.constant(shares(3))
    for name, kind in (("kl", "kl_divergence"), ("js", "jensen_shannon_divergence")):
        config = nsl.configs.DistanceConfig(distance_type=kind, sum_over_axis=-1)
        expected = nsl.lib.pairwise_distance_wrapper(x, y, 1.0, config)
        np.testing.assert_allclose(np.mean(DISTANCES.get(name).tensor(x, y)), expected, rtol=1e-5)


@pytest.mark.parametrize("entry", [1e-31, 1e-30, 1.1e-30, 1e-29])
@pytest.mark.parametrize("count", [1, 5])
def test_cosine_takes_the_same_rows_for_zero_in_both_forms(entry, count):
    x, zero = np.zeros((2, 1, 5), np.float32)
    x[0, :count] = entry
    for other in (zero, np.ones_like(zero)):
        record = DISTANCES.get("cosine")
        found = record.tensor(tf.constant(x), tf.constant(other)).numpy()
        np.testing.assert_allclose(record.array(x, other), found, atol=2e-6)


def _entries(distributions):
    """Rows as they come, and the zeros and large values that break a careless formula."""
    low, high = (0, 1) if distributions else (-1e6, 1e6)
    numbers = st.floats(low, high, width=32) | st.sampled_from([0.0, 0.25, 1.0])
    return arrays(np.float32, (2, 4, 5), elements=numbers)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(BUILT_IN))
def test_properties(data, name):
    record = ready(name, 5)
    pair = data.draw(_entries(record.distributions))
    if record.distributions:  # rows that sum to one; rows of zeros are uniform
        total = pair.sum(-1, keepdims=True)
        pair = np.where(total > 0, pair / np.where(total > 0, total, 1), 0.2).astype(np.float32)
    x, y = (tf.constant(rows) for rows in pair)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        values = [record.tensor(x, y), record.tensor(y, x), record.tensor(x, x)]
    for gradient in tape.gradient(values, [x, y]):
        assert np.isfinite(gradient).all()
    forth, back, same = (v.numpy() for v in values)
    assert (forth >= 0).all() and (same <= 1e-6).all()
    assert record.array(x.numpy(), y.numpy()) == pytest.approx(forth, rel=1e-3, abs=2e-6)
    if record.symmetric:
        np.testing.assert_allclose(forth, back, rtol=1e-5, atol=1e-7)


def test_mahalanobis():
    data = np.random.default_rng(0).normal(size=(200, 5)) @ np.diag([1, 2, 3, 4, 0])
    covariance = shrunk_covariance(data)
    record = DISTANCES.get("mahalanobis").fit(data)
    x, y = rows(0), rows(1)
    inverse = np.linalg.inv(covariance)
    expected = [scipy_distance.mahalanobis(a, b, inverse) for a, b in zip(x, y)]
    np.testing.assert_allclose(record.array(x, y), expected, rtol=1e-6)
    np.testing.assert_allclose(record.tensor(x, y), expected, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"needs a covariance"):
        DISTANCES.get("mahalanobis").tensor(x, y)
    with pytest.raises(ConfigError, match=r"symmetric positive definite"):
        mahalanobis(np.zeros((2, 2)))


def test_running_mahalanobis():
    running = RunningMahalanobis(5, momentum=0.0, shrinkage=0.1)
    x, y = tf.constant(rows(0)), tf.constant(rows(1))
    np.testing.assert_allclose(running.tensor(x, y), DISTANCES.get("euclidean").array(x, y), 1e-5)
    data = (rows(3, 300) * np.float32([1, 2, 3, 4, 0])).astype(np.float32)
    running.update(data)
    covariance = np.cov(data.T, bias=True)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 5 * np.eye(5)
    expected = mahalanobis(shrunk).array(x, y)
    np.testing.assert_allclose(running.tensor(x, y), expected, rtol=1e-4)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = running.tensor(x, x)
    assert np.isfinite(tape.gradient(value, x)).all()
    with pytest.raises(ConfigError, match=r"momentum=1"):
        RunningMahalanobis(5, momentum=1)


def test_a_distance_of_ones_own():
    try:
        register_distance("chebyshev", lambda x, y: tf.reduce_max(tf.abs(x - y), axis=-1))
        x, y = rows(0), rows(1)
        found = DISTANCES.get("chebyshev").array(x, y)
        expected = [scipy_distance.chebyshev(a, b) for a, b in zip(x, y)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        with pytest.raises(ConfigError, match=r"registered already"):
            register_distance("chebyshev", lambda x, y: 0)
    finally:
        DISTANCES._records.pop("chebyshev", None)
