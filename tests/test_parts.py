"""Runs of boxes and masks in the commands about runs: predict, evaluate, compare, search."""

import csv
import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import cli
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.compat import tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import DataError, RunError
from tfgraphreg.evaluation.average_precision import detection_report
from tfgraphreg.export import BoxPredictor, Detection, export
from tfgraphreg.model.classifier import build_classifier
from tfgraphreg.recipes import items
from tfgraphreg.recipes.detect import find_boxes
from tfgraphreg.recipes.evaluate import evaluate_run
from tfgraphreg.recipes.find import _picture as picture_of
from tfgraphreg.recipes.find import search_run
from tfgraphreg.recipes.train import train
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.runs.run import read_finished
from tfgraphreg.visualize.overlays import box_picture, mask_picture
from tfgraphreg.visualize.search import Found

SCENES = "scenes:digits?n=48&test=8&size=32"
# Boxes of a detector that has hardly learned have low scores.
ALL = ["--least-score", "0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small run of boxes and one of masks, in the folder that the tests work in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("parts"))
        patch.setenv("TFGRAPHREG_CACHE", "cache")
        found = {
            task: train(
                TrainConfig(
                    dataset=SCENES,
                    task=task,
                    epochs=1,
                    batch_size=8,
                    min_steps=80,
                    embedding_dim=8,
                    run_dir=f"runs/{task}",
                    export_dir=f"models/{task}",
                )
            )
            for task in ("detect", "segment")
        }
        backbone = build_backbone("fcnn", input_shape=(32, 32, 3))
        model = build_classifier(backbone, embedding_dim=4, num_classes=2)
        export(model, "models/classify", class_names=("a", "b"))
        yield found


@pytest.fixture(scope="module")
def photo(runs):
    """A file of three times the width and twice the height of the model's images, in color."""
    image = load_dataset(SCENES).test.images[0]
    pathlib.Path("photos/other").mkdir(parents=True)
    Image.fromarray(image).resize((96, 64)).save("photos/a.png")
    Image.fromarray(image).resize((50, 40)).convert("L").save("photos/other/a.png")
    pathlib.Path("photos/bad.jpg").write_text("no image")
    return "photos/a.png"


def command(*words):
    return cli.run_command(words[0], [str(word) for word in words[1:]])


def test_boxes_are_in_pixels_of_the_file(runs, photo):
    predictor = runs["detect"].predictor
    answer = predictor(predictor.read(photo)[None])
    count = answer["count"][0]
    (found,) = predictor.predict_files([photo], least_score=0)
    assert found.size == (64, 96) and len(found.detections) == count > 0
    expected = answer["boxes"][0, :count] * [3, 2, 3, 2]
    np.testing.assert_allclose([each.box for each in found.detections], expected, rtol=1e-6)
    names = [predictor.class_names[c] for c in answer["classes"][0, :count]]
    assert [each.class_name for each in found.detections] == names
    scores = [each.score for each in found.detections]
    assert scores == sorted(scores, reverse=True)
    (some,) = predictor.predict_files([photo], least_score=scores[count // 2])
    assert len(some.detections) == sum(score >= scores[count // 2] for score in scores)
    gray, bad = predictor.predict_files(["photos/other/a.png", "photos/bad.jpg"])
    assert gray.size == (40, 50) and gray.error is None
    assert "is no image that can be read" in bad.error


def test_masks_have_the_size_of_the_file(runs, photo):
    predictor = runs["segment"].predictor
    small = predictor(predictor.read(photo)[None])
    (found,) = predictor.predict_files([photo])
    assert found.mask.shape == (64, 96) and found.mask.dtype == np.uint8
    large = tf.image.resize(small["probabilities"][0], (64, 96)).numpy()
    assert (large.argmax(-1) == found.mask).mean() > 0.999
    counts = {predictor.mask_names[v]: (found.mask == v).mean() for v in np.unique(found.mask)}
    assert dict(found.shares) == pytest.approx(counts)
    assert [share for _, share in found.shares] == sorted(counts.values(), reverse=True)
    image = load_dataset(SCENES).test.images[1]
    np.testing.assert_array_equal(predictor.find(image), predictor(image[None])["masks"][0])
    with pytest.raises(DataError, match=r"uint8 of shape \[height, width, 1 or 3\]"):
        predictor.find(image[..., :2])


@pytest.mark.parametrize(
    ("task", "endings"), [("detect", ["boxes"]), ("segment", ["mask", "overlay"])]
)
def test_predict_draws_every_file_that_can_be_read(task, endings, runs, photo, capsys):
    more = ALL if task == "detect" else []
    files = [photo, "photos/bad.jpg", "photos/other/a.png"]
    out = f"found/{task}"
    assert command("predict", "--run", f"runs/{task}", "--out", out, *more, *files) == 2
    said = capsys.readouterr().out.splitlines()
    assert sum("error:" in line for line in said) == 1
    assert any(line.startswith("photos/bad.jpg: error: ") for line in said)
    assert any(line.startswith("photos/other/a.png") for line in said)
    made = sorted(path.name for path in pathlib.Path(out).iterdir())
    assert made == sorted(f"{name}_{ending}.png" for name in ("a", "a-2") for ending in endings)
    predictor = runs[task].predictor
    if task == "segment":
        mask = Image.open(f"{out}/a-2_mask.png")
        assert mask.mode == "L" and mask.size == (50, 40)
        np.testing.assert_array_equal(mask, predictor.find(predictor.read_whole(files[2])))
    else:
        (found,) = predictor.predict_files([photo], least_score=0)
        assert f"{photo} (96 x 64 pixels): {len(found.detections)} found" in said
        best = found.detections[0]
        left, top, right, bottom = (f"{edge:.1f}" for edge in best.box)
        words = f"{best.class_name} {best.score:.1%}, x {left} to {right}, y {top} to {bottom}"
        assert f"  {words}" in said
    assert command("predict", "--model", f"models/{task}", photo) == 0
    assert photo in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("detect", ["--top", "1"], "`--top` has an effect only for classifiers"),
        ("segment", ["--top", "1"], "`--top` has an effect only for classifiers"),
        ("segment", ["--least-score", "0"], "`--least-score` has an effect only for models of bo"),
        ("classify", ["--least-score", "0.5"], "`--least-score` has an effect only for models of"),
        ("classify", ["--out", "x"], "`--out` has an effect only for models of boxes and models"),
        ("detect", ["--least-score", "1.5"], "`--least-score` must be from 0 to 1"),
        ("detect", ["--least-score", "nan"], "`--least-score` must be a finite number"),
        ("detect", ["--out", "photos/a.png"], "photos/a.png cannot be written"),
        ("detect", ["--out", "photos/a.png/x"], "photos/a.png/x cannot be written"),
        ("detect", ["--out", "a\0b"], "NUL"),
        ("none", ["--out", "x"], "There is no SavedModel in this folder"),
    ],
)
def test_predict_refuses_in_one_line(task, words, message, runs, photo, capsys):
    assert command("predict", "--model", f"models/{task}", *words, photo) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not pathlib.Path("x").exists()


def test_no_picture_replaces_an_image(runs, photo, capsys):
    pathlib.Path("own").mkdir()
    for name in ("b.png", "b_boxes.png"):
        pathlib.Path("own", name).write_bytes(pathlib.Path(photo).read_bytes())
    files = ["own/b.png", "own/b_boxes.png"]
    assert command("predict", "--run", "runs/detect", "--out", "own/../own", *files) == 2
    assert "A picture would replace one of the image files" in capsys.readouterr().err
    assert pathlib.Path(files[1]).read_bytes() == pathlib.Path(photo).read_bytes()


def test_texts_in_a_picture_cover_no_other_text():
    image = np.full((300, 400, 3), 90, np.uint8)
    names = ("ant", "$b$", "c" * 80)
    boxes = [(10, 5, 200, 150)] * 3 + [(12, 8, 201, 151), (300, 0, 400, 299), (0, 0, 400, 300)]
    found = [Detection(names[i % 3], 0.9 - i / 10, box) for i, box in enumerate(boxes)]
    made = box_picture(image, found, names, title="title")
    renderer = made.canvas.get_renderer()
    texts = made.axes[0].texts
    assert [text.get_text() for text in texts][:3] == ["ant 90%", "$b$ 80%", f"{'c' * 39}… 70%"]
    extents = [text.get_window_extent(renderer) for text in (*texts, *made.texts)]
    for place, one in enumerate(extents):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= made.bbox.x1 and one.y1 <= made.bbox.y1
        assert not any(one.overlaps(other) for other in extents[:place])


@pytest.mark.parametrize("shape", [(4000, 30, 1), (30, 4000, 3), (1, 1, 3), (3000, 3000, 1)])
def test_a_picture_of_any_shape_fits_a_page(shape):
    image = np.zeros(shape, np.uint8)
    height, width = shape[:2]
    for made in (
        box_picture(image, [Detection("a", 0.5, (0, 0, width, height))], ("a",), title="x"),
        mask_picture(image, np.ones(shape[:2], np.uint8), ("background", "a")),
    ):
        assert 1 <= made.get_figheight() <= 10 and 3 <= made.get_figwidth() <= 7
        made.canvas.draw()


def test_a_mask_is_named_where_it_is():
    image, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    mask[10:50, 50:70], mask[5:25, 2:12], mask[40, 2:6], mask[0, 79] = 1, 1, 1, 2
    made = mask_picture(image, mask, ("background", "a", "b"))
    renderer, to_pixels = made.canvas.get_renderer(), made.axes[0].transData.inverted()
    middles = []
    for text in made.axes[0].texts:
        assert text.get_text() == "a"
        box = text.get_window_extent(renderer)
        middles.append(to_pixels.transform(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)))
    (x, y), (other_x, other_y) = middles
    assert 50 <= x < 70 and 10 <= y < 50 and 2 <= other_x < 12 and 5 <= other_y < 25
    legend = [each.get_text() for each in made.legends[0].get_texts()]
    assert legend == ["background 79.1%", "a 20.9%", "b 0.0%"]


NUMBERS = {
    "detect": ("test_ap50", "test_ap75", "test_ap", "test_best_overlap"),
    "segment": ("test_mean_iou", "test_mean_dice", "test_pixel_accuracy"),
}
FIGURES = {"detect": {"boxes", "average_precision"}, "segment": {"masks", "iou_by_class"}}


@pytest.mark.parametrize("task", NUMBERS)
def test_evaluate_measures_the_export_as_training_did(task, runs, capsys):
    run = runs[task]
    assert command("evaluate", "--run", run.path) == 0
    said = capsys.readouterr().out
    found = json.loads((run.path / "evaluation.json").read_text())
    for name in NUMBERS[task]:
        assert found[name] == pytest.approx(run.metrics[name], abs=1e-6)
        assert f"{found[name]:.4f}" in said
    stored = json.loads((run.path / "metrics.json").read_text())
    if task == "detect":
        assert found["detection"]["by_class"]["3"] == pytest.approx(
            stored["detection"]["by_class"]["3"], abs=1e-6, nan_ok=True
        )
    else:
        matrix = np.array(found["segmentation"]["confusion_matrix"])
        assert (
            matrix.sum() == 8 * 32 * 32
            and np.abs(matrix - stored["segmentation"]["confusion_matrix"]).sum()
            <= matrix.sum() / 1000
        )
    drawn = {path.stem for path in (run.path / "figures").glob("*.png")}
    assert drawn == FIGURES[task] | {"learning_curves"}
    assert "by class" in said and "Figures: " in said


def test_one_class_is_judged_alone(runs):
    run, data = runs["detect"], load_dataset(SCENES)
    found = evaluate_run(run.folder, only_class="3", figures=False)
    boxes = find_boxes(run.model, data.test.images)
    expected = detection_report(data.test.objects, boxes, data.class_names, only_class=3)
    assert list(found["detection"]["by_class"]) == ["3"]
    assert found["detection"]["only_class"] == "3"
    for name in ("ap50", "ap75", "ap"):
        assert found[f"test_{name}"] == pytest.approx(expected[name], abs=1e-6, nan_ok=True)
    # The run itself judges all classes.
    assert len(run.metrics["detection"]["by_class"]) == 10


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        *((task, ["--distance", "cosine"], "`--distance` has an effect only") for task in NUMBERS),
        *((task, ["--within", "all"], "`--within` has an effect only") for task in NUMBERS),
        *(
            (task, ["--probes"], "`--probes` has an effect only for classifiers")
            for task in NUMBERS
        ),
        ("segment", ["--only-class", "3"], "`--only-class` has an effect only for models of boxes"),
        ("detect", ["--only-class", "person"], "`--only-class` must be a class of scenes"),
    ],
)
def test_evaluate_refuses_in_one_line(task, words, message, runs, capsys):
    (runs[task].path / "evaluation.json").unlink(missing_ok=True)
    (runs[task].path / ".evaluation.json.sha256").unlink(missing_ok=True)
    assert command("evaluate", "--run", runs[task].path, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (runs[task].path / "evaluation.json").exists()


def test_runs_of_different_tasks_have_tables_of_their_own(runs, capsys):
    assert command("compare", "runs", "--out", "compared") == 0
    said = capsys.readouterr().out
    assert f"{SCENES}: boxes" in said and f"{SCENES}: masks" in said
    assert "The runs are of 2 tasks (detect, segment)" in said
    table = pathlib.Path("compared/table.md").read_text()
    boxes, masks = (part for part in table.split("## ")[1:3])
    assert "test ap50" in boxes and "iou" not in boxes and "mean iou" in masks
    assert f"{runs['detect'].metrics['test_ap50']:.4f}" in boxes
    # Regions have a bank of their own, whatever the setting is.
    assert "packed" not in boxes and "packed" in masks
    rows = list(csv.DictReader(pathlib.Path("compared/table.csv").read_text().splitlines()))
    assert [row["task"] for row in rows] == ["detect", "segment"]
    assert rows[0]["test_mean_iou_mean"] == "" and float(rows[1]["test_mean_iou_mean"]) > 0
    page = pathlib.Path("compared/report.html").read_text()
    content = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    titles = {picture["title"] for picture in content["pictures"]}
    assert {"detect: boxes", "segment: masks"} <= titles
    assert content["tables"][0]["title"] == f"{SCENES}: boxes"
    measures = {run["name"]: (run["measure"], run["score"]) for run in content["runs"]}
    assert measures["detect"] == ("test ap50", pytest.approx(runs["detect"].metrics["test_ap50"]))
    assert measures["segment"][0] == "test mean iou"


def test_a_run_without_any_object_to_find_is_compared_without_numbers(runs, tmp_path):
    shutil.copytree("runs/detect", tmp_path / "r")
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    (tmp_path / "r/.metrics.json.sha256").unlink()
    for value, fine in ((None, True), ("x", False)):
        (tmp_path / "r/metrics.json").write_text(json.dumps({**metrics, "test_ap50": value}))
        if fine:
            assert read_finished(tmp_path / "r").score is None
        else:
            with pytest.raises(RunError, match="no number as test_ap50"):
                read_finished(tmp_path / "r")


def test_a_detector_searches_by_region(tmp_path, monkeypatch, runs, photo, capsys):
    monkeypatch.setattr(items, "SURE", 0.05)
    shutil.copytree("models/detect", tmp_path / "model")
    shutil.copytree("runs/detect", tmp_path / "run")
    run = RunFolder(
        tmp_path / "run", dataclasses.replace(runs["detect"].config, export_dir=tmp_path / "model")
    )
    predictor = BoxPredictor(tmp_path / "model")
    (listed,) = predictor.predict_files([photo], least_score=0.05)
    first, missing = search_run(run, [photo, "photos/bad.jpg"], k=3)
    assert first.region == listed.detections[0] and first.guess == first.region.class_name
    assert "no image that can be read" in missing.error
    # Nearest by plain arrays, of the regions of all training images.
    train_images = load_dataset(SCENES).train
    found = predictor(train_images.images)
    ids, rows = [], []
    for image, (count, scores) in enumerate(zip(found["count"], found["scores"])):
        seen = []
        for number in range(count):
            row = found["embedding"][image, number]
            if scores[number] >= 0.05 and not any((row == other).all() for other in seen):
                seen.append(row)
                ids.append(f"{train_images.ids[image]}#{number + 1}")
                rows.append(row)
    query = predictor(predictor.read(photo)[None])["embedding"][0, 0]
    gap = DISTANCES.get("cosine").array(np.broadcast_to(query, (len(rows), 8)), np.array(rows))
    order = np.argsort(gap)[:3]
    np.testing.assert_allclose([d for d, _, _ in first.nearest], gap[order], atol=1e-4)
    assert first.nearest[0][1] == ids[order[0]]
    labels = {label for *_, label in first.nearest}
    assert labels <= {*predictor.class_names, "no object"}
    # A file that is added is found by itself, and other regions of it can be asked for.
    search_run(run, [], add=[photo])
    (again,) = search_run(run, [photo], k=1)
    assert again.nearest[0][1] == f"{photo}#1" and again.nearest[0][0] < 1e-5
    last = len(listed.detections)
    (other,) = search_run(run, [photo], k=1, region=last)
    assert other.region == listed.detections[-1]
    (beyond,) = search_run(run, [photo], k=1, region=last + 1)
    assert f"region={last + 1}. Use at most {last}" in beyond.error
    with pytest.raises(DataError, match="Ids in an index must differ"):
        search_run(run, [], add=[photo])


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("segment", [], "Only runs of classifiers and of boxes can be searched"),
        ("detect", ["--region", "0"], "`--region` must be at least 1"),
    ],
)
def test_search_refuses_in_one_line(task, words, message, runs, photo, capsys):
    assert command("search", "--run", f"runs/{task}", *words, photo) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_detector_that_finds_nothing_has_nothing_to_search(runs, photo, monkeypatch):
    monkeypatch.setattr(items, "SURE", 1.0)
    with pytest.raises(DataError, match="finds nothing in the training images"):
        search_run(runs["detect"].folder, [photo])
    assert not pathlib.Path("models/detect/search").exists()


def test_what_is_found_without_a_label_is_neither_right_nor_wrong():
    small = np.zeros((3, 4, 4, 3), np.uint8)
    asked = [items.Query("a", small[0], np.zeros(2))]
    labels = np.array([["a", "", "b"]])
    found = Found(labels, labels, np.zeros((1, 3)), np.array([[0, 1, 2]]))
    drawn = picture_of(small, asked, ["a"], "images", found)
    assert [axes.get_xlabel() for axes in drawn.axes] == ["a", "a", "unlabeled", "✗ b"]
