"""Label errors, copies and odd images: against references, and on faults that were put in."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from tfgraphreg import knn_graph
from tfgraphreg.audit import (
    audit,
    blended_classes,
    find_duplicates,
    find_hubs,
    find_isolated,
    find_label_errors,
    find_outliers,
)
from tfgraphreg.audit.findings import Audit, Finding
from tfgraphreg.audit.labels import _parts
from tfgraphreg.cli import run_command
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import ConfigError, DataError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.recipes.audit import Audited, _card

HOSTILE = '</script><img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def noisy():
    """Digits, of which every tenth has the label of the class that is nearest to its own."""
    x, y = load_digits(return_X_y=True)
    means = np.stack([x[y == c].mean(axis=0) for c in range(10)])
    between = np.linalg.norm(means[:, None] - means[None], axis=2)
    np.fill_diagonal(between, np.inf)
    bad = np.zeros(len(y), bool)
    bad[np.random.default_rng(0).choice(len(y), len(y) // 10, replace=False)] = True
    given = np.where(bad, between.argmin(axis=1)[y], y)
    graph = knn_graph(x, k=10, weighting="local_gaussian")
    return x.astype(np.float32), y, given, bad, graph


def test_label_errors_are_ranked_at_least_as_well_as_by_cleanlab(noisy):
    rank = pytest.importorskip("cleanlab.rank", reason="cleanlab is the reference")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    x, true, given, bad, graph = noisy
    model = LogisticRegression(max_iter=300)
    chances = cross_val_predict(model, x / 16, given, cv=5, method="predict_proba")
    theirs = average_precision_score(bad, -rank.get_label_quality_scores(given, chances))
    found = find_label_errors(graph, given, 10, vectors=x)
    ours = average_precision_score(bad, found.scores)
    alone = average_precision_score(bad, find_label_errors(graph, given, 10).scores)
    assert ours >= theirs > 0.5 and ours >= 0.95 and alone >= 0.9
    assert (found.suggested == true)[bad].mean() > 0.95
    assert found.suspected[bad].mean() > 0.8 and bad[found.suspected].mean() > 0.8


def test_a_label_has_no_say_about_itself(noisy):
    x, _, given, _, graph = noisy
    before = find_label_errors(graph, given, 10, vectors=x)
    # The parts depend on the labels, so compare a node whose part stays the same.
    changed = given.copy()
    item = next(
        i
        for i in range(len(given))
        if _parts(np.where(np.arange(len(given)) == i, (given + 1) % 10, given), 10)[i]
        == _parts(given, 10)[i]
    )
    changed[item] = (given[item] + 1) % 10
    after = find_label_errors(graph, changed, 10, vectors=x)
    kept = _parts(changed, 10) == _parts(given, 10)
    assert kept[item]
    apart = np.abs(after.probabilities[item] - before.probabilities[item]).max()
    assert apart < 0.05, apart


def test_spreading_without_a_part_is_that_of_scikit_learn(noisy):
    from scipy import sparse

    from tfgraphreg.audit import labels as room
    from tfgraphreg.propagation.system import System

    x, _, given, _, _ = noisy
    x, given = x[:300], given[:300]
    system = System.of(knn_graph(x, k=6))
    targets = np.eye(10)[given]
    found = room._spread(system, targets, given, 5, lambda *_: None)
    matrix, _ = system.normalized()
    full = np.linalg.inv(sparse.identity(300).toarray() - 0.5 * matrix.toarray())
    part = _parts(given, 5)
    for number in range(5):
        mine = part == number
        wanted = full @ np.where(mine[:, None], 0, targets)
        np.testing.assert_allclose(found[mine], wanted[mine], atol=1e-3)
    # Every class is spread over the parts.
    assert all(len(set(part[given == c])) == 5 for c in range(10))


def test_leaving_one_label_out_of_the_regression_in_closed_form(noisy):
    from tfgraphreg.audit import labels as room
    from tfgraphreg.propagation.kernel import gaussian_kernel, unit_length

    x, _, given, _, _ = noisy
    x, given = x[:120], given[:120]
    rows, known = unit_length(x), np.arange(120)
    found = room._kernel_ridge(x, np.eye(10)[given], known)
    kernel = gaussian_kernel(rows, rows)
    for i in (0, 7, 119):
        others = np.delete(known, i)
        tall = kernel[others]
        gram = tall.T @ tall + kernel + 1e-6 * 120 * np.eye(120)
        scores = 8 * kernel[i] @ np.linalg.solve(gram, tall.T @ (np.eye(10)[given[others]] - 0.1))
        wanted = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(found[i], wanted, atol=1e-6)


def test_unlabeled_and_single_nodes_are_not_judged(noisy):
    x, _, given, _, graph = noisy
    labels = given.copy()
    labels[:50] = -1
    labels[labels == 9] = -1
    labels[60] = 9
    found = find_label_errors(graph, labels, 10, vectors=x)
    judged = np.isfinite(found.scores)
    np.testing.assert_array_equal(judged, (labels >= 0) & (np.arange(len(labels)) != 60))
    assert not found.suspected[~judged].any() and (found.suggested[:50] == -1).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": np.zeros(3, int)}, GraphError, "for every node"),
        ({"labels": np.full(1797, 10)}, GraphError, "from -1 to 9"),
        ({"labels": np.full(1797, -1)}, GraphError, "nothing to compare"),
        ({"folds": 1}, ConfigError, "at least 2"),
        ({"vectors": np.zeros((5, 2))}, GraphError, "one vector for every node"),
    ],
)
def test_label_errors_refuse_what_does_not_fit(noisy, change, error, words):
    values = {"labels": noisy[2], **change}
    with pytest.raises(error, match=words):
        find_label_errors(noisy[4], values.pop("labels"), 10, **values)


def saved_again(image, quality):
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))[..., None]


@pytest.fixture(scope="module")
def copied():
    """Digits at 24 x 24, and behind them copies: 20 to the byte, 20 as JPEG, 20 a bit noisy."""
    images = np.kron(load_digits().images[:600] * 15, np.ones((3, 3))).astype(np.uint8)[..., None]
    rng = np.random.default_rng(0)
    sources = rng.choice(600, 60, replace=False)
    exact = images[sources[:20]]
    jpeg = np.stack([saved_again(images[i], 85) for i in sources[20:40]])
    noise = np.clip(images[sources[40:]] + rng.normal(0, 3, (20, 24, 24, 1)), 0, 255)
    together = np.concatenate([images, exact, jpeg, noise.astype(np.uint8)])
    return together, sources, knn_graph(together.reshape(660, -1), k=10)


def test_copies_are_found(copied):
    images, sources, graph = copied
    found = find_duplicates(graph, images)
    wanted = {(int(s), 600 + i) for i, s in enumerate(sources)}
    pairs = set(map(tuple, found.pairs.tolist()))
    assert len(wanted & pairs) / len(wanted) >= 0.99
    assert len(wanted & pairs) / len(pairs) >= 0.99
    assert {tuple(p) for p in found.pairs[found.exact].tolist()} == {
        (int(s), 600 + i) for i, s in enumerate(sources[:20])
    }
    assert (found.difference[found.exact] == 0).all()
    assert (found.groups[sources] == sources).all()
    assert (found.groups[600:] == sources).all() and (found.groups >= 0).sum() == 120


def test_equal_images_need_no_edge(copied):
    images, _, _ = copied
    nothing = SimilarityGraph.from_pairs(np.zeros((0, 2), int), num_nodes=len(images))
    found = find_duplicates(nothing, images)
    assert len(found.pairs) == 20 and found.exact.all()
    three = find_duplicates(nothing, np.concatenate([images[:658], images[:1], images[:1]]))
    assert {(0, 658), (0, 659)} <= set(map(tuple, three.pairs.tolist()))


def test_of_a_copy_in_the_test_split_the_training_image_goes(copied):
    images, sources, graph = copied
    splits = np.where(np.arange(660) >= 640, "test", "train")
    found = audit(graph, images, np.full(660, -1), 10, splits=splits)
    leaks = [f for f in found.findings if f.issue == "leak"]
    assert {(f.item, f.other) for f in leaks} == {
        (int(s), 640 + i) for i, s in enumerate(sources[40:])
    }
    assert all(f.action == "drop" for f in leaks) and found.label_errors is None
    exact = [f for f in found.findings if f.issue == "exact_duplicate"]
    assert {(f.item, f.other) for f in exact} == {
        (600 + i, int(s)) for i, s in enumerate(sources[:20])
    }


def test_outliers_isolated_images_and_hubs():
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [rng.normal(size=(200, 8)), rng.normal(size=(3, 8)) + 20 * np.eye(3, 8)]
    )
    graph = knn_graph(points, k=5, distance="euclidean")
    far, outliers = find_outliers(graph, points, distance="euclidean")
    assert set(np.flatnonzero(outliers)) == {200, 201, 202} and far[:200].max() < far[200:].min()
    lengths = [
        np.linalg.norm(points[graph.neighbors(i)[0]] - points[i], axis=1).mean() for i in (3, 9)
    ]
    assert far[3] / far[9] == pytest.approx(lengths[0] / lengths[1], rel=1e-5)
    star = SimilarityGraph.from_pairs([[i, 0] for i in range(1, 40)], num_nodes=42)
    times, hubs = find_hubs(star)
    assert times[0] == 39 and np.flatnonzero(hubs).tolist() == [0]
    assert np.flatnonzero(find_isolated(star)).tolist() == [40, 41]


def test_classes_that_blend():
    edges = [[0, 1], [1, 0], [0, 2], [2, 3], [3, 2], [4, 5], [5, 4]]
    graph = SimilarityGraph.from_pairs(edges, [1, 1, 2, 1, 1, 1, 1], num_nodes=6)
    (one,) = blended_classes(graph, np.array([0, 0, 1, 1, 2, 2]), 3)
    assert (one.first, one.second, one.share) == (0, 1, 2 / 6)
    assert blended_classes(graph, np.array([0, 0, -1, 1, 2, 2]), 3) == []


def test_several_classes_an_image_are_not_judged(copied):
    images, _, graph = copied
    found = audit(graph, images, np.zeros((660, 4), np.int8), 4)
    assert found.label_errors is None and found.blends == ()
    assert found.counts()["exact_duplicate"] == 20
    with pytest.raises(DataError, match="split of every image"):
        audit(graph, images, np.zeros((660, 4), np.int8), 4, splits=np.array(["train"]))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with a wrong label, a leak, a stranger and a class with a hostile name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))
    data = load_digits()
    names = {0: "zero", 1: HOSTILE.replace("/", "\u2215")}
    for digit, name in names.items():
        for place, i in enumerate(np.flatnonzero(data.target == digit)[:60]):
            folder = tmp_path / "photos" / ("test" if place >= 50 else "train") / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.kron(data.images[i] * 15, np.ones((2, 2))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{digit}-{place}.png")
    root = tmp_path / "photos"
    shutil.copy(root / "test/zero/0-55.png", root / "train/zero/copy.png")
    shutil.move(root / "train/zero/0-7.png", root / "train" / names[1] / "wrong.png")
    stranger = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(stranger).save(root / "train/zero/stranger.png")
    return root


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_command_writes_a_table_and_a_page_that_opens(photos, capsys, request):
    words = ["--dataset", "folder:photos", "--graph-features", "pixels"]
    assert run_command("audit", words) == 0
    rows = read("audit/audit.csv")
    by_issue = {row["issue"]: row for row in reversed(rows)}
    assert by_issue["label_error"]["id"].endswith("wrong")
    assert by_issue["label_error"]["suggested"] == "zero"
    leak = by_issue["leak"]
    assert leak["id"] == "train/zero/copy" and leak["other"] == "test/zero/0-55"
    assert by_issue["outlier"]["id"] == "train/zero/stranger"
    assert {row["action"] for row in rows} <= {"drop", "check"}
    with open("audit/audit.json", encoding="utf-8") as file:
        facts = json.load(file)
    assert facts["findings"] == rows and facts["images"] == {"test": 20, "train": 102}
    assert sum(facts["counts"].values()) == len(rows)
    assert "1 leak" in capsys.readouterr().out
    # What somebody decided there is not written over.
    table = photos.parent / "audit/audit.csv"
    decided = table.read_text().replace(",check", ",keep")
    table.write_text(decided)
    assert run_command("audit", words) == 2
    assert "`--out`" in capsys.readouterr().err and table.read_text() == decided
    looked_at(request.getfixturevalue("browser"), photos.parent / "audit" / "audit.html", len(rows))


def test_an_unlabeled_picture_is_neither_right_nor_wrong():
    images = np.zeros((4, 4, 4, 1), np.uint8)
    split = Split(images, np.array([0, -1, 1, 0]), np.array(list("abcd")))
    none = split.take(np.zeros(0, np.int64))
    data = Dataset("d", split, none, none, ("x", "y"), "", "")
    graph = SimilarityGraph.from_edges([0, 0], [2, 3], [2.0, 1.0], 4)
    copy = Finding(item=0, issue="exact_duplicate", score=1.0, action="drop", other=1)
    found = Audit((copy,), None, find_duplicates(graph, images), ())
    audited = Audited(data, split, np.full(4, "train"), graph, found)
    card = _card(audited, copy, graph.top(3)[0])
    shown = [(cell.item, cell.right) for cell in card.cells]
    assert shown == [(0, None), (1, None), (2, False), (3, True)]


def looked_at(browser, path, findings):
    """Opens the page: every picture loads, nobody is asked, and a name is only a name."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("article").count() == findings
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("window.hacked") is None and said == []
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    page.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--images", "some"), "`--images` must be one of all, train"),
        (("--dataset", "digit"), "Did you mean digits"),
        (("--labels-per-class", "0"), "--labels-per-class"),
    ],
)
def test_refuses_in_one_line(workplace, capsys, words, says):
    assert run_command("audit", ["--dataset", "digits", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and says in lines[0], lines


def test_vectors_of_a_file_are_of_training_images(workplace):
    from tfgraphreg.config import TrainConfig
    from tfgraphreg.data.catalog import load_dataset
    from tfgraphreg.recipes.audit import audit_dataset

    train = load_dataset("digits", limit=200).train
    np.savez("v.npz", vectors=train.images.reshape(200, -1).astype(np.float32), ids=train.ids)
    with pytest.raises(DataError, match="NUL character"):
        audit_dataset(TrainConfig(dataset="digits"), out="a\0b")
    found = audit_dataset(
        TrainConfig(dataset="digits", limit=200, graph_features="file:v.npz", graph_neighbors=5)
    )
    assert len(found.items) == 200 and set(found.splits) == {"train"}


def test_joined_images_read_what_is_asked_for():
    from tfgraphreg.data.joined import JoinedImages

    parts = [np.full((n, 2, 2, 1), n, np.uint8) for n in (3, 1, 4)]
    images, whole = JoinedImages(parts), np.concatenate(parts)
    assert images.shape == whole.shape
    np.testing.assert_array_equal(images[[7, 0, 3, 2]], whole[[7, 0, 3, 2]])
    np.testing.assert_array_equal(images.take_rows(np.array([6, 3]))[1:], whole[[3]])
    np.testing.assert_array_equal(np.asarray(images), whole)


def test_many_images_are_searched_by_lists(workplace, monkeypatch):
    from tfgraphreg.config import TrainConfig
    from tfgraphreg.recipes import audit as room

    monkeypatch.setattr(room, "LISTED_FROM", 1000)
    found = {
        search: room.audit_dataset(TrainConfig(dataset="digits", graph_search=search)).graph.about
        for search in ("auto", "exact")
    }
    assert [about["method"] for about in found.values()] == ["ivf", "exact"]
    few = room.audit_dataset(TrainConfig(dataset="digits", limit=300))
    assert few.graph.about["method"] == "exact"
