"""The benchmark's own arithmetic, its files and its guard; every trainer takes a step."""

import json

import numpy as np
import pytest

from tfgraphreg.benchmark import material, page, run, scale
from tfgraphreg.benchmark.results import Found, Table
from tfgraphreg.benchmark.timing import Figure, Turn, in_process, ratio, take_turns
from tfgraphreg.cli import run_command
from tfgraphreg.errors import ConfigError, DataError, TFGraphRegError
from tfgraphreg.neighbors.matching import draw_matching


def test_contenders_take_turns_in_both_orders_and_slow_ones_less_often():
    seen = []

    def contender(name, seconds):
        return lambda: seen.append(name) or seconds

    turns = {"a": Turn(contender("a", 1.0)), "b": Turn(contender("b", 3.0))}
    turns["slow"] = Turn(contender("slow", 8.0), every=2)
    seconds = take_turns(turns, 3, lambda *_: None)
    assert seen == ["a", "b", "slow", "b", "a", "a", "b", "slow"]
    assert seconds == {"a": {0: 1, 1: 1, 2: 1}, "b": {0: 3, 1: 3, 2: 3}, "slow": {0: 8, 2: 8}}
    assert ratio(seconds, "slow", "a") == Figure(8.0, 8.0, 8.0, 2)


def test_a_turn_without_a_number_is_timed():
    seconds = take_turns({"work": Turn(lambda: sum(range(200_000)) and None)}, 2, lambda *_: None)
    assert all(0 < s < 5 for s in seconds["work"].values())


def test_the_ratio_is_the_median_of_the_rounds():
    seconds = {"a": {0: 2.0, 1: 3.0, 2: 40.0}, "b": {0: 1.0, 1: 2.0, 2: 10.0}}
    assert ratio(seconds, "a", "b") == Figure(2.0, 1.5, 4.0, 3)


def test_the_middle_half_leaves_out_what_lies_far_away():
    assert Figure.middle_half([5.0, 90.0, 4.0, 0.1, 6.0]) == Figure(5.0, 4.0, 6.0, 5)


def test_another_process_gives_value_and_its_own_memory():
    filler = np.ones(300 << 17)  # 300 MiB that must not count for the child
    value, seconds, memory = in_process("epoch:one_matching", size=1000)
    assert 0 < value < seconds
    assert 5 << 20 < memory < filler.nbytes
    with pytest.raises(TFGraphRegError, match=r"epoch:one_matching failed.*ValueError"):
        in_process("epoch:one_matching", size=5)


def found(**values):
    one = Found("something small", [Table("A table", ["what", "seconds"], [["x", "1 s"]], ["So."])])
    for name, (value, better) in values.items():
        one.ratio(name, Figure.of([value]), better=better, goal=1.0)
    return one


@pytest.mark.parametrize(
    ("better", "old", "new", "bad"),
    [
        ("lower", 1.0, 1.14, False),
        ("lower", 1.0, 1.16, True),
        ("lower", 1.0, 0.2, False),
        ("higher", 100.0, 88.0, False),
        ("higher", 100.0, 86.0, True),
        ("higher", 100.0, 900.0, False),
    ],
)
def test_worse_by_more_than_15_percent_is_a_regression(better, old, new, bad):
    before, now = found(r=(old, better)).ratios, found(r=(new, better)).ratios
    sentences = run.regressions(before, now)
    assert len(sentences) == bad
    if bad:
        assert f"stored {old:.4g}" in sentences[0]
    assert run.regressions({}, now) == run.regressions(before, {}) == []


@pytest.fixture
def measured(monkeypatch):
    """Results to be given instead of measured: what is tested is what becomes of them."""
    given = {}
    monkeypatch.setattr(run, "_measure", lambda name, quick, progress: given[name])
    monkeypatch.setattr("tfgraphreg.commands.table.start_tensorflow", lambda: None)
    return given


def test_what_another_keeps_while_one_measures_stays(tmp_path, measured, monkeypatch):
    measured |= {"graph": found(speed=(1.0, "higher")), "step": found(cost=(1.0, "lower"))}
    results, measure = str(tmp_path / "new/b.json"), run._measure

    def beside(name, quick, progress):
        if name == "graph":
            run.benchmark("step", json_path=results)
        return measure(name, quick, progress)

    monkeypatch.setattr(run, "_measure", beside)
    run.benchmark("graph", json_path=results)
    assert set(json.loads((tmp_path / "new/b.json").read_text())["full"]) == {"graph", "step"}


def test_results_are_merged_checked_and_made_a_page(tmp_path, measured, capsys):
    measured |= {"graph": found(speed=(100.0, "higher")), "step": found(cost=(1.0, "lower"))}
    results, written = str(tmp_path / "b.json"), tmp_path / "b.md"
    assert run_command("benchmark", ["graph", "--json", results]) == 0
    assert run_command("benchmark", ["step", "--json", results, "--page", str(written)]) == 0
    kept = json.loads((tmp_path / "b.json").read_text())
    assert set(kept["full"]) == {"graph", "step"}
    assert kept["full"]["graph"]["ratios"]["speed"]["value"] == 100.0
    assert {"versions", "machine", "commit", "seconds"} <= set(kept["full"]["graph"])
    text = written.read_text()
    assert "| x | 1 s |" in text and "| speed | 100 (100 to 100) | at least 1 | yes |" in text
    assert f"Python {kept['full']['step']['versions']['python']}".lower() in text.lower()

    assert run_command("benchmark", ["graph", "--check", results]) == 0
    measured["graph"] = found(speed=(80.0, "higher"))
    capsys.readouterr()
    assert run_command("benchmark", ["graph", "--check", results]) == 1
    assert "worse: speed: 80, stored 100" in capsys.readouterr().out
    # A quick run has nothing to be compared with here, and must not pass for want of it.
    assert run_command("benchmark", ["graph", "--quick", "--check", results]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nothing to compare a quick run of graph with" in error


def test_mistakes_are_told(tmp_path, measured, capsys):
    with pytest.raises(ConfigError, match=r"Received: 'speed'. Use one of graph, scale"):
        run.benchmark("speed")
    with pytest.raises(ConfigError, match="needs `json`"):
        run.benchmark("graph", page="x.md")
    with pytest.raises(DataError, match="cannot be read"):
        run.benchmark("graph", check=str(tmp_path / "none.json"))
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="holds no results"):
        run.benchmark("graph", check=str(tmp_path / "other.json"))


def test_the_page_names_every_benchmark():
    head = page._HEAD.replace("{names}", ", ".join(run.NAMES))
    assert all(name in head for name in run.NAMES)


def test_more_images_are_new_and_near_their_originals():
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28, 1)).astype(np.uint8)
    images[:, :4] = images[:, -4:] = images[:, :, :4] = images[:, :, -4:] = 0
    more = material.more_images(images, 400)
    assert more.shape == (400, 28, 28, 1) and more.dtype == np.uint8
    np.testing.assert_array_equal(more[:50], images)
    assert len({image.tobytes() for image in more}) == 400
    # Mirrored, shifted and dimmed: the sum of the pixels keeps 60% to 100% of some original's.
    sums = images.reshape(50, -1).sum(1, dtype=float)
    shares = more.reshape(400, -1).sum(1, dtype=float)[:, None] / sums
    assert ((shares > 0.59) & (shares < 1.001)).any(1).all()
    np.testing.assert_array_equal(material.more_images(images, 20), images[:20])


def test_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    images = np.random.default_rng(0).integers(0, 256, (300, 6, 5, 1)).astype(np.uint8)
    images[:, 2] = images[:, 3] // 2
    mine = material.components(images, 4)
    theirs = PCA(4, svd_solver="full").fit_transform(images.reshape(300, -1) / 255.0)
    np.testing.assert_allclose(np.abs(mine), np.abs(theirs), atol=1e-3)


def test_random_neighbors_are_distinct():
    graph = material.random_neighbors(50, 7)  # SimilarityGraph refuses loops and doubles.
    assert graph.num_edges == 350 and (graph.degrees() == 7).all()
    assert (material.random_neighbors(50, 7, seed=1).indices != graph.indices).any()


@pytest.fixture(scope="module")
def digits():
    from tfgraphreg.data.catalog import load_dataset
    from tfgraphreg.graph.knn import knn_graph

    data = load_dataset("digits", limit=256)
    return data, knn_graph(data.train.images.reshape(256, -1).astype(np.float32), k=4)


def test_every_trainer_trains(digits, tmp_path, monkeypatch):
    from tfgraphreg.benchmark import trainers
    from tfgraphreg.config import TrainConfig, effective

    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path))
    data, graph = digits
    fixed = {"dataset": "digits", "backbone": "cnn", "epochs": 3, "packer": "stream"}

    def config(**settings):
        return TrainConfig(**effective({**fixed, "batch_size": 32, **settings}))

    made = [
        trainers.plain_keras(config(), data),
        trainers.nsl_wrapper(config(max_neighbors=2), data, graph),
        trainers.ours(config(neighbors="paired"), data, graph),
    ]
    for trainer in made:
        before = [w.copy() for w in trainer.model.get_weights()]
        assert trainer.run(2) > 0
        changed = [(a != b).any() for a, b in zip(before, trainer.model.get_weights())]
        assert any(changed)
    # NSL must be measured with its graph term, and that must see the neighbors.
    values = {metric.name: float(metric.result()) for metric in made[1].model.metrics}
    assert values["scaled_graph_loss"] > 0
    assert trainers.batches_alone(made[0]._batches, 1)() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    # The other stack has no Dask.
    [pytest.param(n, marks=[pytest.mark.one_stack] * (n == "scale")) for n in run.NAMES],
)
def test_every_benchmark_runs_quickly(name, tmp_path):
    path = tmp_path / "found.json"
    assert run_command("benchmark", [name, "--quick", "--json", str(path)]) == 0
    ratios = json.loads(path.read_text())["quick"][name]["ratios"]
    assert ratios and all(np.isfinite(ratio["value"]) for ratio in ratios.values())


@pytest.mark.one_stack
def test_larger_graphs_are_priced_by_the_square_of_their_size_and_by_what_lists_would_save():
    one = {"seconds": 3600.0, "memory": 2**29, "lists_read": 20}
    table = scale._larger({10_000: {}, 1_000_000: {0: {}, 1: one, 2: {}}})
    ten_million = table.rows[0]
    # 10**7 / 8192 parts read 10**7 rows of 512 bytes twice; a row goes to 20 lists.
    assert ten_million == ["10,000,000", "100", "12.5 TB", "32", "102 GB", "2 GB"]


@pytest.mark.slow
def test_ten_million_nodes_are_matched_in_memory():
    seconds, _, memory = in_process("epoch:one_matching", size=10_000_000)
    assert memory < 6 << 30 and seconds < 300


def test_a_matching_of_a_million_nodes_is_quick():
    graph = material.random_neighbors(1_000_000, 3)
    matched = draw_matching(graph, seed=0)
    assert 0.7 < 2 * np.mean(matched >= 0) <= 1
