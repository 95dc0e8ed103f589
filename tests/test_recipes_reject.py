"""`search --reject` and `--add --label`: unknown images, and classes added without training."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import cli

LEFT_OUT = (8, 9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of digits that has not seen 8 and 9, images of these, and queries of both kinds."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("open")
    digits = load_digits()
    for digit in range(10):
        for place, i in enumerate(np.flatnonzero(digits.target == digit)):
            name = f"{digit}/{i}.png"
            if digit in LEFT_OUT:
                path = folder / ("others" if place < 60 else "new") / name
            else:
                path = folder / "photos" / ("test" if place < 40 else "train") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        words = ["--dataset", "folder:photos", "--backbone", "fcnn", "--alpha", "0"]
        where = ["--run-dir", "r", "--export-dir", "model", "--epochs", "4"]
        assert cli.run_command("train", [*words, *where]) == 0
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of all that."""
    shutil.copytree(made, tmp_path / "w")
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "w" / "cache"))
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def search(*words):
    return cli.run_command("search", ["--run", "r", *map(str, words)])


def files(folder, count=10):
    return [str(path) for path in sorted(pathlib.Path(folder).rglob("*.png"))][:count]


def meta():
    return json.loads(pathlib.Path("model/search/meta.json").read_text())


def last_error(capsys):
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_unknown_images_are_said_to_be_unknown_then_and_later(place, capsys):
    from tfgraphreg.recipes.find import search_run
    from tfgraphreg.runs.folder import read_run

    known, other = files("photos/test", 300), files("others", 100)
    assert search(*known[:3], *other[:20], "--reject", "0.9", "--unknown", "others") == 0
    said = capsys.readouterr().out
    assert "set by 320 test images, of which a share of 0.9 is accepted" in said
    assert "Each of 8 classes left out of the index: AUROC 0." in said
    assert "Of 120 unknown images " in said and "are accepted; AUROC against the 320" in said
    assert 5 < said.count("unknown, nothing nearer than ") <= 23
    found = json.loads(pathlib.Path("r/open_set.json").read_text())
    assert (
        found["share"] == 0.9
        and found["images"] == 320
        and found["items"] == len(files("photos/train", 10_000))
    )
    # By chance it would be 0.5, and 0.9 accepted.
    assert found["unknown"]["auroc"] > 0.7 and found["unknown"]["unknown_accepted"] < 0.7
    assert 0.9 <= found["unknown"]["known_accepted"] < 0.92
    assert set(found["left_out"]["classes"]) == set("01234567")
    assert (place / "r/figures/search.png").exists()
    before = pathlib.Path("model/search/meta.json").read_bytes()
    answers = search_run(read_run("r"), [*known, *other])
    unknown = np.array([answer.unknown for answer in answers])
    assert unknown[:300].mean() < 0.2 < 0.3 < unknown[300:].mean()
    for answer in answers:
        assert answer.unknown == (answer.nearest[0][0] > answer.limit)
    assert pathlib.Path("model/search/meta.json").read_bytes() == before
    # Given again it is not set again.
    assert search(known[0], "--reject", "0.9") == 0
    assert pathlib.Path("model/search/meta.json").read_bytes() == before
    assert "Each of" not in capsys.readouterr().out
    assert search("--unknown", "others/8", "others/9") == 0
    assert "Of 120 unknown images " in capsys.readouterr().out
    assert search("--reject", "1") == 0
    assert "reject" not in meta()
    assert search(other[0]) == 0
    assert "unknown" not in capsys.readouterr().out


def test_a_limit_follows_the_index(place, capsys):
    assert search("--reject", "0.9") == 0
    first = meta()["reject"]["limit"]
    assert search("--add", "new", "--method", "hnsw", "--distance", "euclidean") == 0
    second = meta()["reject"]
    assert second["limit"] != first and second["share"] == 0.9
    assert (meta()["method"], meta()["distance"]) == ("hnsw", "euclidean")
    assert search("--rebuild", "--method", "exact", "--distance", "cosine") == 0
    kept = meta()["reject"]["limit"]
    assert kept <= first
    # The added images are closer to no image of a known class than the training images are.
    shutil.rmtree("model/search")
    assert search("--reject", "0.9") == 0 and meta()["reject"]["limit"] == first
    path = pathlib.Path("model/search/meta.json")
    path.write_text(path.read_text().replace('"model": "', '"model": "0'))
    capsys.readouterr()
    assert search("--rebuild") == 0
    assert "The limit of the index before is lost" in capsys.readouterr().out
    assert "reject" not in meta()


def test_a_new_class_is_recognized_without_training(place, capsys):
    from tfgraphreg.recipes.find import search_run
    from tfgraphreg.runs.folder import read_run

    queries = files("others/8", 60)
    assert search("--reject", "0.95") == 0
    before = np.mean([answer.unknown for answer in search_run(read_run("r"), queries)])
    assert search("--add", "new/8", "--label", "eight") == 0
    said = capsys.readouterr().out
    assert "Labels new to the index: eight." in said
    answers = search_run(read_run("r"), queries)
    voted = np.array([answer.voted for answer in answers])
    assert (voted == "eight").mean() > 0.7
    assert all(answer.guess in "01234567" for answer in answers)
    assert np.mean([answer.unknown for answer in answers]) < before - 0.1
    assert search(queries[0]) == 0
    said = capsys.readouterr().out
    assert "the model says " in said and ", the nearest say eight (" in said
    # Built again, the index keeps the labels.
    assert search(queries[0], "--rebuild") == 0
    assert ", the nearest say eight (" in capsys.readouterr().out


def test_labels_come_from_folders_or_from_a_table(place, capsys):
    from tfgraphreg.visualize.search import Searcher

    for name in ("8", "_unlabeled"):
        (place / "more" / name).mkdir(parents=True)
    first, second, third = files("new/8", 3)
    shutil.copy(first, "more/8")
    shutil.copy(second, "more/_unlabeled")
    assert search("--add", "more", "new/9/" + pathlib.Path(files("new/9")[0]).name) == 0
    searcher = Searcher.load("model")
    assert searcher.ids[-3:].tolist() == [*files("more"), files("new/9")[0]]
    assert searcher.labels[-3:].tolist() == ["8", "", ""]
    with open("labels.csv", "w", newline="", encoding="utf-8") as file:
        rows = [["id", "label"], [second, " an eight "], [third, ""]]
        csv.writer(file).writerows(rows)
    assert search("--add", second, third, "--labels", "labels.csv") == 0
    assert Searcher.load("model").labels[-2:].tolist() == ["an eight", ""]
    capsys.readouterr()
    assert search("--add", first, "--label", "Eight", "--k", "1") == 0
    assert search("--add", files("new/9")[1], "--label", "eight") == 0
    assert "Labels new to the index: eight. Did you mean Eight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "x"], "`--label` has an effect only with `--add`"),
        (["--labels", "x.csv"], "`--labels` has an effect only with `--add`"),
        (
            ["--add", "new/8", "--label", "x", "--labels", "y"],
            "must not be given beside `--labels`",
        ),
        (["--add", "new/8", "--label", " "], "from 1 to 100 characters"),
        (["--add", "new/8", "--label", "x" * 101], "from 1 to 100 characters"),
        (["--add", "new/8", "--label", "a\x1b[31mb"], "characters that can be printed"),
        (["--add", "new/8"], "is not in a class folder"),
        (["--add", "empty", "--label", "x"], "The folder holds no images"),
        (["--add", "new/8", "--labels", "nowhere.csv"], "nowhere.csv cannot be read as a table"),
        (["--add", "new/8", "--labels", "bad.csv"], "labels an image that is not added"),
        (["--add", "new/8", "--labels", "none.csv"], "none.csv labels no image"),
        (["--add", "new/8", "--labels", "two.csv"], "two labels for one image"),
        (["--reject", "0"], "`--reject` must be above 0 and at most 1"),
        (["--reject", "1.1"], "`--reject` must be above 0 and at most 1"),
        (["--reject", "nan"], "`--reject` must be a finite number"),
        (["--reject", "1", "--unknown", "others"], "`--reject 1` takes it away"),
        (["--unknown", "others"], "this one has none. Set one: `--reject 0.95`"),
        (["--reject", "0.999"], "at least 999 images of known classes"),
        (["--reject", "0.9", "--unknown", "empty"], "The folder holds no images"),
    ],
    ids=lambda value: (
        " ".join(value)[:60].encode("unicode_escape").decode() if isinstance(value, list) else ""
    ),
)
def test_wrong_flags_get_one_line_and_leave_nothing(place, words, message, capsys):
    name = files("new/8")[0]
    (place / "empty").mkdir()
    for file, rows in (
        ("bad.csv", f"id,label\n{name}x,8\n"),
        ("none.csv", f"id,label\n{name},\n"),
        ("two.csv", f"id,label\n{name},a\n{name},b\n"),
    ):
        (place / file).write_text(rows)
    assert search(*words) == 2
    assert message in last_error(capsys)
    assert not (place / "model/search/known.npz").exists() or words[:2] == ["--reject", "0.9"]
    assert not list((place / "model").glob(".search*"))


def test_a_file_that_cannot_be_used_is_named(place, capsys):
    (place / "others/8/broken.png").write_bytes(b"no image")
    assert search("--reject", "0.9", "--unknown", "others") == 2
    assert "broken.png" in last_error(capsys)
    (place / "new/8/away").symlink_to("/etc")
    assert search("--add", "new/8", "--label", "x") == 2
    assert "'away' is a link to a folder. Mend or remove them." in last_error(capsys)


def test_the_picture_names_what_is_unknown_and_what_is_new(place):
    from tfgraphreg.recipes.find import search_run
    from tfgraphreg.runs.folder import read_run

    for words in (["--add", "new/9", "--label", "nine"], ["--reject", "0.9"]):
        assert search(*words) == 0
    run, queries = read_run("r"), [*files("others/8", 3), *files("others/9", 3)]
    answers = search_run(run, queries)
    text = pathlib.Path("r/figures/search.svg").read_text()
    unknown = sum(answer.unknown for answer in answers)
    assert unknown and text.count(">unknown<") == unknown
    assert text.count(">nine<") >= sum(a.voted == "nine" for a in answers)


def test_a_server_says_unknown_and_what_the_nearest_say(place):
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    import threading

    from test_serving import ask, file_of

    from tfgraphreg.recipes.find import search_run
    from tfgraphreg.recipes.server import serve_run
    from tfgraphreg.runs.folder import read_run

    assert search("--add", "new/9", "--label", "nine", "--reject", "0.9") == 0
    run, queries = read_run("r"), [*files("others/8", 20), *files("others/9", 20)]
    answers = search_run(run, queries)
    ready, server = threading.Event(), {}

    def started(made, port):
        server.update(made=made, port=port)
        ready.set()

    thread = threading.Thread(target=serve_run, args=(run,), kwargs={"port": 0, "started": started})
    thread.start()
    try:
        assert ready.wait(60)
        images = [np.asarray(Image.open(path))[..., None] for path in queries]
        body = {"instances": [file_of(image) for image in images]}
        status, found = ask(server["port"], "/v1/models/r:search", body)
    finally:
        server["made"].should_exit = True
        thread.join(20)
    assert status == 200 and 0 < sum(found["unknown"]) < 40
    assert found["unknown"] == [answer.unknown for answer in answers]
    assert [vote["label"] for vote in found["votes"]] == [answer.voted for answer in answers]
    shares = [answer.share for answer in answers]
    np.testing.assert_allclose([vote["share"] for vote in found["votes"]], shares, atol=1e-3)
