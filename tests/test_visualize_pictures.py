"""Figures say what the arrays say; files for TensorBoard's projector hold it too."""

import io

import numpy as np
import pytest
from PIL import Image

from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import DataError
from tfgraphreg.visualize import figures, grids, style
from tfgraphreg.visualize.projector import sprite_image, write_projector
from tfgraphreg.visualize.scatter import scatter
from tfgraphreg.visualize.thumbnails import thumbnails

NAMES = ["shirt", "bag", "boot"]


def _images(n, size=6, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)


def _texts(figure):
    return [axes.get_xlabel() for axes in figure.axes]


def test_bars_have_the_length_of_the_counts():
    splits = {"train": np.array([0, 0, 2, -1]), "test": np.array([[1, 1, 0], [0, 1, 0]])}
    axes = figures.class_distribution(splits, NAMES).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [2, 0, 1, 1, 1, 2, 0, 0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [*NAMES, "unlabeled"]
    axes = figures.class_distribution({"train": np.array([0, 2])}, NAMES).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == NAMES


def test_neighbors_without_a_label_are_neither_right_nor_wrong():
    labels = np.array([0, 0, 1, -1])
    drawn = grids.retrieval_grid(
        _images(2), np.array([0, -1]), _images(4), labels, np.array([[1, 2, 3]] * 2), NAMES
    )
    rows = [*("shirt", "shirt", "✗ bag", "unlabeled"), *("unlabeled", "shirt", "bag", "unlabeled")]
    assert _texts(drawn) == rows
    framed = [axes.spines["left"].get_visible() for axes in drawn.axes]
    assert framed == [False, True, True, False] + 4 * [False]
    several = np.array([[1, 0, 0], [1, 1, 0], [-1, -1, -1]])
    drawn = grids.neighbor_comparison(
        _images(3), several, np.array([0]), [np.array([1, 2])], [np.array([2])], NAMES, count=2
    )
    assert [text for text in _texts(drawn) if text] == [
        *("shirt", "shirt, bag", "unlabeled", "unlabeled")
    ]


def test_a_page_of_no_mistakes_is_a_sentence():
    drawn = grids.worst_mistakes(_images(3), np.array([0, 1, -1]), np.eye(3), NAMES)
    assert not drawn.axes and drawn.get_figheight() < 1
    assert [text.get_text() for text in drawn.texts] == ["No mistakes among 2 labeled images"]


def test_a_confusion_matrix_shows_its_counts_and_must_be_square():
    figure = figures.confusion_matrix(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 5]]), NAMES)
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "5"]
    with pytest.raises(DataError, match="one row and one column for each class"):
        figures.confusion_matrix(np.eye(2), NAMES)


def test_curves_show_training_and_validation():
    history = [{"epoch": e, "loss": 1 / (e + 1), "val_loss": 1.0, "accuracy": e} for e in range(3)]
    loss, accuracy = figures.learning_curves(history).axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1, 1 / 2, 1 / 3])
    assert len(accuracy.lines) == 1


def test_the_share_of_distortions_ends_at_one():
    line = figures.distortion_cdf({"a": np.array([3.0, 1.0])}).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [1, 3])
    np.testing.assert_allclose(line.get_ydata(), [0.5, 1])


def test_worst_mistakes_are_the_surest_first():
    probabilities = np.array([[0.6, 0.4, 0], [0.9, 0.1, 0], [0, 1, 0], [0.8, 0.2, 0]])
    figure = grids.worst_mistakes(_images(4), np.array([1, 1, 1, -1]), probabilities, NAMES)
    assert [text for text in _texts(figure) if text] == [
        "is bag\nsaid shirt\n(90% sure)",
        "is bag\nsaid shirt\n(60% sure)",
    ]


def test_retrieval_marks_right_and_wrong_by_more_than_color():
    figure = grids.retrieval_grid(
        _images(1), np.array([0]), _images(3), np.array([0, 1, 2]), np.array([[2, 0]]), NAMES
    )
    assert _texts(figure) == ["shirt", "✗ boot", "shirt"]
    frames = [axes.spines["top"].get_edgecolor()[:3] for axes in figure.axes[1:]]
    assert frames[0] != frames[1]


def test_graph_and_embedding_neighbors_stand_side_by_side():
    figure = grids.neighbor_comparison(
        _images(4),
        np.array([0, 0, 1, 2]),
        np.array([0]),
        [np.array([1])],
        [np.array([2, 3])],
        NAMES,
        count=2,
    )
    assert [text for text in _texts(figure) if text] == ["shirt", "shirt", "✗ bag", "✗ boot"]


def test_boxes_are_drawn_where_they_are():
    figure = grids.boxed_images(
        _images(1, 20, 3), [np.array([[2.0, 3, 10, 15]])], [np.array([1])], NAMES
    )
    box = figure.axes[0].patches[0]
    assert box.get_xy() == (1.5, 2.5) and (box.get_width(), box.get_height()) == (8, 12)
    assert figure.axes[0].texts[0].get_text() == "bag"


def test_pairs_need_captions():
    assert "a" in _texts(grids.image_pairs(_images(3), [[0, 2]], ["a"]))
    with pytest.raises(DataError, match="Every pair needs a caption"):
        grids.image_pairs(_images(3), [[0, 2]], [])


@pytest.mark.parametrize("width", [2, 3])
def test_every_point_of_an_embedding_is_drawn_in_its_class(width):
    points = np.random.default_rng(0).normal(size=(30, width))
    labels = np.arange(30) % 4 - 1
    figure = scatter({"a": points, "b": points}, labels, NAMES, new=labels == 0)
    assert len(figure.axes) == 2
    drawn = [part.get_offsets() for part in figure.axes[0].collections]
    assert sum(len(part) for part in drawn[:4]) == 30
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["unlabeled", *NAMES, "new"]
    with pytest.raises(DataError, match="one label each"):
        scatter({"a": points}, labels[:3], NAMES)


def test_figures_are_saved_as_png_and_svg_of_page_width_alike_each_time(tmp_path):
    figure = figures.class_distribution({"train": np.array([0, 1])}, NAMES)
    png, svg = style.save(figure, tmp_path / "a")
    again = style.save(figure, tmp_path / "b.png")
    assert Image.open(png).width == style.PAGE_WIDTH * 150
    assert svg.read_bytes() == again[1].read_bytes() and b"<svg" in svg.read_bytes()


def test_a_figure_does_not_depend_on_the_last_digits_of_its_layout(tmp_path):
    written = []
    for number, shift in enumerate((0.0, 1e-12)):
        with style.figure(height=2) as made:
            made.set_layout_engine("none")
            axes = made.add_axes((0.1 + shift, 0.1, 0.5, 0.5 + shift))
            axes.plot([1, 2])
            made.suptitle("a", x=0.3 + shift)
        written.append(style.save(made, tmp_path / str(number))[1].read_bytes())
    assert written[0] == written[1]


def test_colors_differ_for_every_kind_of_color_vision():
    # Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
    kinds = {
        "normal": np.eye(3),
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritan": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    from skimage.color import deltaE_ciede2000, rgb2lab

    hexes = [style.RIGHT, style.WRONG]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in hexes])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for name, matrix in kinds.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        seen = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
        right, wrong = rgb2lab(seen[None])[0]
        assert deltaE_ciede2000(right, wrong) > 15, name


def test_objects_and_boxes_of_a_dataset_are_drawn():
    from tfgraphreg.recipes.figures import _object_pictures

    def split(n):
        extras = {
            "boxes": np.tile(np.array([[0.1, 0.2, 0.5, 0.6], [0, 0, 0, 0]], np.float32), (n, 1, 1)),
            "box_classes": np.tile([[2, -1]], (n, 1)),
        }
        return Split(_images(n, 10, 3), np.ones((n, 3), np.int8), np.arange(n).astype(str), extras)

    data = Dataset("voc", split(4), split(0), split(2), tuple(NAMES), "a test", "0")
    made = dict(_object_pictures(data))
    bars = made["objects_per_class"].axes[0].patches
    assert [bar.get_width() for bar in bars] == [0, 0, 4, 0, 0, 2]
    box = made["boxes"].axes[0].patches[0]
    assert box.get_xy() == pytest.approx((1.5, 0.5)) and box.get_width() == pytest.approx(4)


@pytest.mark.parametrize("shape", [(7, 5), (1, 40), (40, 1), (33, 64)])
def test_thumbnails_keep_the_mean_and_fit(shape):
    images = np.full((3, *shape, 3), 77, np.uint8)
    small = thumbnails(images, most=8)
    assert max(small.shape[1:3]) <= 8 and min(small.shape[1:3]) >= 1
    assert small.dtype == np.uint8 and (small == 77).all()
    assert thumbnails(images[:0], most=8).shape[0] == 0
    with pytest.raises(DataError, match="uint8"):
        thumbnails(images.astype(float), most=8)


def test_projector_files_hold_everything(tmp_path):
    embedding = np.arange(15.0).reshape(5, 3)
    images = _images(5, 4, 3)
    metadata = {"class": ["a", "b\tc", "d", "e", "f"], "id": range(5)}
    path = write_projector(tmp_path, embedding, metadata=metadata, images=images)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "embedding.tsv"), embedding)
    rows = (tmp_path / "embedding_metadata.tsv").read_text().splitlines()
    assert rows[:3] == ["class\tid", "a\t0", "b c\t1"]
    sheet = np.asarray(Image.open(tmp_path / "embedding_sprite.png"))
    np.testing.assert_array_equal(sheet[4:8, 0:4], images[3])
    text = path.read_text()
    assert 'tensor_path: "embedding.tsv"' in text and text.count("single_image_dim: 4") == 2
    # One column has no header, by the projector's own rule.
    write_projector(tmp_path / "b", embedding, metadata={"class": list("abcde")})
    assert (tmp_path / "b" / "embedding_metadata.tsv").read_text() == "a\nb\nc\nd\ne\n"


def test_sprites_shrink_to_what_a_browser_takes():
    sheet, tile = sprite_image(np.full((4, 200, 100, 1), 9, np.uint8), items=4)
    assert tile[0] <= 64 and max(sheet.shape) <= 8192 and (sheet == 9).all()


def test_projector_input_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(DataError, match="one image for each item"):
        write_projector(tmp_path, np.ones((3, 2)), images=_images(2))
    with pytest.raises(DataError, match="one value for each item"):
        write_projector(tmp_path, np.ones((3, 2)), metadata={"class": ["a"]})


def test_pictures_do_not_touch_the_state_of_matplotlib():
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    buffer = io.BytesIO()
    figures.class_distribution({"train": np.array([0])}, NAMES).savefig(buffer, format="png")
    assert dict(matplotlib.rcParams) == before and not plt.get_fignums()


def test_flat_points_stand_in_a_cube_with_one_scale():
    points = np.random.default_rng(0).normal(size=(20, 3)) * [9.0, 4.0, 0.01]
    (axes,) = scatter({"raw pixels": points}, np.zeros(20, int), ["a"]).axes
    limits = np.array([axes.get_xlim(), axes.get_ylim(), axes.get_zlim()])
    np.testing.assert_allclose(np.ptp(limits, axis=1), np.ptp(limits[0]))
    assert (limits[:, 0] < points.min(axis=0)).all() and (points.max(axis=0) < limits[:, 1]).all()
    width, depth, height = axes._box_aspect
    assert width == depth == height


def test_a_dollar_in_the_name_of_a_class_is_a_dollar(tmp_path):
    made = figures.bars_by_class({"$x$": 0.5, "b": 1.0}, notes=["", ""], title="a $x^ b$")
    style.save(made, tmp_path / "bars.png")
    content = (tmp_path / "bars.svg").read_text()
    assert ">$x$</text>" in content and ">a $x^ b$</text>" in content
