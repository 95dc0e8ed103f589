"""Patch features beside loops in float64 and scikit-learn; what they read, save and refuse."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfgraphreg.errors import DataError
from tfgraphreg.features import extract_features
from tfgraphreg.features import patches as room
from tfgraphreg.features.patches import Patches, fit_patches


def noise(n=30, h=12, w=14, c=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, c)).astype(np.uint8)


def loops(image, fitted):
    """Pooled activations of one image, patch by patch as the paper describes them."""
    values = image / 255.0
    side = min(6, *image.shape[:2])
    rows, columns = image.shape[0] - side + 1, image.shape[1] - side + 1
    down, across = min(4, rows), min(4, columns)
    cells = [[[] for _ in range(across)] for _ in range(down)]
    for i in range(rows):
        for j in range(columns):
            patch = values[i : i + side, j : j + side].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 0.003)
            white = (patch - fitted.mean) @ fitted.whiten.astype(float)
            distances = np.linalg.norm(white - fitted.centers, axis=1)
            active = np.maximum(0, distances.mean() - distances)
            cells[i * down // rows][j * across // columns].append(active)
    return np.sqrt(np.concatenate([np.mean(cell, axis=0) for row in cells for cell in row]))


@pytest.mark.parametrize("size", [(12, 14, 1), (9, 8, 3), (5, 4, 1)])
def test_against_loops(size):
    x = noise(30, *size)
    fitted = fit_patches(x)
    pooled = np.stack([loops(image, fitted) for image in x[:4]])
    np.testing.assert_allclose(fitted(x[:4]), (pooled - fitted.center) @ fitted.axes, atol=2e-4)


def test_axes_are_those_of_scikit_learn_over_the_root_of_their_deviation():
    from sklearn.decomposition import PCA

    x = (load_digits().images[:80, ..., None] * 15).astype(np.uint8)
    fitted = fit_patches(x)
    pooled = np.stack([loops(image, fitted) for image in x])
    pca = PCA(79).fit(pooled)
    expected = pca.transform(pooled) / (pooled @ pca.components_.T).std(0) ** 0.5
    # The last axes carry almost nothing; signs are free.
    np.testing.assert_allclose(np.abs(fitted(x)[:, :20]), np.abs(expected[:, :20]), atol=1e-3)


def test_whitened_patches_have_the_covariance_of_zca():
    x = (load_digits().images[:200, ..., None] * 15).astype(np.uint8)
    patches = room._some_patches(x, np.arange(200), np.random.default_rng(0))
    assert len(patches) == 200 * 9  # all of them, where there are few
    mean, whiten = room._whitening(patches)
    values, vectors = np.linalg.eigh(np.cov(patches.T, bias=True))
    expected = (vectors * (values / (values + 0.05))) @ vectors.T
    np.testing.assert_allclose(
        np.cov(((patches - mean) @ whiten).T, bias=True), expected, atol=1e-4
    )


def test_the_seed_decides_and_an_image_does_not_depend_on_its_block(monkeypatch):
    x = noise(60)
    rows = extract_features("patches", x, seed=3)
    assert rows.shape == (60, 59) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows, extract_features("patches", x, seed=3))
    assert np.abs(rows - extract_features("patches", x, seed=4)).max() > 1e-3
    fitted = fit_patches(x, seed=3)
    pooled = [room._pooled(x[i : i + 1], *_state(fitted))[0] for i in range(5)]
    np.testing.assert_array_equal(pooled, room._pooled(x, *_state(fitted))[:5])
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    np.testing.assert_array_equal(rows, extract_features("patches", x, seed=3))


def _state(fitted):
    return fitted.mean, fitted.whiten, fitted.centers


class Stored:
    """Images that count how many are read by number and how many by slices."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype
        self.picked = self.sliced = self.most = 0

    def __len__(self):
        return len(self._array)

    def __getitem__(self, where):
        part = self._array[where]
        name = "sliced" if isinstance(where, slice) else "picked"
        setattr(self, name, getattr(self, name) + len(part))
        self.most = max(self.most, len(part))
        return part


def test_fits_to_a_sample_and_reads_by_blocks(monkeypatch):
    monkeypatch.setattr(room, "_FIT_IMAGES", 20)
    monkeypatch.setattr(room, "_CHUNK", 8)
    monkeypatch.setattr("tfgraphreg.features.registry._BLOCK_BYTES", 2000)
    x = noise(200)
    stored = Stored(x)
    fitted = fit_patches(stored)
    assert stored.picked == 2 * 20 and stored.sliced == 0  # once for centers, once for axes
    rows = fitted(stored)
    assert stored.sliced == 200 and stored.most <= 11
    np.testing.assert_allclose(rows, fit_patches(x)(x), atol=1e-5)


def test_large_images_are_averaged_down():
    x = noise(3, 100, 97, 3)
    small = room._shrunk(x)
    assert small.shape == (3, 34, 33, 3)
    np.testing.assert_allclose(small[1, 2, 5], x[1, 6:9, 15:18].mean((0, 1)) / 255, atol=1e-6)
    np.testing.assert_allclose(small[1, 33, 32], x[1, 99:, 96:].mean((0, 1)) / 255, atol=1e-6)
    assert np.isfinite(extract_features("patches", x)).all()


def test_saved_and_read_again(tmp_path):
    x = noise()
    fitted = fit_patches(x[:20])
    fitted.save(tmp_path / "patches.npz")
    read = Patches.load(tmp_path / "patches.npz")
    assert read.shape == (12, 14, 1)
    np.testing.assert_array_equal(read(x[20:]), fitted(x[20:]))


def test_refuses_files_and_images_that_do_not_fit(tmp_path):
    fitted = fit_patches(noise())
    path = tmp_path / "patches.npz"
    fitted.save(path)
    good = dict(np.load(path))
    for name, wrong in (
        ("centers", good["centers"][:, 1:]),
        ("axes", good["axes"][1:]),
        ("mean", good["mean"].astype(float)),
        ("whiten", np.full_like(good["whiten"], np.nan)),
        ("shape", np.array([12, 14])),
        ("shape", np.array([12, 14, 0])),
        ("mean", np.array([{}])),
    ):
        np.savez(path, **{**good, name: wrong})
        with pytest.raises(DataError, match=r"cannot be read|do not fit together"):
            Patches.load(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        Patches.load(path)
    with pytest.raises(DataError, match=r"cannot be read.*No such file"):
        Patches.load(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"\(N, 12, 14, 1\).*Received: shape=\(30, 14, 12, 1\)"):
        fitted(noise(30, 14, 12))
    with pytest.raises(DataError, match="dtype=float64"):
        fitted(noise().astype(float))


def test_constant_images_are_all_alike():
    rows = extract_features("patches", np.full((5, 8, 8, 1), 7, np.uint8))
    assert rows.shape == (5, 1) and not rows.any()
    assert np.isfinite(extract_features("patches", noise(1))).all()


def test_neighbors_in_real_digits_are_of_one_class_no_less_often_than_by_pixels():
    from tfgraphreg.graph.knn import knn_graph

    data = load_digits()
    x = (data.images[..., None] * 15).astype(np.uint8)

    def agreement(name):
        graph = knn_graph(extract_features(name, x), k=10)
        return (data.target[graph.sources()] == data.target[graph.indices]).mean()

    assert agreement("patches") > max(0.955, agreement("pca") - 0.005)
