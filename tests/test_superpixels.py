"""Masks completed over superpixels, beside loops, scikit-learn and dense algebra."""

import re
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2lab
from sklearn.neighbors import NearestNeighbors

from tfgraphreg import complete_masks
from tfgraphreg.cli import run_command
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.errors import ConfigError, DataError, TFGraphRegError, UnknownNameError
from tfgraphreg.features.superpixels import averaged, superpixels, touching
from tfgraphreg.propagation.masks import superpixel_graph
from tfgraphreg.recipes.complete import kept_pixels
from tfgraphreg.visualize.masks import seed_sheet

SCENES = "scenes:digits?n=24&size=64"


@pytest.fixture(scope="module")
def scenes():
    return load_dataset(SCENES).train


@pytest.fixture(scope="module")
def divided(scenes):
    return superpixels(scenes.images[:6])


def blocks(colors, side=8):
    """One image of flat `side` x `side` blocks, from `[rows, columns, 3]` colors."""
    return np.kron(np.asarray(colors, np.uint8), np.ones((side, side, 1), np.uint8))


def empty(images):
    return np.full(images.shape[:3], 255, np.uint8)


def touching_by_loops(segments):
    pairs = set()
    for y, x in np.ndindex(segments.shape):
        for other in ((y + 1, x), (y, x + 1)):
            if other[0] < segments.shape[0] and other[1] < segments.shape[1]:
                a, b = int(segments[y, x]), int(segments[other])
                if a != b:
                    pairs.add((min(a, b), max(a, b)))
    return sorted(pairs)


def test_superpixels_are_connected_regions_numbered_through_all_images(scenes, divided):
    assert np.unique(divided.segments).tolist() == list(range(len(divided)))
    assert divided.segments.shape == (6, 64, 64)
    start = 0
    for segments in divided.segments:
        assert segments.min() == start
        start = segments.max() + 1
        for number in np.unique(segments):
            inside = segments == number
            assert inside.sum() >= 10 and ndimage.label(inside, np.ones((3, 3)))[1] == 1
    assert len(superpixels(scenes.images[:6], smallest=40)) < len(divided)


def test_borders_are_those_that_loops_find(divided):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 5, (7, 9))
    assert [tuple(pair) for pair in touching(small).tolist()] == touching_by_loops(small)
    found = [tuple(pair) for pair in divided.borders.tolist()]
    expected = [pair for segments in divided.segments for pair in touching_by_loops(segments)]
    assert found == expected


def test_statistics_are_those_of_the_pixels(scenes, divided):
    lab = np.stack([rgb2lab(image) for image in scenes.images[:6]])
    edges = np.stack([ndimage.gaussian_gradient_magnitude(one, 1) for one in lab[..., 0]])
    for number in range(0, len(divided), 17):
        inside = divided.segments == number
        expected = [*lab[inside].mean(0), *lab[inside].std(0), edges[inside].mean()]
        np.testing.assert_allclose(divided.statistics[number], expected, rtol=1e-4, atol=1e-3)


def test_a_gray_image_is_that_of_three_equal_channels(scenes):
    gray = scenes.images[:2, ..., :1]
    one, three = superpixels(gray), superpixels(np.repeat(gray, 3, axis=3))
    np.testing.assert_array_equal(one.segments, three.segments)
    np.testing.assert_array_equal(one.statistics, three.statistics)


def test_maps_of_any_resolution_are_averaged(divided):
    maps = np.random.default_rng(0).normal(size=(6, 16, 32, 3)).astype(np.float32)
    large = maps.repeat(4, axis=1).repeat(2, axis=2)
    found = averaged(maps, divided)
    for number in range(0, len(divided), 23):
        expected = large[divided.segments == number].mean(axis=0)
        np.testing.assert_allclose(found[number], expected, rtol=1e-4, atol=1e-5)


def expected_weights(found, neighbors):
    """`[S, S]` symmetric weights, from the definition and scikit-learn's neighbors."""
    weights = np.zeros((len(found),) * 2)
    for segments in found.segments:
        for a, b in touching_by_loops(segments):
            square = ((found.colors[a].astype(float) - found.colors[b]) ** 2).sum()
            weights[a, b] = max(np.exp(-square / 128), 1e-6)
    if neighbors:
        vectors = (found.statistics - found.statistics.mean(0)) / found.statistics.std(0)
        search = NearestNeighbors(n_neighbors=neighbors).fit(vectors)
        distances, near = search.kneighbors()
        local = np.exp(-4 * distances**2 / distances[:, -1:] ** 2) * 0.05
        for a, row in enumerate(near):
            weights[a, row] = np.maximum(weights[a, row], local[a])
    return np.maximum(weights, weights.T)


@pytest.mark.parametrize("neighbors", [0, 4])
def test_the_graph_joins_what_touches_and_what_is_near(divided, neighbors):
    graph = superpixel_graph(divided, neighbors=neighbors)
    dense = graph.to_scipy().toarray()
    expected = expected_weights(divided, neighbors)
    np.testing.assert_allclose(np.maximum(dense, dense.T), expected, rtol=2e-3, atol=1e-6)
    image = np.zeros(len(divided), int)
    image[divided.segments.reshape(6, -1)] = np.arange(6)[:, None]
    across = image[graph.sources()] != image[graph.indices]
    assert across.any() == bool(neighbors)


def test_the_strongest_contrast_still_joins():
    found = superpixels(blocks([[[0, 0, 0], [255, 255, 255]]])[None])
    assert superpixel_graph(found, neighbors=0).weights.tolist() == [np.float32(1e-6)]


def test_labels_are_those_of_a_dense_solve(scenes):
    images = scenes.images[:6]
    seeds = kept_pixels(scenes.masks[:6], masks=4, pixels_per_class=2, seed=0)
    done = complete_masks(images, seeds, 11, neighbors=4)
    found = superpixels(images)
    weights = expected_weights(found, 4)
    labels = np.full(len(found), -1)
    for number in range(len(found)):
        given = seeds[(found.segments == number) & (seeds != 255)]
        if len(given):
            labels[number] = np.bincount(given).argmax()
    known = labels >= 0
    laplacian = np.diag(weights.sum(1)) - weights
    right = weights[~known][:, known] @ np.eye(11)[labels[known]]
    solved = np.linalg.solve(laplacian[~known][:, ~known], right)
    np.testing.assert_allclose(done.found.scores[~known], solved, atol=2e-3)
    expected = labels.copy()
    expected[~known] = solved.argmax(axis=1)
    # Where two classes are all but equal, float32 weights may decide either way.
    clear = np.ones(len(found), bool)
    clear[~known] = np.diff(np.sort(solved, axis=1)[:, -2:], axis=1)[:, 0] > 5e-3
    assert clear.mean() > 0.9 and (~known).sum() > 100
    free = (seeds == 255) & clear[found.segments]
    np.testing.assert_array_equal(done.masks[free], expected[found.segments][free])
    np.testing.assert_array_equal(done.masks[seeds != 255], seeds[seeds != 255])


def test_seeds_that_disagree_give_the_majority_and_keep_their_label():
    images = blocks([[[200, 30, 30], [30, 30, 200]]])[None]
    seeds = empty(images)
    seeds[0, 0, :3] = 2
    seeds[0, 1, :1] = 1
    seeds[0, 7, 15] = 0
    done = complete_masks(images, seeds, 3, neighbors=0)
    left, right = done.segments[0, 4, 2], done.segments[0, 4, 13]
    assert left != right and done.masks[0, 4, 2] == 2 and done.masks[0, 4, 13] == 0
    assert done.masks[0, 1, 0] == 1
    assert done.confidence[left] == 0.75 and done.confidence[right] == 1
    maps = done.confidence_maps()
    assert maps[0, 4, 2] == 0.75 and maps[0, 1, 0] == 1 and maps.shape == (1, 8, 16)
    seeds[0, 1, :3] = 1  # Three to three: the smaller number.
    assert complete_masks(images, seeds, 3, neighbors=0).masks[0, 4, 2] == 1


def test_an_image_without_seeds_is_reached_through_its_neighbors_alone():
    red, blue, green = [200, 30, 30], [30, 30, 200], [30, 180, 30]
    images = np.stack([blocks([[red, blue, green]]), blocks([[green, red, blue]])])
    seeds = empty(images)
    for value, column in enumerate((3, 11, 19)):
        seeds[0, 4, column] = value
    alone = complete_masks(images, seeds, 3, neighbors=0)
    assert (alone.masks[1] == 255).all() and (alone.confidence_maps()[1] == 0).all()
    joined = complete_masks(images, seeds, 3, neighbors=1)
    assert joined.masks[1, 4, [3, 11, 19]].tolist() == [2, 0, 1]
    assert (joined.masks != 255).all() and (joined.confidence_maps()[1, 4, [3, 11, 19]] > 0).all()


def test_vectors_of_the_caller_decide_who_is_near():
    left, right = [200, 30, 30], [30, 30, 200]
    images = np.stack([blocks([[left, right]]), blocks([[left, right]])])
    seeds = empty(images)
    seeds[0, 4, 3], seeds[0, 4, 11] = 0, 1
    assert complete_masks(images, seeds, 2, neighbors=1).masks[1, 4, [3, 11]].tolist() == [0, 1]
    crossed = np.array([[[[0.0], [5.0]]], [[[5.0], [0.0]]]])
    found = complete_masks(images, seeds, 2, neighbors=1, features=crossed)
    assert found.masks[1, 4, [3, 11]].tolist() == [1, 0]


def test_a_single_superpixel_has_no_neighbor():
    images = np.full((1, 8, 8, 3), 90, np.uint8)
    seeds = empty(images)
    seeds[0, 0, 0] = 1
    assert (complete_masks(images, seeds, 2).masks == 1).all()


def test_no_matrix_of_all_pairs(scenes):
    seeds = kept_pixels(scenes.masks, masks=None, pixels_per_class=1, seed=0)
    size = complete_masks(scenes.images, seeds, 11).graph.num_nodes
    tracemalloc.start()
    complete_masks(scenes.images, seeds, 11)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Half of such a matrix in float64.
    assert size > 1500 and peak < size**2 * 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "at least one image"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "uint8"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8).tolist()}, "uint8"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "of the size of the images"),
        ({"seeds": np.zeros((2, 8, 9), np.uint8)}, "of the size of the images"),
        ({"seeds": np.zeros((2, 8, 8), np.int64)}, "uint8 of the size"),
        ({"seeds": np.full((2, 8, 8), 255, np.uint8)}, "No pixel is labeled"),
        ({"seeds": np.full((2, 8, 8), 3, np.uint8)}, "from 0 to 2"),
        ({"num_classes": 1}, "`num_classes`"),
        ({"num_classes": 256}, "`num_classes`"),
        ({"neighbors": -1}, "`neighbors`"),
        ({"superpixel_size": 0}, "at least one pixel"),
        ({"features": np.zeros((1, 4, 4, 2))}, "one for each image"),
        ({"features": np.full((2, 4, 4, 2), np.nan)}, "finite"),
        ({"method": "poisson-mbo"}, "which masks do not have"),
        ({"features": np.zeros((2, 4, 4, 2)), "neighbors": 0}, "only with neighbors"),
        ({"method": "poison"}, "Did you mean poisson"),
        ({"alpha": 0.5}, "no setting 'alpha'"),
    ],
)
def test_refuses(change, says):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    seeds = empty(images)
    seeds[0, 0, 0] = 1
    given = {"images": images, "seeds": seeds, "num_classes": 3, **change}
    with pytest.raises((DataError, ConfigError, UnknownNameError, TFGraphRegError), match=says):
        complete_masks(**given)


def share_right(scenes, seeds, masks):
    counted = seeds == 255
    return (masks == scenes.masks)[counted].mean()


def test_on_scenes_it_is_better_than_the_nearest_seed_and_than_each_image_alone(scenes):
    seeds = kept_pixels(scenes.masks, masks=None, pixels_per_class=1, seed=0)
    done = complete_masks(scenes.images, seeds, 11)
    np.testing.assert_array_equal(done.masks, complete_masks(scenes.images, seeds, 11).masks)
    nearest = np.empty_like(seeds)
    for place, given in enumerate(seeds):
        where = ndimage.distance_transform_edt(
            given == 255, return_distances=False, return_indices=True
        )
        nearest[place] = given[tuple(where)]
    alone = complete_masks(scenes.images, seeds, 11, neighbors=0)
    right = [share_right(scenes, seeds, masks) for masks in (nearest, alone.masks, done.masks)]
    assert right[0] + 0.1 < right[1] and right[1] + 0.03 < right[2] and right[2] > 0.8, right
    # What it is sure of is right more often.
    free = seeds == 255
    sure = done.confidence_maps() > np.median(done.confidence_maps()[free])
    hit = done.masks == scenes.masks
    assert hit[free & sure].mean() > hit[free & ~sure].mean()


def test_what_is_kept_of_masks(scenes):
    masks = scenes.masks.copy()
    masks[3, :10] = 255
    masks[5] = 255
    kept = kept_pixels(masks, masks=None, pixels_per_class=3, seed=1)
    for true, given in zip(masks, kept):
        assert set(np.unique(given)) - {255} == set(np.unique(true)) - {255}
        assert (given == true)[given != 255].all()
        assert all((given == value).sum() == 3 for value in set(np.unique(given)) - {255})
    np.testing.assert_array_equal(
        kept[:4], kept_pixels(masks[:4], masks=None, pixels_per_class=3, seed=1)
    )
    assert (kept != kept_pixels(masks, masks=None, pixels_per_class=3, seed=2)).any()
    whole = kept_pixels(masks, masks=4, pixels_per_class=None, seed=1)
    having = (whole != 255).any(axis=(1, 2))
    assert having.sum() == 4 and not having[5]
    np.testing.assert_array_equal(whole[having], masks[having])
    both = kept_pixels(masks, masks=4, pixels_per_class=3, seed=1)
    np.testing.assert_array_equal(both, np.where(having[:, None, None], kept, 255))
    with pytest.raises(ConfigError, match="smaller than the number"):
        kept_pixels(masks, masks=23, pixels_per_class=None, seed=1)
    assert (kept_pixels(masks, masks=23, pixels_per_class=1, seed=1) != 255).any()


def test_the_figure_shows_what_was_given_and_what_is_wrong():
    images = np.full((2, 6, 6, 3), 100, np.uint8)
    true = np.zeros((2, 6, 6), np.uint8)
    true[:, :3] = 1
    seeds = np.full_like(true, 255)
    seeds[0, 0, 0], seeds[0, 5, 3] = 1, 0
    found = true.copy()
    found[0, 0, 1] = 0
    sheet = seed_sheet(images, seeds, found, true, ["background", "a"])
    titles = [axes.get_title() for axes in sheet.axes]
    assert titles[:4] == ["image", "2 given pixels", "completed, 97.1% right", "true"]
    assert titles[4:7] == ["image", "0 given pixels", "completed, 100.0% right"]
    dots = sheet.axes[1].collections[0]
    assert dots.get_offsets().tolist() == [[1.5, 1.5], [13.5, 21.5]]
    shown = np.asarray(sheet.axes[2].images[0].get_array())
    plain = np.asarray(sheet.axes[3].images[0].get_array())
    changed = (shown != plain).any(axis=-1)
    assert {0, 255} <= set(shown[:4, 4:8].ravel().tolist()) and changed[:4, 4:8].any()
    # The areas beside the wrong pixel have an outline there.
    changed[:5, 3:9] = False
    assert not changed.any()
    many = seed_sheet(images[:1], true[:1], true[:1], true[:1], ["background", "a"])
    assert many.axes[1].collections and many.axes[2].get_title() == "completed"


@pytest.mark.usefixtures("workplace")
def test_the_command_writes_masks_and_a_figure_and_says_what_is_right(capsys, scenes):
    import os

    words = ["--task", "segment", "--dataset", SCENES, "--pixels-per-class", "1"]
    assert run_command("propagate", [*words, "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert sorted(os.listdir("masks")) == ["masks.npz", "masks.png", "masks.svg"]
    with np.load("masks/masks.npz") as file:
        found = dict(file)
    seeds = kept_pixels(scenes.masks, masks=None, pixels_per_class=1, seed=1)
    np.testing.assert_array_equal(found["seeds"], seeds)
    assert found["ids"].tolist() == scenes.ids.tolist()
    assert found["names"].tolist() == ["background", *"0123456789"]
    assert found["confidence"].shape == seeds.shape and found["confidence"].max() == 1
    expected = complete_masks(scenes.images, seeds, 11)
    np.testing.assert_array_equal(found["masks"], expected.masks)
    right = share_right(scenes, seeds, found["masks"])
    assert f"right: {right:.1%} of the {(seeds == 255).sum():,} pixels" in said
    assert f"{(seeds != 255).sum():,} pixels of 24 of 24 images given" in said
    other = [*words, "--seed", "1", "--graph-neighbors", "3", "--superpixel-size", "30"]
    other += ["--method", "spreading", "--method-settings", "alpha=0.9", "--masks", "20"]
    assert run_command("propagate", [*other, "--out", "other"]) == 0
    with np.load("other/masks.npz") as file:
        few = dict(file)
    assert (few["seeds"] != 255).any(axis=(1, 2)).sum() == 20
    expected = complete_masks(
        scenes.images,
        few["seeds"],
        11,
        neighbors=3,
        superpixel_size=30,
        method="spreading",
        alpha=0.9,
    )
    np.testing.assert_array_equal(few["masks"], expected.masks)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "nothing to propagate.*--masks.*--pixels-per-class"),
        (("--masks", "0"), "--masks` must be at least 1"),
        (("--pixels-per-class", "0"), "--pixels-per-class` must be at least 1"),
        (("--masks", "24"), "--masks` must be smaller"),
        (("--masks", "2", "--superpixel-size", "0"), "--superpixel-size` must be at least 1"),
        (("--masks", "2", "--class-sizes", "equal"), "--class-sizes` has an effect only with"),
        (("--masks", "2", "--graph-features", "pixels"), "--graph-features` has an effect only"),
        (("--masks", "2", "--graph-weights", "cosine"), "--graph-weights` has an effect only"),
        (("--masks", "2", "--labels-per-class", "2"), "--labels-per-class` has an effect only"),
        (("--masks", "2", "--image-size", "32"), "--image-size` has an effect only"),
        (("--masks", "2", "--symmetrize"), "--symmetrize` has an effect only"),
        (("--masks", "2", "--graph-neighbors", "0"), "--graph-neighbors.*at least 1"),
        (("--masks", "2", "--method", "poisson-mbo"), "needs to know the class sizes"),
        (("--masks", "2", "--method", "spread"), "Did you mean spreading"),
        (("--masks", "2", "--method-settings", "alpha=0.5"), "no setting 'alpha'"),
        (("--masks", "2", "--method-settings", "masks=3"), "no setting 'masks'"),
        (("--masks", "2", "--method-settings", "seed=3"), "no setting 'seed'"),
        (("--masks", "2", "--dataset", "digits"), "have no masks"),
        (("--masks", "2", "--out", "file"), "must name a folder"),
        (("--task", "segmant"), "Did you mean segment"),
        (("--task", "classify", "--masks", "2"), "--masks` has an effect only with `--task segme"),
        (("--task", "classify", "--pixels-per-class", "2"), "--pixels-per-class` has an effect"),
        (("--task", "classify", "--superpixel-size", "9"), "--superpixel-size` has an effect"),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(capsys, words, says):
    import os
    import pathlib

    pathlib.Path("file").write_text("mine")
    assert run_command("propagate", ["--task", "segment", "--dataset", SCENES, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(says, lines[0]), lines
    assert pathlib.Path("file").read_text() == "mine"
    assert set(os.listdir()) <= {"file", "cache"}
