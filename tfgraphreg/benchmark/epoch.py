"""An epoch of training with neighbors, against one of plain training."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.benchmark.material import BACKBONE, default_graphs, fashion_mnist
from tfgraphreg.benchmark.results import Found, Table, seconds_text, times_text
from tfgraphreg.benchmark.timing import Figure, Turn, in_process, ratios, take_turns
from tfgraphreg.config import TrainConfig, effective

PLAIN = "plain training (alpha 0)"
_BATCH = 128
_MODES = ("paired", "gathered", "bank", "packed")


@dataclasses.dataclass(frozen=True)
class _Size:
    quick: bool
    images: int | None
    paired: tuple[int, ...]
    steps: int
    rounds: int
    growth_steps: int
    growth_rounds: int
    neighbors: tuple[int, ...]


# Short turns: contenders that are compared must meet the same minute of a busy machine.
_FULL = _Size(False, None, (1, 5, 10), 4, 120, 2, 10, (1, 3, 10, 20))
_QUICK = _Size(True, 12_000, (1, 10), 4, 12, 0, 0, ())


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """Epochs at the sizes that matter, then how they grow with k and with replicas."""
    size = _QUICK if quick else _FULL
    dataset = fashion_mnist(size.images)
    graphs = default_graphs(dataset, size.paired, progress)
    images = len(dataset.train)
    found = Found(
        f"The network `{BACKBONE}` on {images:,} images of Fashion-MNIST (28x28), batches of "
        f"{_BATCH}, alpha 0.1, graph of 10 nearest neighbors unless k says otherwise."
    )
    seconds = _main(found, dataset, graphs, size, progress)
    _feeding(found, dataset, graphs, size, seconds, progress)
    if not quick:
        _chances(found, graphs)
        _distinct(found, dataset, graphs[10])
        _growth(found, dataset, graphs, size, progress)
        _matchings(found, (100_000, 1_000_000, 10_000_000))
        _replicas(found)
    return found


def _config(**settings: Any) -> TrainConfig:
    from tfgraphreg.benchmark.trainers import EPOCHS

    fixed = {"backbone": BACKBONE, "epochs": EPOCHS, "alpha": 0.1, "packer": "stream"}
    # The packer is that of packed neighbors; the other contenders have none.
    return TrainConfig(**effective({**fixed, "batch_size": _BATCH, **settings}))


def _main(found: Found, dataset: Any, graphs: Any, size: _Size, progress: Any) -> Any:
    from tfgraphreg.benchmark import trainers as t

    graph = graphs[10]
    made = {PLAIN: t.ours(_config(alpha=0), dataset, None)}
    if not size.quick:
        made["Keras' own fit step"] = t.plain_keras(_config(), dataset)
    for k in size.paired:
        made[f"paired, graph of k={k}"] = t.ours(_config(neighbors="paired"), dataset, graphs[k])
    bank = _config(neighbors="bank", max_neighbors=10)
    made["bank, k=10"] = t.ours(bank, dataset, graph)
    for k in (1, 3):
        gathered = _config(neighbors="gathered", max_neighbors=k)
        made[f"gathered, k={k}"] = t.ours(gathered, dataset, graph)
        packed = _config(max_neighbors=k)
        if not size.quick:
            made[f"packed, k={k}"] = t.ours(packed, dataset, graph)
        made[f"NSL, k={k}"] = t.nsl_wrapper(packed, dataset, graph)
    seconds = _turns(made, size.steps, size.rounds, progress)
    steps = -(-len(dataset.train) // _BATCH)
    table = Table(
        "An epoch of training",
        ["contender", "seconds an epoch", "times plain training"],
        notes=[
            f"Contenders take turns of {size.steps} steps, {size.rounds} rounds "
            f"({size.rounds * size.steps / steps:.1f} epochs each); seconds are scaled to the "
            f"{steps} steps of an epoch. Median of the rounds, and the range of their middle half.",
        ],
    )
    for name in made:
        epoch = Figure.middle_half(s * steps / size.steps for s in seconds[name].values())
        times = Figure.middle_half(ratios(seconds, name, PLAIN))
        table.rows.append([name, seconds_text(epoch), times_text(times)])
    found.tables.append(table)
    for k in size.paired:
        _keep(found, seconds, f"paired.k{k}", f"paired, graph of k={k}", 1.05)
    _keep(found, seconds, "gathered.k1", "gathered, k=1", 1.85)
    _keep(found, seconds, "bank.k10", "bank, k=10", 1.15)
    against = Figure.middle_half(ratios(seconds, "gathered, k=3", "NSL, k=3"))
    found.ratio("epoch.gathered.k3 / nsl.k3", against, better="lower", goal=0.9)
    table.notes.append(f"gathered, k=3, took {times_text(against)} times as long as NSL, k=3.")
    return seconds


def _keep(found: Found, seconds: Any, key: str, name: str, goal: float) -> None:
    figure = Figure.middle_half(ratios(seconds, name, PLAIN))
    found.ratio(f"epoch.{key} / plain", figure, better="lower", goal=goal)


def _turns(made: Any, steps: int, rounds: int, progress: Any) -> Any:
    for trainer in made.values():
        trainer.run(2)  # Traces the step.
    turns = {name: Turn(functools.partial(trainer.run, steps)) for name, trainer in made.items()}
    return take_turns(turns, rounds, progress)


def _feeding(
    found: Found, dataset: Any, graphs: Any, size: _Size, seconds: Any, progress: Any
) -> None:
    """The input pipelines by themselves, and the drawing of a matching."""
    from tfgraphreg.benchmark import trainers as t
    from tfgraphreg.neighbors import matching
    from tfgraphreg.neighbors.order import epoch_draw, epoch_order
    from tfgraphreg.recipes.batches import batch_source

    graph, images = graphs[10], len(dataset.train)
    steps = -(-images // _BATCH)
    plain = Figure.of(s * steps / size.steps for s in seconds[PLAIN].values())

    def draw() -> None:
        order = epoch_order(images, 0, 1)
        matching.draw_epoch(graph, order, dataset.train.labels, seed=epoch_draw(0, 1))

    turns = {"a matching drawn and laid out": Turn(draw)}
    draw()
    for mode, k in (("plain", 0), ("paired", 1), ("packed", 1), ("gathered", 1), ("bank", 10)):
        plainly = mode == "plain"
        config = _config(alpha=0) if plainly else _config(neighbors=mode, max_neighbors=k)
        batches = batch_source(config, dataset, None if plainly else graph)(0)
        name = f"batches of {mode}" + (f", k={k}" if k else "")
        turns[name] = Turn(t.batches_alone(batches, steps))
        turns[name].work()
    alone = take_turns(turns, 3 if steps < 200 else 5, progress)
    table = Table(
        "What feeds the network, by itself, for an epoch",
        ["part", "seconds", "share of an epoch of plain training"],
        notes=["Both run beside the training step, so an epoch does not wait for them."],
    )
    for name, taken in alone.items():
        figure = Figure.of(taken.values())
        share = Figure.of(value / plain.median for value in taken.values())
        table.rows.append([name, seconds_text(figure), f"{share.median:.2%}"])
        if name.startswith("batches"):
            goal = 0.2 if "k=10" not in name else None
            found.ratio(f"epoch.feeding {name[11:]} / plain", share, better="lower", goal=goal)
        else:
            found.ratio("epoch.matching / plain", share, better="lower", goal=0.01)
    found.tables.append(table)


def _chances(found: Found, graphs: Any) -> None:
    """How often an edge is drawn: what paired training sums over."""
    from tfgraphreg.neighbors import matching

    draws = 200
    table = Table(
        "How often a matching draws an edge",
        [
            "graph",
            "pairing",
            "images paired",
            "chance of an edge: 5%",
            "median",
            "95%",
            "median factor",
        ],
        notes=[
            f"Of {draws} matchings each. The paired graph term has the mean sum p(e) w(e) d(e); "
            "`pair_correction` multiplies w(e) by mean(p) / p(e), at most 10."
        ],
    )
    for k in (1, 5, 10):
        for by_weight in (False, True) if k == 10 else (False,):
            chances = matching.edge_probabilities(graphs[k], draws=draws, by_weight=by_weight)
            low, middle, high = np.quantile(chances, [0.05, 0.5, 0.95])
            factor = float(np.median(matching.correction(chances, draws=draws)))
            paired = 2 * chances.sum() / graphs[k].num_nodes
            cells = [f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}", f"{factor:.2f}"]
            pairing = "weight" if by_weight else "uniform"
            table.rows.append([f"k={k}", pairing, f"{paired:.1%}", *cells])
    found.tables.append(table)


def _distinct(found: Found, dataset: Any, graph: Any) -> None:
    """What groups of images save, and what they do to the classes of a batch."""
    from tfgraphreg.neighbors import grouping, sampling
    from tfgraphreg.neighbors.order import epoch_order

    labels = dataset.train.labels
    order = epoch_order(len(labels), 0, 0)
    kinds = np.unique(labels)
    table = Table(
        "Images of a batch of gathered that pass through the network",
        ["order of the epoch", "k=1, distinct", "k=3, distinct", "spread of a class, k=3"],
        notes=[
            f"Mean over the whole batches of an epoch, of {2 * _BATCH} images at k=1 and "
            f"{4 * _BATCH} at k=3. Spread of a class: standard deviation of the number of its "
            f"images among the {_BATCH}, mean over classes. gathered uses groups of "
            f"{grouping.GROUP}.",
        ],
    )
    for size in (None, 2, 4, 8):
        cells, deviation = [], 0.0
        for k in (1, 3):
            near, _ = sampling.sample_neighbors(graph, k, draw=0)
            rows = order
            if size is not None:
                rows = grouping.grouped_order(near, order, labels, seed=0, size=size)
            batches = rows[: len(rows) // _BATCH * _BATCH].reshape(-1, _BATCH)
            distinct = [len(np.unique(np.append(near[batch], batch))) for batch in batches]
            cells.append(f"{np.mean(distinct):.0f}")
            shares = (labels[batches][:, :, None] == kinds).sum(1)
            deviation = float(shares.std(axis=0).mean())
        name = "at random" if size is None else f"groups of up to {size}"
        table.rows.append([name, *cells, f"{deviation:.2f}"])
    found.tables.append(table)


def _growth(found: Found, dataset: Any, graphs: Any, size: _Size, progress: Any) -> None:
    from tfgraphreg.benchmark import trainers as t

    graphs = {**graphs, **default_graphs(dataset, (20,), progress)}
    table = Table(
        "How an epoch grows with k",
        ["neighbors k", *_MODES, "NSL"],
        notes=[
            "Times plain training in the same rounds. For paired, k is the number of neighbors in "
            "the graph; for all others, neighbors of each image in a batch. "
            f"Turns of {size.growth_steps} steps, {size.growth_rounds} rounds for each k; median "
            "and the range of the middle half.",
        ],
    )
    plain = t.ours(_config(alpha=0), dataset, None)
    for k in size.neighbors:
        graph = graphs[10 if k <= 10 else 20]
        made = {PLAIN: plain}
        for mode in _MODES:
            own = graphs.get(k, graph) if mode == "paired" else graph
            neighbors = 1 if mode == "paired" else k
            config = _config(neighbors=mode, max_neighbors=neighbors)
            made[mode] = t.ours(config, dataset, own)
        made["NSL"] = t.nsl_wrapper(_config(max_neighbors=k), dataset, graph)
        seconds = _turns(made, size.growth_steps, size.growth_rounds, progress)
        each = [ratios(seconds, name, PLAIN) for name in (*_MODES, "NSL")]
        cells = [times_text(Figure.middle_half(values)) for values in each]
        table.rows.append([str(k), *cells])
    found.tables.append(table)


def _replicas(found: Found) -> None:
    """One replica and two, in a process of its own: TensorFlow splits a CPU only at its start."""
    answer, _, _ = in_process("epoch:two_replicas", rounds=40)
    table = Table(
        "One replica and two logical devices on the same cores",
        ["contender", "one replica, seconds an epoch", "two replicas", "times one replica"],
        notes=[
            "Two replicas on one processor share its cores: this shows what MirroredStrategy "
            "itself costs, and that paired and bank cost no more under it than plain training. "
            "Median and the range of the middle half.",
        ],
    )
    for name, (one, two) in answer.items():
        each = [Figure.middle_half(one), Figure.middle_half(two)]
        times = Figure.middle_half(b / a for a, b in zip(one, two))
        table.rows.append([name, *map(seconds_text, each), times_text(times)])
    plain, paired = answer["plain"][1], answer["paired"][1]
    figure = Figure.middle_half(b / a for a, b in zip(plain, paired))
    found.ratio("epoch.paired / plain, two replicas", figure, better="lower")
    found.tables.append(table)


def _matchings(found: Found, sizes: tuple[int, ...]) -> None:
    table = Table(
        "How a matching grows with N (10 random neighbors each)",
        ["nodes", "seconds to draw and lay out", "largest memory, the graph's included"],
    )
    for size in sizes:
        seconds, _, memory = in_process("epoch:one_matching", size=size)
        cells = [seconds_text(Figure.of([seconds])), f"{memory / 2**30:.2f} GiB"]
        table.rows.append([f"{size:,}", *cells])
    found.tables.append(table)


def one_matching(size: int) -> float:
    """Seconds of drawing a matching of so many nodes and laying it out."""
    from tfgraphreg.benchmark.material import random_neighbors
    from tfgraphreg.neighbors import matching
    from tfgraphreg.neighbors.order import epoch_order

    small, large = random_neighbors(100, 10), random_neighbors(size, 10)
    taken = 0.0
    for graph in (small, large):  # The small one loads the compiled code.
        kinds = np.arange(graph.num_nodes) % 10
        start = time.perf_counter()
        matching.draw_epoch(graph, epoch_order(graph.num_nodes, 0, 0), kinds, seed=1)
        taken = time.perf_counter() - start
    return taken


def two_replicas(rounds: int, steps: int = 3) -> dict[str, list[list[float]]]:
    """Seconds of an epoch on one replica and on two, for each contender."""
    from tfgraphreg.compat import load_nsl, tf

    load_nsl()
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, logical)
    from tfgraphreg.benchmark import trainers as t

    dataset = fashion_mnist(12_000)
    graph = default_graphs(dataset, (10,), lambda *_: None)[10]
    strategies = [tf.distribute.OneDeviceStrategy("CPU:0")]
    strategies.append(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    made: dict[Any, Any] = {}
    for name in ("plain", "paired", "bank"):
        config = _config(alpha=0) if name == "plain" else _config(neighbors=name)
        for number, strategy in enumerate(strategies):
            own = None if name == "plain" else graph
            made[name, number] = t.ours(config, dataset, own, strategy=strategy)
    seconds = _turns(made, steps, rounds, lambda *_: None)
    scale = -(-60_000 // _BATCH) / steps
    found: dict[str, list[list[float]]] = {}
    for (name, _), taken in seconds.items():
        found.setdefault(name, []).append([s * scale for s in taken.values()])
    return found
