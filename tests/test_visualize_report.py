"""report.html in a real browser: it opens from disk, sorts, filters, shows, and asks nobody."""

import json
import time

import numpy as np
import pytest

from tfgraphreg.errors import DataError
from tfgraphreg.visualize import report

HOSTILE = (
    '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&amp;"\u2028'
)
CLASSES = ["shirt", HOSTILE, "bag"]


def an_embedding(count=300, width=2, seed=0, **changes):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    points = generator.normal(size=(count, width)) * 0.2 + np.eye(3, width)[labels]
    thumbs = np.zeros((count, 8, 8, 1), np.uint8)
    thumbs[:, 2:6, 2:6, 0] = (labels * 80 + 60)[:, None, None]
    neighbors = np.stack([(np.arange(count) + 3 * step) % count for step in range(1, 6)], 1)
    neighbors[:, 4] = (np.arange(count) + 1) % count
    values = {
        "name": f"run {width}D",
        "points": points,
        "labels": labels,
        "class_names": CLASSES,
        "thumbnails": thumbs,
        "neighbors": neighbors,
    }
    return report.Embedding(**{**values, **changes})


def a_run(name, *, alpha, seed, accuracy, budget=None, kind="cnn, cosine"):
    history = [
        {
            "epoch": e,
            "loss": 1.2 / (e + 1) + 0.03 * seed,
            "accuracy": accuracy * (1 - 0.4 / (e + 1)),
        }
        for e in range(6)
    ]
    return report.Run(
        name=name,
        dataset="digits",
        kind=kind,
        alpha=alpha,
        labels_per_class=budget,
        score=accuracy,
        history=history,
        config={"alpha": alpha, "seed": seed, "backbone": "cnn", "limit": None},
    )


def write(path, *, embeddings=None):
    columns = [
        report.Column(name="backbone"),
        report.Column(name="alpha"),
        report.Column(name="test accuracy", digits=4),
        report.Column(name="difference to alpha=0", digits=4, signed=True),
    ]
    rows = [
        ["cnn", 0.1, 0.91, 0.0123],
        [HOSTILE, 10.0, 0.5, None],
        ["resnet50", 0.0, 0.875, -0.02],
        ["cnn", 2.0, float("nan"), 0.0],
    ]
    runs = [
        a_run(
            f"digits-a{alpha:g}-{budget}-s{seed}" if seed or alpha else HOSTILE,
            alpha=alpha,
            seed=seed,
            budget=budget,
            accuracy=0.8 + 0.05 * bool(alpha) + 0.002 * (budget or 60) + 0.01 * seed,
        )
        for alpha in (0.0, 0.1, 1.0)
        for budget in (5, 20, None)
        for seed in (0, 1)
    ]
    graphs = report.Table(
        title="Graphs",
        columns=[report.Column(name="dataset"), report.Column(name="label agreement", digits=4)],
        rows=[["digits", 0.97]],
    )
    return report.write_report(
        path,
        title=f"Comparison {HOSTILE}",
        tables=[report.Table(title="digits", columns=columns, rows=rows, note="A note.")],
        graphs=graphs,
        runs=runs,
        embeddings=[an_embedding(), an_embedding(width=3)] if embeddings is None else embeddings,
        notes=["A note about the whole."],
        problems=[f"The run folder {HOSTILE} is broken."],
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(browser, file):
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(20_000)
    said, asked = [], []
    # The tests read pixels back, on which Chromium has advice.
    opened.on("console", lambda m: "willReadFrequently" in m.text or said.append(m.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(file.as_uri())
    yield opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert opened.evaluate("window.hacked") is None
    opened.close()


@pytest.mark.parametrize("width", [390, 1000, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_does_not_scroll_sideways_and_shows_a_number_at_once(browser, file, width, scheme):
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened.goto(file.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    first = opened.locator("#results td.number", has_text="0.9100").first.bounding_box()
    assert first["y"] + first["height"] < 900 and first["x"] + first["width"] < width
    opened.close()


def test_text_of_a_chart_is_as_large_as_that_of_the_page(page):
    size = """() => {
      const text = document.querySelector("#curves svg text");
      const body = parseFloat(getComputedStyle(document.body).fontSize);
      return text.getBoundingClientRect().height / body;
    }"""
    assert page.evaluate(size) < 1.3


def test_an_item_is_named_by_its_file_and_unlabeled_ones_have_a_place_in_the_legend(
    browser, tmp_path
):
    ids = np.array([f"class/{HOSTILE}{i}" for i in range(300)])
    labels = np.array([-1, *[i % 3 for i in range(299)]])
    file = write(tmp_path / "r.html", embeddings=[an_embedding(ids=ids, labels=labels)])
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(file.as_uri())
    view = opened.locator("canvas.view").first
    view.scroll_into_view_if_needed()
    view.focus()
    view.press("ArrowRight")
    assert "class/" in opened.locator(".hint").inner_text()
    assert "unlabeled" in opened.locator(".legend button").all_inner_texts()
    assert opened.evaluate("window.hacked") is None
    opened.close()


def column(page, number, table="#results .table >> nth=0"):
    return page.locator(f"{table} >> tbody td:nth-child({number})").all_inner_texts()


def test_it_shows_hostile_text_as_text(page):
    assert page.locator("h1").inner_text().startswith("Comparison </script><img src=x")
    assert page.locator("img").count() == 0
    assert HOSTILE.split(">")[0] in page.locator(".problems").inner_text()
    names = [a.inner_text() for a in page.locator("nav a").all()]
    assert names == [
        *("Results", "Learning curves", "Accuracy against alpha", "Accuracy against label budget"),
        *("Embedding", "Retrieval", "Graphs", "Settings of the runs"),
    ]


def test_the_table_sorts_by_number_with_the_keyboard(page):
    head = page.locator("#results th", has_text="alpha").first
    assert column(page, 2) == ["0.1", "10", "0", "2"]
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 2) == ["0", "0.1", "2", "10"]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 2) == ["10", "2", "0.1", "0"]
    page.locator("#results th", has_text="test accuracy").first.locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    # What is missing stays last in both directions.
    assert column(page, 3) == ["0.5000", "0.8750", "0.9100", "–"]
    page.keyboard.press("Enter")
    assert column(page, 3) == ["0.9100", "0.8750", "0.5000", "–"]
    assert "+0.0123" in column(page, 4)


def test_the_table_filters_and_the_curves_follow(page):
    first = page.locator("#results .table").first
    first.locator("input").fill("CNN 2")
    assert column(page, 1) == ["cnn", "cnn"]
    assert first.locator("[role=status]").inner_text() == "2 of 4 rows"
    first.locator("input").fill("nothing like it")
    assert column(page, 1) == []
    assert page.locator("#curves svg[role=img] g").count() == 18
    page.get_by_label("Filter Every run").fill("digits-a1-")
    assert page.locator("#curves svg[role=img] g").count() == 6
    page.get_by_label("What the curves show").select_option("loss")
    assert "loss of 6 runs" in page.locator("#curves svg[role=img]").get_attribute("aria-label")


def test_accuracy_is_drawn_with_the_mean_over_seeds(page):
    title = page.locator("#alpha circle title").first.text_content()
    # Seeds 0 and 1 of alpha 0 and 5 labels: 0.81 and 0.82.
    assert "alpha 0: 0.8150 ± 0.0071, 2 runs" in title
    assert page.locator("#alpha svg[role=img] circle").count() == 9
    ticks = page.locator("#budget svg[role=img] text").all_text_contents()
    assert {"5", "20", "all", "labels per class"} <= set(ticks)


def at_point(page, number, view):
    view.scroll_into_view_if_needed()
    # The first frame must have been drawn before a point has a place.
    page.wait_for_function("c => c.positionOf(0)[0] !== 0", arg=view.element_handle())
    box = view.bounding_box()
    x, y = view.evaluate("(c, i) => c.positionOf(i)", number)
    return box["x"] + x, box["y"] + y


def test_hover_shows_a_thumbnail_and_a_click_the_neighbors(page):
    view = page.locator("canvas.view").first
    # The point farthest left has no other point over it.
    outer = int(an_embedding().points[:, 0].argmin())
    page.mouse.move(*at_point(page, outer, view))
    hint = page.locator(".hint")
    hint.wait_for(state="visible")
    assert f"item {outer}" in hint.inner_text()
    page.wait_for_function(
        "() => document.querySelector('.hint canvas').getContext('2d')"
        ".getImageData(4, 4, 1, 1).data[0] > 0"
    )
    pixel = page.evaluate(
        "() => [...document.querySelector('.hint canvas').getContext('2d')"
        ".getImageData(4, 4, 1, 1).data]"
    )
    assert pixel[0] == outer % 3 * 80 + 60
    x, y = at_point(page, outer, view)
    page.mouse.click(x, y)
    panel = page.locator("#embedding .space .card").first
    assert "4 of 5 have the same class" in panel.inner_text()
    assert panel.locator(".found button").count() == 5
    assert panel.locator(".found button.wrong").count() == 1
    panel.locator(".found button").first.click()
    assert f"item {(outer + 3) % 300}" in panel.inner_text()
    page.mouse.move(5, 5)
    assert hint.is_hidden()


def test_the_embedding_obeys_the_keyboard(page):
    view = page.locator("canvas.view").first
    at_point(page, 0, view)
    view.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator(".hint").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".hint").inner_text() != first
    page.keyboard.press("Enter")
    assert "have the same class" in page.locator("#embedding .space .card").first.inner_text()
    before = view.evaluate("c => [c.positionOf(0), c.positionOf(1)]")
    page.keyboard.press("+")
    page.wait_for_function(
        "([c, x]) => c.positionOf(0)[0] !== x", arg=[view.element_handle(), before[0][0]]
    )
    after = view.evaluate("c => [c.positionOf(0), c.positionOf(1)]")
    assert np.subtract(*after) == pytest.approx(1.25 * np.subtract(*before), rel=1e-3)


def test_a_class_can_be_hidden(page):
    view = page.locator("canvas.view").first
    outer = int(an_embedding().points[:, 0].argmin())
    button = page.locator("#embedding .legend button").nth(outer % 3)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.mouse.move(*at_point(page, outer, view))
    assert f"item {outer}" not in page.locator(".hint").inner_text()


def test_three_dimensions_turn(page):
    page.locator("#embedding summary", has_text="run 3D").click()
    view = page.locator("canvas.view").nth(1)
    x, y = at_point(page, 0, view)
    before = view.evaluate("c => c.positionOf(0)")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 30, steps=4)
    page.mouse.up()
    page.wait_for_function(
        "([c, x]) => Math.abs(c.positionOf(0)[0] - x) > 5", arg=[view.element_handle(), before[0]]
    )


def test_retrieval_shows_a_row_for_each_class(page):
    rows = page.locator("#retrieval details").first.locator(".row")
    assert rows.count() == 3
    assert rows.first.locator(".cell").count() == 6
    assert rows.first.locator(".cell.wrong").count() == 1


def test_settings_that_differ_are_bold(page):
    item = page.locator("#settings details").first
    item.locator("summary").click()
    assert item.locator("dd.other").all_inner_texts() == ["0", "0"]
    assert "backbone" in item.inner_text()


def test_twenty_thousand_points_do_not_freeze(browser, tmp_path):
    path = write(tmp_path / "big.html", embeddings=[an_embedding(25_000, width=3)])
    opened = browser.new_page()
    opened.set_default_timeout(60_000)
    opened.goto(path.as_uri())
    view = opened.locator("canvas.view").first
    x, y = at_point(opened, 0, view)
    assert "20,000 of 25,000 points" in opened.locator("#embedding").inner_text()
    started = time.perf_counter()
    opened.mouse.move(x, y)
    opened.mouse.down()
    for turn in range(10):
        opened.mouse.move(x + 10 * turn, y)
        opened.evaluate("() => new Promise(done => requestAnimationFrame(done))")
    opened.mouse.up()
    # Ten frames; a page that redraws slower than once in 0.6 s feels frozen.
    assert time.perf_counter() - started < 6
    opened.close()


def content_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_the_same_input_gives_the_same_file(tmp_path):
    assert write(tmp_path / "a.html").read_bytes() == write(tmp_path / "b.html").read_bytes()


def test_the_sprite_sheet_holds_every_thumbnail():
    import io

    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), np.uint8)
    png, tile, columns = report.sprite_sheet(images)
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert (tile, columns) == (12, 3) and sheet.shape == (36, 36, 3)
    for i, image in enumerate(images):
        top, left = i // 3 * 12, i % 3 * 12
        np.testing.assert_array_equal(sheet[top : top + 12, left : left + 12], image)
    _, tile, _ = report.sprite_sheet(np.zeros((2, 100, 50, 1), np.uint8))
    assert tile == 32


def test_neighbors_of_a_part_are_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_POINTS", 20)
    item = an_embedding(60)
    made = content_of(write(tmp_path / "r.html", embeddings=[item]))["embeddings"][0]
    kept = np.frombuffer(report.base64.b64decode(made["items"]), "<i4")
    found = np.frombuffer(report.base64.b64decode(made["neighbors"]), "<i4").reshape(20, 5)
    assert len(kept) == 20 and len(set(kept)) == 20
    for row, own in zip(found, kept):
        for place, neighbor in zip(row, item.neighbors[own]):
            assert (kept[place] == neighbor) if place >= 0 else (neighbor not in kept)


def test_without_neighbors_the_nearest_in_the_picture_are_found(tmp_path):
    from sklearn.neighbors import NearestNeighbors

    item = an_embedding(50, neighbors=None)
    made = content_of(write(tmp_path / "r.html", embeddings=[item]))["embeddings"][0]
    found = np.frombuffer(report.base64.b64decode(made["neighbors"]), "<i4").reshape(50, 10)
    wanted = NearestNeighbors(n_neighbors=10).fit(item.points).kneighbors(return_distance=False)
    np.testing.assert_array_equal(found, wanted)
    assert made["inPicture"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_embeddings(tmp_path, count):
    item = an_embedding(300)
    small = report.Embedding(
        name="small",
        points=item.points[:count],
        labels=np.full(count, -1),
        class_names=[],
        thumbnails=item.thumbnails[:count],
    )
    made = content_of(write(tmp_path / "r.html", embeddings=[small]))["embeddings"][0]
    assert made["count"] == count and made["k"] == max(count - 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((300, 4))}, r"`points` must be finite numbers of shape"),
        ({"points": np.full((300, 2), np.nan)}, r"`points` must be finite"),
        ({"labels": np.zeros(3, int)}, r"`labels` must have an entry for each point.*3 entries"),
        ({"labels": np.full(300, 7)}, r"`labels` must be class numbers"),
        ({"neighbors": np.full((300, 2), 300)}, r"`neighbors` must be positions"),
        ({"thumbnails": np.zeros((300, 8, 8, 4), np.uint8)}, r"`thumbnails` must be uint8"),
        ({"thumbnails": np.zeros((300, 8, 8, 1))}, r"`thumbnails` must be uint8.*float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "r.html", embeddings=[an_embedding(**changes)])
