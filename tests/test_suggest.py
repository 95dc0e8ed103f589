"""Images to label: chosen well, labeled on a page, read back."""

import csv
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfgraphreg import knn_graph, propagate
from tfgraphreg.cli import run_command
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.given_labels import with_labels
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.recipes.material import prepare_data
from tfgraphreg.suggestion import suggest
from tfgraphreg.visualize.labeling import write_labeling_page

HOSTILE = '</script><img src=x onerror="window.hacked=1">,"a"'


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y, knn_graph(x, k=10, weighting="local_gaussian")


def reached(graph, truth, items):
    labels = np.full(len(truth), -1)
    labels[items] = truth[items]
    free = labels < 0
    return (propagate(graph, labels, 10).labels == truth)[free].mean()


def test_typical_images_say_more_than_random_ones(digits):
    x, truth, graph = digits
    scores = {
        method: np.mean(
            [reached(graph, truth, suggest(x, 10, method=method, seed=s).items) for s in range(3)]
        )
        for method in ("typical", "random")
    }
    assert scores["typical"] > scores["random"] + 0.1, scores


def test_a_typical_image_is_the_one_closest_to_its_20_nearest():
    rng = np.random.default_rng(0)
    centers = 50 * np.eye(3, 6)
    x = np.concatenate([c + rng.normal(size=(n, 6)) for c, n in zip(centers, (60, 40, 30))])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    between = np.sort(np.linalg.norm(unit[:, None] - unit[None], axis=2), axis=1)[:, 1:21]
    density = between.mean(axis=1)
    wanted = [
        start + density[start:end].argmin() for start, end in ((0, 60), (60, 100), (100, 130))
    ]
    assert suggest(x, 3).items.tolist() == wanted
    # A group with a label is left for later.
    labels = np.full(130, -1)
    labels[5] = 0
    assert set(suggest(x, 2, labels=labels).items // 10 * 10 >= 60) == {True}


def test_unsure_images_are_those_of_the_propagation(digits):
    x, truth, graph = digits
    labels = np.full(len(truth), -1)
    labels[:100] = truth[:100]
    found = suggest(x, 15, labels=labels, num_classes=10, graph=graph, method="margin")
    best = np.sort(propagate(graph, labels, 10).probabilities, axis=1)
    unsure = np.argsort(best[:, -1] - best[:, -2])
    assert set(found.items) <= set(unsure[:150]) and (labels[found.items] < 0).all()
    assert len(set(found.items)) == 15


@pytest.mark.parametrize("method", ["typical", "margin", "entropy", "random", "balanced"])
def test_the_same_seed_gives_the_same_new_images(digits, method):
    x, truth, graph = digits
    labels = np.where(np.arange(len(truth)) % 40, -1, truth)
    values = {"labels": labels, "num_classes": 10, "graph": graph, "truth": truth}
    found = [suggest(x, 20, method=method, seed=3, **values).items for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0])) == 20 and (labels[found[0]] < 0).all()
    if method == "balanced":
        assert (np.bincount(truth[found[0]], minlength=10) == 2).all()


@pytest.mark.parametrize(
    ("n", "values", "error", "words"),
    [
        (0, {}, ConfigError, "from 1 to the number of unlabeled"),
        (2000, {}, ConfigError, "n=2000, 1797 unlabeled"),
        (5, {"method": "best"}, ConfigError, "must be one of auto"),
        (5, {"method": "margin"}, ConfigError, "needs some labels"),
        (5, {"method": "balanced"}, ConfigError, "needs the true classes"),
        (5, {"labels": np.zeros(3, int)}, DataError, "for every vector"),
    ],
)
def test_refuses_what_cannot_be(digits, n, values, error, words):
    with pytest.raises(error, match=words):
        suggest(digits[0], n, **values)


def write_csv(rows, path="labels.csv", head=("id", "label")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def test_the_labels_of_a_file_are_the_only_ones(workplace):
    config = TrainConfig(dataset="digits", limit=50)
    data, true_labels = prepare_data(config, lambda *_: None)
    ids, names = data.train.ids, data.class_names
    path = write_csv([(ids[3], names[7]), (ids[9], names[1]), (ids[4], "")])
    found, kept = prepare_data(
        TrainConfig(dataset="digits", limit=50, labels=path), lambda *_: None
    )
    assert np.flatnonzero(found.train.labels >= 0).tolist() == [3, 9]
    assert found.train.labels[[3, 9]].tolist() == [7, 1]
    np.testing.assert_array_equal(kept, true_labels)
    np.testing.assert_array_equal(found.test.labels, data.test.labels)
    with pytest.raises(ConfigError, match="labels_per_class"):
        TrainConfig(dataset="digits", labels=path, labels_per_class=2)
    for rows, words in (
        ([("nobody", names[0])], "not in this dataset"),
        ([(ids[0], "cat")], "no class of digits"),
        ([(ids[0], names[0]), (ids[0], names[1])], "two labels for one image"),
        ([(data.test.ids[0], names[0])], "Only training images"),
        ([], "labels no training image"),
    ):
        with pytest.raises(DataError, match=words):
            with_labels(data, write_csv(rows))


def test_the_loop_of_the_command(workplace, capsys):
    words = ["--dataset", "digits", "--limit", "300", "--graph-features", "pixels"]
    assert run_command("suggest", [*words, "--unlabeled", "--n", "12"]) == 0
    with open("suggest/suggestions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 13)]
    assert all("typical" in row["reason"] for row in rows)
    data, _ = prepare_data(TrainConfig(dataset="digits", limit=300), lambda *_: None)
    label = dict(zip(data.train.ids.tolist(), data.train.labels))
    write_csv([(row["id"], data.class_names[label[row["id"]]]) for row in rows])
    again = [*words, "--labels", "labels.csv", "--n", "5", "--method", "margin", "--out", "next"]
    assert run_command("suggest", again) == 0
    with open("next/suggestions.csv", newline="", encoding="utf-8") as file:
        more = {row["id"] for row in csv.DictReader(file)}
    assert len(more) == 5 and not more & {row["id"] for row in rows}
    assert run_command("propagate", [*words, "--labels", "labels.csv"]) == 0
    assert "12 labels given, 288 propagated" in capsys.readouterr().out
    for wrong, says in (
        (["--labels", "labels.csv", "--unlabeled"], "exclude each other"),
        ([], "Every training image is labeled"),
        (["--unlabeled", "--n", "0"], "from 1 to the number"),
        (["--unlabeled", "--method", "best"], "one of auto"),
    ):
        assert run_command("suggest", [*words, *wrong]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1


def test_the_page_is_used_by_keyboard_and_saves_what_is_read_back(browser, tmp_path):
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1)
    classes, ids = ["cat", HOSTILE, "dog"], ["one", HOSTILE, "three"]
    path = tmp_path / "label.html"
    known = [("before", HOSTILE)]
    write_labeling_page(path, images, ids, [HOSTILE] * 3, classes, known=known, title=HOSTILE)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("3")
    page.keyboard.press("2")
    page.keyboard.press("1")
    page.keyboard.press("Backspace")
    page.keyboard.press("/")
    page.keyboard.type("dog")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert "2 of 3" in page.locator("#main h2").inner_text()
    assert "3 of 3 labeled, and 1 before" in page.locator("[role=status]").inner_text()
    with page.expect_download() as download:
        page.get_by_text("Save labels.csv", exact=True).click()
    download.value.save_as(tmp_path / "labels.csv")
    assert said == [] and page.evaluate("window.hacked") is None
    asked = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert asked == [path.as_uri()]
    digits = tmp_path / "digits.html"
    write_labeling_page(digits, images[:1], ["x"], [""], ["0", "1"], known=[], title="digits")
    page.goto(digits.as_uri())
    page.keyboard.press("1")
    assert page.locator("[aria-pressed=true]").inner_text().split() == ["1", "1"]
    page.close()
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["id", "label"],
            ["before", HOSTILE],
            ["one", "dog"],
            [HOSTILE, HOSTILE],
            ["three", "dog"],
        ]


def test_a_folder_without_any_training_label(workplace, tmp_path):
    from PIL import Image

    data = load_digits()
    for digit in (0, 1):
        for place, i in enumerate(np.flatnonzero(data.target == digit)[:40]):
            folder = tmp_path / "photos" / (f"test/{digit}" if place < 8 else "train/_unlabeled")
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((data.images[i] * 15).astype(np.uint8))
            image.save(folder / f"{digit}-{i}.png")
    words = ["--dataset", "folder:photos", "--graph-features", "pixels"]
    assert run_command("suggest", [*words, "--n", "2"]) == 0
    with open("suggest/suggestions.csv", newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert {name.split("/")[-1][0] for name in ids} == {"0", "1"}
    write_csv([(name, name.split("/")[-1][0]) for name in ids])
    config = TrainConfig(dataset="folder:photos", labels="labels.csv")
    found, _ = prepare_data(config, lambda *_: None)
    assert found.class_names == ("0", "1") and found.train.labeled.sum() == 2
    assert not [note for note in found.notes if "no labeled training image" in note]
    # Measured by the labels that are known: those of the file.
    words = ["--dataset", "folder:photos", "--labels", "labels.csv", "--backbone", "fcnn"]
    assert run_command("train", [*words, "--epochs", "1", "--run-dir", "run"]) == 0
    assert run_command("evaluate", ["--run", "run", "--no-figures"]) == 0
    for name in ("metrics.json", "evaluation.json"):
        measured = json.loads((tmp_path / "run" / name).read_text(encoding="utf-8"))
        assert 0 <= measured["mean_average_precision"] <= 1
