import time

import numpy as np
import pytest
from scipy import ndimage, stats

from tfgraphreg.errors import DataError, UnknownNameError
from tfgraphreg.features import FEATURES, Feature, extract_features
from tfgraphreg.features.color import color_histograms, histograms
from tfgraphreg.features.pixels import fit_pca
from tfgraphreg.features.sequence import sequence_graph_transform
from tfgraphreg.features.shape import hog, hu
from tfgraphreg.features.texture import gabor, glcm, lbp


def images(n=20, h=16, w=16, c=1, seed=0):
    values = np.random.default_rng(seed).uniform(size=(n, h, w, c))
    smooth = ndimage.gaussian_filter(values, (0, 2, 2, 0))
    low, high = smooth.min((1, 2, 3), keepdims=True), smooth.max((1, 2, 3), keepdims=True)
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(FEATURES))
@pytest.mark.parametrize("size", [(16, 16, 1), (28, 20, 3), (5, 4, 1)])
def test_every_feature_is_finite_repeatable_and_treats_images_alone(name, size):
    x = np.concatenate([images(20, *size), np.zeros((2, *size), np.uint8)])
    rows = extract_features(name, x)
    assert rows.dtype == np.float32 and len(rows) == 22 and np.isfinite(rows).all()
    np.testing.assert_array_equal(rows, extract_features(name, x))
    np.testing.assert_allclose(rows[3:9], extract_features(name, x[3:9], fit=x), atol=1e-5)


def test_pca_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    x = images(50)
    rows = extract_features("pca", x)
    reference = PCA(49).fit_transform(x.reshape(50, -1) / 255.0)
    assert rows.shape == (50, 49)
    # The last axes carry almost nothing; signs are free.
    np.testing.assert_allclose(np.abs(rows[:, :20]), np.abs(reference[:, :20]), atol=1e-4)
    few = fit_pca(x, 0, components=5)
    np.testing.assert_allclose(few.axes.T @ few.axes, np.eye(5), atol=1e-5)


def test_pca_of_wide_images_by_a_sample():
    x = images(40, 40, 40, 3)  # 4800 pixels
    rows = extract_features("pca", x, seed=3)
    np.testing.assert_array_equal(rows, extract_features("pca", x, seed=3))
    centered = x.reshape(40, -1) / 255.0
    centered -= centered.mean(0)
    # All 39 components keep all distances.
    np.testing.assert_allclose(rows @ rows.T, centered @ centered.T, atol=1e-2)


@pytest.mark.parametrize("kappa", [1.0, 5.0, 10.0])
@pytest.mark.parametrize("length_sensitive", [False, True])
def test_sgt_equals_the_package(kappa, length_sensitive):
    sgt = pytest.importorskip("sgt.sgt", reason="sgt and pandas are the reference")
    sequences = np.random.default_rng(0).integers(0, 5, size=(6, 60))
    sequences[1] = 2
    sequences[2, 1:] = 4
    mine = sequence_graph_transform(sequences, 5, kappa=kappa, length_sensitive=length_sensitive)
    theirs = sgt.SGT(alphabets=list(range(5)), kappa=kappa, lengthsensitive=length_sensitive)
    for row, sequence in zip(mine, sequences):
        np.testing.assert_allclose(row, np.asarray(theirs.fit(sequence)), atol=1e-6)


def test_sgt_is_a_hundred_times_faster_than_the_package():
    sgt = pytest.importorskip("sgt.sgt", reason="sgt and pandas are the reference")
    sequences = np.random.default_rng(0).integers(0, 8, size=(500, 784))
    start = time.perf_counter()
    sequence_graph_transform(sequences, 8)
    mine = (time.perf_counter() - start) / 500
    start = time.perf_counter()
    sgt.SGT(alphabets=list(range(8)), kappa=1).fit(sequences[0])
    assert time.perf_counter() - start > 100 * mine


def test_lbp_against_loops():
    values = images(3)[..., 0] / 255.0
    ring = [(np.round(-np.sin(a), 5), np.round(np.cos(a), 5)) for a in np.arange(8) * np.pi / 4]
    for row, image in zip(lbp(values), np.round(values * 255).astype(np.uint8)):
        counts = np.zeros(10)
        for i in range(16):
            for j in range(16):
                bits = [
                    int(
                        ndimage.map_coordinates(
                            image.astype(float), [[i + a], [j + b]], order=1, mode="grid-constant"
                        )[0]
                        >= image[i, j] - 1e-9
                    )
                    for a, b in ring
                ]
                changes = sum(bits[p] != bits[p - 1] for p in range(1, 8))
                changes_around = changes + (bits[0] != bits[-1])
                counts[sum(bits) if changes_around <= 2 else 9] += 1
        # Interpolated points that tie with the center may fall on either side.
        assert np.abs(row * 256 - counts).sum() <= 16
        assert row.sum() == pytest.approx(1)


def test_glcm_against_loops():
    image = images(1)[0, ..., 0] / 255.0
    levels = np.minimum((image * 8).astype(int), 7)
    contrast = []
    for dr, dc in ((0, 1), (1, 1), (1, 0), (1, -1)):
        pairs = [
            (levels[i, j] - levels[i + dr, j + dc]) ** 2
            for i in range(16 - dr)
            for j in range(max(0, -dc), 16 - max(0, dc))
        ]
        contrast.append(np.mean(pairs))
    assert glcm(image[None])[0, 0] * 49 == pytest.approx(np.mean(contrast))


def test_gabor_against_spatial_convolution():
    from skimage.filters import gabor_kernel

    image = images(1, 32, 32)[0, ..., 0] / 255.0
    kernel = gabor_kernel(0.4, theta=np.pi / 4)
    centered = image - image.mean()
    parts = (ndimage.convolve(centered, k, mode="wrap") for k in (kernel.real, kernel.imag))
    size = np.hypot(*parts)
    found = gabor(image[None])[0]
    np.testing.assert_allclose(found[18:20], [size.mean(), size.std()], rtol=1e-6)


def test_hog_against_a_plain_histogram_of_one_cell():
    image = images(1)[0, ..., 0] / 255.0
    found = hog(image[None])[0]
    assert found.shape == (324,)
    dr, dc = np.zeros((16, 16)), np.zeros((16, 16))
    dr[1:-1], dc[:, 1:-1] = image[2:] - image[:-2], image[:, 2:] - image[:, :-2]
    size, angle = np.hypot(dr, dc), np.rad2deg(np.arctan2(dr, dc)) % 180
    cells = np.zeros((4, 4, 9))
    for i in range(16):
        for j in range(16):
            cells[i // 4, j // 4, int(angle[i, j] // 20) % 9] += size[i, j] / 16
    block = cells[:2, :2].ravel()
    block = block / np.sqrt((block**2).sum() + 1e-10)
    block = np.minimum(block, 0.2)
    block = block / np.sqrt((block**2).sum() + 1e-10)
    np.testing.assert_allclose(found[:36], block, atol=1e-5)


def test_hu_moments_stay_under_rotation_and_shift():
    image = np.zeros((24, 24))
    image[5:15, 6:10] = 0.7
    image[5:8, 10:14] = 0.4
    moved = np.roll(np.rot90(image), (3, -2), (0, 1))
    np.testing.assert_allclose(hu(image[None]), hu(moved[None]), atol=1e-6)
    assert np.abs(hu(image[None])).max() > 0.1


def test_color_histograms():
    values = np.random.default_rng(0).uniform(size=(4, 100))
    for row, value in zip(histograms(values, 16, 0, 1), values):
        np.testing.assert_allclose(row, np.histogram(value, 16, (0, 1))[0] / 100)
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    row = color_histograms(red)[0].reshape(9, 16)
    np.testing.assert_allclose(row.sum(1), 1)
    assert row.argmax(1).tolist() == [15, 0, 0, 0, 15, 15, 8, 13, 12]
    # Lab of pure red: L 53, a 80, b 67.


class Sliced:
    """Images that only answer slices, as a store on disk does."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.longest = array, array.shape, array.dtype, 0

    def __len__(self):
        return len(self._array)

    def __getitem__(self, where):
        assert isinstance(where, slice)
        part = self._array[where]
        self.longest = max(self.longest, len(part))
        return part


def test_reads_in_blocks_with_progress_and_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tfgraphreg.features.registry._BLOCK_BYTES", 2000)
    x, calls, computed = images(50), [], []
    counted = Feature("counted", lambda b, _: computed.append(1) or b.reshape(len(b), -1) / 2.0)
    monkeypatch.setitem(FEATURES._records, "counted", counted)
    lazy = Sliced(x)

    def run(key):
        return extract_features(
            "counted",
            lazy,
            progress=lambda *a: calls.append(a),
            cache_dir=tmp_path,
            fingerprint_key=key,
        )

    first = run("one")
    assert lazy.longest <= 8 and calls[-1] == ("features counted", 50, 50)
    blocks = len(computed)
    np.testing.assert_array_equal(first, run("one"))
    assert len(computed) == blocks
    run("two")
    assert len(computed) == 2 * blocks
    for path in tmp_path.iterdir():  # damaged results are made again
        path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(first, run("one"))
    np.testing.assert_array_equal(extract_features("pca", Sliced(x)), extract_features("pca", x))


def test_processes_give_the_same_rows():
    x = images(2100, 8, 8)
    one, two = (extract_features("shape", x, workers=w) for w in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_features_tell_classes_of_real_digits_apart():
    from sklearn.datasets import load_digits

    from tfgraphreg.graph.knn import knn_graph

    data = load_digits()
    x = (data.images[:600, ..., None] * 15).astype(np.uint8)
    y = data.target[:600]
    for name, least in (("pixels", 0.9), ("pca", 0.85), ("shape", 0.8), ("global", 0.7)):
        graph = knn_graph(extract_features(name, x, workers=1), k=5)
        assert (y[graph.sources()] == y[graph.indices]).mean() > least
    assert stats.entropy(np.bincount(y)) > 2


def test_bad_input():
    with pytest.raises(UnknownNameError, match=r"Unknown graph feature\..*Did you mean texture"):
        extract_features("textures", images())
    with pytest.raises(DataError, match=r"uint8 of the shape \[N, height, width, 1 or 3\]"):
        extract_features("pixels", images().astype(np.float32))
    with pytest.raises(DataError, match=r"shape=\(20, 16, 16\)"):
        extract_features("pixels", images()[..., 0])
    with pytest.raises(DataError, match=r"no image"):
        extract_features("pixels", images()[:0])


def test_auto_is_patches_or_pca_of_tiny_images_and_shares_their_cache(tmp_path):
    for size, name in (((16, 16, 1), "patches"), ((6, 9, 3), "patches"), ((5, 9, 1), "pca")):
        x = images(20, *size)
        options = {"cache_dir": tmp_path, "fingerprint_key": name}
        np.testing.assert_array_equal(
            extract_features("auto", x, **options), extract_features(name, x, **options)
        )
    assert len(list(tmp_path.glob("features-p*.npy"))) == len(list(tmp_path.iterdir())) == 3
