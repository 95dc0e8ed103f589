"""The nearest-neighbor graph against `nsl.tools.build_graph` and against exact FAISS."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfgraphreg.benchmark.material import components, fashion_mnist, more_images
from tfgraphreg.benchmark.results import Found, Table, seconds_text, times_text
from tfgraphreg.benchmark.timing import Figure, Turn, in_process, take_turns

_K = 10
_MEMORY = 6.0  # GiB that the graph of a million items may use.
# What nsl.tools.build_graph's documentation gives for data of this size.
_LSH = {"similarity_threshold": 0.9, "lsh_splits": 10, "lsh_rounds": 18}


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """60,000 items beside NSL's builder and bare FAISS; then up to a million."""
    size = 6_000 if quick else 60_000
    images = fashion_mnist(size).train.images
    features = components(images, 100)
    found = Found(
        f"{size:,} images of Fashion-MNIST as 100 principal components; k={_K}, cosine."
        + (" The quick mode: NSL's time grows faster than N." if quick else "")
    )
    _against_nsl(found, features, quick, progress)
    _growth(found, (6_000, 20_000) if quick else (10_000, 100_000, 1_000_000), progress)
    return found


def _against_nsl(found: Found, features: np.ndarray, quick: bool, progress: Any) -> None:
    from tfgraphreg.graph.knn import knn_graph

    made: dict[str, Any] = {}
    edges = 0

    def run(name: str, work: Callable[[], Any]) -> Turn:
        def turn() -> None:
            made[name] = work()

        return Turn(turn)

    rounds = 3 if quick else 5
    turns = {
        "ivf": run("ivf", lambda: knn_graph(features, k=_K, method="ivf")),
        "exact": run("exact", lambda: knn_graph(features, k=_K, method="exact")),
        "faiss": run("faiss", lambda: _faiss(features)),
    }
    with _nsl_files(features) as (examples, graph):

        def nsl_turn() -> None:
            nonlocal edges
            _build_by_nsl(examples, graph)
            with open(graph, encoding="utf-8") as file:
                edges = sum(1 for _ in file)

        # Minutes, so only in the first round.
        turns["nsl"] = Turn(nsl_turn, every=rounds)
        seconds = take_turns(turns, rounds, progress)
    theirs = seconds["nsl"][0]
    recall = {name: _recall(made[name], made["faiss"]) for name in ("ivf", "exact")}
    names = {
        "ivf": "this project, inverted lists (as `auto` from some 100,000)",
        "exact": "this project, exact",
        "faiss": "limit: FAISS IndexFlatIP alone, no graph",
        "nsl": "nsl.tools.build_graph, LSH",
    }
    table = Table(
        f"Graph of {len(features):,} x {features.shape[1]}",
        ["contender", "seconds", "recall at 10", "NSL takes times as long"],
        notes=[
            f"NSL's builder joins all pairs above a similarity of {_LSH['similarity_threshold']} "
            f"that its hashing finds (lsh_splits={_LSH['lsh_splits']}, "
            f"lsh_rounds={_LSH['lsh_rounds']}): {edges:,} edges, however many a node has, so it "
            "has no recall at k. Recall here: share of FAISS' exact neighbors that are in the "
            f"graph. NSL ran once, the others {rounds} times in turns.",
        ],
    )
    for name, text in names.items():
        figure = Figure.of(seconds[name].values())
        share = f"{recall[name]:.4f}" if name in recall else ("1" if name == "faiss" else "")
        times = Figure.of(theirs / s for s in seconds[name].values())
        table.rows.append([text, seconds_text(figure), share, times_text(times)])
        if name in recall:
            found.ratio(
                f"graph.nsl / {name}",
                times,
                better="higher",
                goal=100.0 if name == "ivf" and not quick else None,
            )
            found.ratio(
                f"graph.recall {name}", Figure.of([recall[name]]), better="higher", goal=0.99
            )
    exact = Figure.of(seconds["exact"][r] / seconds["faiss"][r] for r in seconds["exact"])
    found.ratio("graph.exact / faiss alone", exact, better="lower")
    found.tables.append(table)


def _faiss(features: np.ndarray) -> np.ndarray:
    """The bare search, as anyone would write it: `[N, k + 1]` neighbors, oneself among them."""
    import faiss

    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units)
    return index.search(units, _K + 1)[1]


def _recall(graph: Any, found: np.ndarray) -> float:
    hits = 0
    for node, row in enumerate(found):
        others = [other for other in row.tolist() if other != node][:_K]
        hits += len(np.intersect1d(others, graph.neighbors(node)[0]))
    return hits / (len(found) * _K)


@contextlib.contextmanager
def _nsl_files(features: np.ndarray) -> Iterator[tuple[str, str]]:
    from tfgraphreg.compat import tf

    with tempfile.TemporaryDirectory() as folder:
        examples = str(pathlib.Path(folder) / "embeddings.tfrecord")
        with tf.io.TFRecordWriter(examples) as writer:
            for number, row in enumerate(features):
                feature = {
                    "id": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[str(number).encode()])
                    ),
                    "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=row)),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        yield examples, str(pathlib.Path(folder) / "graph.tsv")


def _build_by_nsl(examples: str, graph: str) -> None:
    from tfgraphreg.compat import nsl

    config = nsl.configs.GraphBuilderConfig(random_seed=0, **_LSH)
    nsl.tools.build_graph_from_config([examples], graph, config)


def _growth(found: Found, sizes: tuple[int, ...], progress: Any) -> None:
    table = Table(
        "How a graph grows with N (x 128, k=10)",
        ["items", "search", "seconds", "recall", "largest memory"],
        notes=[
            "Each in a process of its own, whose largest memory is shown; it holds the features, "
            "which are not counted as seconds. Items beyond 60,000 are changed copies of the "
            "images: shifted, dimmed, mirrored. The method is what `auto` chooses.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        images = fashion_mnist().train.images
        for size in sizes:
            progress(f"graph of {size:,}", sizes.index(size), len(sizes))
            path = str(pathlib.Path(folder) / "features.npy")
            np.save(path, components(more_images(images, size), 128))
            answer, _, memory = in_process("graph:one_graph", path=path)
            gib = memory / 2**30
            table.rows.append(
                [
                    f"{size:,}",
                    answer["method"],
                    seconds_text(Figure.of([answer["seconds"]])),
                    f"{answer['recall']:.4f}",
                    f"{gib:.2f} GiB",
                ]
            )
            found.ratio(
                f"graph.memory {size:,} / bound",
                Figure.of([gib / _MEMORY]),
                better="lower",
                goal=1.0,
            )
    found.tables.append(table)


def one_graph(path: str) -> dict[str, Any]:
    """Builds the graph of the features in a file: seconds, method and recall."""
    from tfgraphreg.graph.knn import knn_graph

    features = np.load(path)
    start = time.perf_counter()
    graph = knn_graph(features, k=_K)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "method": graph.about["method"], "recall": graph.about["recall"]}
