"""Measures how a search says no, and what a few images make of a new class; fills docs/open_set.md.

python tools/measure_new_classes.py            3 choices of left-out classes, 3 seeds
python tools/measure_new_classes.py --page     only the tables, from docs/open_set.jsonl

A finished run is a line of docs/open_set.jsonl and is not run again. Fashion-MNIST; a network is
trained on 600 images of each class but two, and its limit is set by 100 others of each of these
classes. All 10,000 test images are asked about.

Chosen before anything was measured here: the score is the distance to the nearest image (k = 1),
since one added image is to make its class known; 5 images vote, as in a search without `--k`; the
limit accepts 0.95; the pairs of classes that are left out go from unlike all others to like them.
The other k stand in the tables to compare with.
"""

import argparse
import functools
import os
import sys
import tempfile
import time

import numpy as np
from measure_few_labels import processor
from new_classes_page import tables
from run_lines import ROOT, add_line, read_lines

import tfgraphreg
from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.cli import exit_status
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.evaluation.open_set import auroc, open_set_report
from tfgraphreg.recipes.versions import versions
from tfgraphreg.search.threshold import accepting_limit
from tfgraphreg.search.vote import vote
from tfgraphreg.visualize.search import Searcher

LINES, PAGE = ROOT / "docs" / "open_set.jsonl", ROOT / "docs" / "open_set.md"
PAIRS = (("Trouser", "Bag"), ("Sandal", "Ankle boot"), ("Coat", "Shirt"))
SEEDS = 3
IMAGES, KNOWN, SHARE = 600, 100, 0.95  # of each class: to train on, to set the limit by
ADDED = (1, 5, 10, 50)
SCORES = (1, 5, 10, 50)  # k of the score
VOTES = (1, 5)
SETTINGS = {"backbone": "cnn", "epochs": 5, "batch_size": 128}


@functools.cache
def data() -> Dataset:
    return tfgraphreg.load_dataset("fashion_mnist")


def drawn(seed: int) -> list[np.ndarray]:
    """The training images of each class, in an order of chance."""
    rng, labels = np.random.default_rng(seed), data().train.labels
    return [rng.permutation(np.flatnonzero(labels == c)) for c in range(data().num_classes)]


def train_on(rows: np.ndarray, classes: list[int], seed: int):
    """A predictor of a network that has seen these training images, and its class numbers."""
    full = data()
    number = {c: i for i, c in enumerate(classes)}

    def part(split: Split, chosen: np.ndarray) -> Split:
        labels = np.array([number[c] for c in split.labels[chosen].tolist()])
        return Split(np.asarray(split.images)[chosen], labels, split.ids[chosen])

    # The run measures itself by a few test images only: all of them are asked about below.
    test = np.flatnonzero(np.isin(full.test.labels, classes))[:200]
    dataset = Dataset(
        name="fashion_mnist",
        train=part(full.train, rows),
        validation=part(full.train, rows[:0]),
        test=part(full.test, test),
        class_names=tuple(full.class_names[c] for c in classes),
        source=full.source,
        checksum=f"{full.checksum} {seed} {len(rows)} {classes}",
    )
    with tempfile.TemporaryDirectory() as folder:
        # Features and graphs of runs that are never made again.
        os.environ["TFGRAPHREG_CACHE"] = f"{folder}/cache"
        config = tfgraphreg.TrainConfig(
            seed=seed, run_dir=f"{folder}/run", export_dir=f"{folder}/model", **SETTINGS
        )
        return tfgraphreg.train(config, dataset=dataset).predictor


def embedded(predictor, split: Split, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    images = np.asarray(split.images)
    return predictor(images if rows is None else images[rows])


def with_index(predictor, rows: np.ndarray) -> Searcher:
    """The index of these training images, with their true class numbers as labels."""
    searcher = Searcher(predictor.embedding_dim)
    add(searcher, predictor, rows)
    return searcher


def add(searcher: Searcher, predictor, rows: np.ndarray) -> None:
    train = data().train
    vectors = embedded(predictor, train, rows)["embedding"]
    searcher.add(train.ids[rows], embeddings=vectors, labels=train.labels[rows].astype(str))


def by_index(pair: tuple[str, str], seed: int) -> dict:
    """A network that never saw a pair of classes: its score, and the pair in its index."""
    names = list(data().class_names)
    new = [names.index(name) for name in pair]
    old = [c for c in range(len(names)) if c not in new]
    order = drawn(seed)
    rows = np.concatenate([order[c][:IMAGES] for c in old])
    calibration = np.concatenate([order[c][IMAGES : IMAGES + KNOWN] for c in old])
    predictor = train_on(rows, old, seed)
    searcher = with_index(predictor, rows)
    known, test = embedded(predictor, data().train, calibration), embedded(predictor, data().test)
    searcher.calibrate(SHARE, embeddings=known["embedding"])
    labels = data().test.labels
    is_new = np.isin(labels, new)
    found = searcher.search(test["embedding"], k=max(SCORES))
    distances = {k: found.distances[:, k - 1] for k in SCORES}
    own = {f"distance, k = {k}": report(distances[k], is_new) for k in SCORES}
    own["distance, k = 1"] = open_set_report(
        distances[1][~is_new], distances[1][is_new], limit=searcher.limit
    )
    least_sure = 1 - test["probabilities"].max(axis=1)
    own["softmax"] = open_set_report(
        least_sure[~is_new],
        least_sure[is_new],
        limit=accepting_limit(1 - known["probabilities"].max(axis=1), SHARE),
    )
    guess = np.array(old)[test["probabilities"].argmax(axis=1)]
    made = {"scores": own, "before": accuracies(guess, labels, is_new), "added": {}}
    done = 0
    for m in ADDED:
        more = np.concatenate([order[c][done:m] for c in new])
        started = time.perf_counter()
        add(searcher, predictor, more)
        limit, seconds, done = searcher.limit, time.perf_counter() - started, m
        made["added"][m] = asked(searcher, test["embedding"], labels, is_new)
        made["added"][m] |= {"limit": limit, "seconds": round(seconds, 2)}
    return made


def report(scores: np.ndarray, is_new: np.ndarray) -> dict:
    return {"auroc": auroc(scores[~is_new], scores[is_new])}


def asked(searcher: Searcher, vectors: np.ndarray, labels: np.ndarray, is_new: np.ndarray) -> dict:
    """Accuracy by the index, and whom its limit, set anew by the same images, accepts."""
    found = searcher.search(vectors, k=max(VOTES))
    said = {}
    for k in VOTES:
        guess = vote(found.labels[:, :k], found.distances[:, :k])[0].astype(int)
        said[f"k = {k}"] = accuracies(guess, labels, is_new)
    accepted = ~found.unknown
    said["known_accepted"] = float(accepted[~is_new].mean())
    said["new_accepted"] = float(accepted[is_new].mean())
    return said


def accuracies(guess: np.ndarray, labels: np.ndarray, is_new: np.ndarray) -> dict:
    right = guess == labels
    return {
        "all": float(right.mean()),
        "new": float(right[is_new].mean()),
        "old": float(right[~is_new].mean()),
    }


def retrained(pair: tuple[str, str], seed: int, m: int) -> dict:
    """A network trained from scratch with the added images too."""
    names = list(data().class_names)
    new = [names.index(name) for name in pair]
    order = drawn(seed)
    count = [m if c in new else IMAGES for c in range(len(names))]
    rows = np.concatenate([order[c][: count[c]] for c in range(len(names))])
    predictor = train_on(rows, list(range(len(names))), seed)
    test, labels = embedded(predictor, data().test), data().test.labels
    is_new = np.isin(labels, new)
    found = with_index(predictor, rows).search(test["embedding"], k=5)
    return {
        "softmax": accuracies(test["probabilities"].argmax(axis=1), labels, is_new),
        "index, k = 5": accuracies(found.vote()[0].astype(int), labels, is_new),
    }


def seen(seed: int) -> dict:
    """A network that was trained on all classes, pairs left out of its index alone."""
    names, order = list(data().class_names), drawn(seed)
    rows = np.concatenate([order[c][:IMAGES] for c in range(len(names))])
    predictor = train_on(rows, list(range(len(names))), seed)
    vectors, labels = embedded(predictor, data().test)["embedding"], data().test.labels
    of, distances = with_index(predictor, rows).nearest_of_each_label(vectors)
    made = {}
    for pair in PAIRS:
        new = [names.index(name) for name in pair]
        kept = [i for i, name in enumerate(of) if int(name) not in new]
        made[", ".join(pair)] = report(distances[:, kept].min(axis=1), np.isin(labels, new))
    return made


def wanted(seeds: int) -> list[tuple]:
    """What is measured: `(what, pair, seed, images added)`."""
    found = []
    for seed in range(seeds):
        found.append(("seen", "", seed, 0))
        for pair in PAIRS:
            found.append(("index", ", ".join(pair), seed, 0))
            found += [("retrained", ", ".join(pair), seed, m) for m in ADDED]
    return found


def measure(what: str, pair: str, seed: int, m: int) -> None:
    """Does one run and adds its line."""
    print(f"{what} {pair} seed {seed} {m or ''}", end=" ", flush=True)
    started, classes = time.perf_counter(), tuple(pair.split(", "))
    if what == "seen":
        found = seen(seed)
    elif what == "index":
        found = by_index(classes, seed)
    else:
        found = retrained(classes, seed, m)
    line = {
        "what": what,
        "left_out": pair,
        "seed": seed,
        "added": m,
        "found": found,
        "seconds": round(time.perf_counter() - started, 1),
        "processor": processor(),
        "commit": commit(),
        "versions": versions(),
    }
    add_line(LINES, line)
    print(f"{line['seconds']:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--page", action="store_true", help="only the tables, from what is there")
    args = parser.parse_args()
    if not args.page:
        done = {(x["what"], x["left_out"], x["seed"], x["added"]) for x in read_lines(LINES)}
        for run in wanted(args.seeds):
            if run not in done:
                measure(*run)
    fill_measured(PAGE, tables(read_lines(LINES)))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
