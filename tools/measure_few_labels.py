"""Measures what few labels and a graph are worth; writes docs/evidence.jsonl and evidence.md.

python tools/measure_few_labels.py                            all rows; hours on two cores
python tools/measure_few_labels.py --rows spreading kernel_ridge   only these
python tools/measure_few_labels.py --quick                    digits, under 30 minutes
python tools/measure_few_labels.py --page                     only the page, from the lines

A finished run is a line of docs/evidence.jsonl and is not run again. Labels, weights and order of a
run are drawn from its seed; all rows of a budget have the same seeds. Test accuracy is inductive:
test images are in no graph. Rows of "training images" are transductive: they say how many of the
unlabeled training images got their label right.
"""

import argparse
import collections
import dataclasses
import logging
import os
import platform
import sys
import tempfile
import time

import numpy as np
from few_labels_page import BEFORE, SHORTER, page
from run_lines import ROOT, add_line, read_lines

import tfgraphreg
from tfgraphreg.benchmark.results import commit
from tfgraphreg.config import flat, names_of, recipe_file
from tfgraphreg.data.splits import keep_labels
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.propagation import kernel_ridge, propagate, pseudo_labels
from tfgraphreg.propagation.kernel import unit_length
from tfgraphreg.propagation.settings import PropagationSettings
from tfgraphreg.reading import read_yaml
from tfgraphreg.recipes.batches import labeled_batch_size
from tfgraphreg.recipes.copies import features_of_copies
from tfgraphreg.recipes.defaults import settled_passes, settled_precision
from tfgraphreg.recipes.features import FEATURE_SEED, graph_features
from tfgraphreg.recipes.learn import plan_epoch
from tfgraphreg.recipes.material import prepare
from tfgraphreg.recipes.versions import versions
from tfgraphreg.storage import write_text

LINES, PAGE = ROOT / "docs" / "evidence.jsonl", ROOT / "docs" / "evidence.md"
BUDGETS = (1, 5, 10, 40, 160)
SEEDS = {1: 10, 5: 10, 10: 5, 40: 5, 160: 5}
FEWER = (1, 10, 160)  # budgets of the rows that explain the others

_FILE = flat(read_yaml(recipe_file("few-labels")))
GRAPH = {name: _FILE[name] for name in ("graph_features", "graph_weights", "graph_neighbors")}
NETWORK = {name: _FILE[name] for name in ("backbone", "augment", "ema_momentum", "epochs")}
NETWORK["batch_size"] = 128
RECIPE = {name: _FILE[name] for name in names_of(PropagationSettings) if name in _FILE}
PAIRED = {"alpha": 0.1, "neighbors": "paired", **GRAPH}

# Training rows: what is set beside NETWORK. All take the same number of steps of 128 images, in
# the recipe's number format.
TRAINED = {
    "labels_only": {"alpha": 0.0},
    "recipe": {"alpha": 0.0, **RECIPE, **GRAPH},
    "pull": PAIRED,
    "contrast": {**PAIRED, "graph_loss": "contrast"},
    "pull_random_graph": {**PAIRED, "graph": "random"},
    "pull_oracle_graph": PAIRED,
    "propagation_on_random_graph": {
        "alpha": 0.0,
        **GRAPH,
        "propagate": "spreading",
        "class_sizes": "equal",
        "graph": "random",
    },
    "recipe_without_kernel_ridge": {
        "alpha": 0.0,
        **RECIPE,
        **GRAPH,
        "feature_classifier": "none",
    },
    "recipe_without_class_sizes": {"alpha": 0.0, **RECIPE, **GRAPH, "class_sizes": "unknown"},
    "recipe_without_rebuilding": {"alpha": 0.0, **RECIPE, **GRAPH, "rebuild_graph_every": 0},
    "recipe_with_pca": {"alpha": 0.0, **RECIPE, **GRAPH, "graph_features": "pca"},
    "recipe_without_average": {"alpha": 0.0, **RECIPE, **GRAPH, "ema_momentum": 0.0},
    "recipe_without_augmentation": {"alpha": 0.0, **RECIPE, **GRAPH, "augment": "none"},
}
# With many labels an epoch of the recipe is longer; these are as with few, see docs/propagation.md.
TRAINED["recipe_shorter"] = {**TRAINED["recipe"], "passes_per_epoch": 1}
TRAINED["labels_only_shorter"] = TRAINED["labels_only"]
MANY = (40, 160)  # budgets of these two
EVERY_BUDGET = ("labels_only", "recipe")
METHODS = ("laplace", "spreading", "poisson", "poisson-reweighted")
# Rows without a network: name -> which images are asked.
GRAPH_ROWS = {
    **{method: "training" for method in METHODS},
    **{f"{method}_equal_sizes": "training" for method in (*METHODS, "poisson-mbo")},
    "spreading_and_kernel_ridge": "training",
    "kernel_ridge": "test",
    "nearest_neighbor": "test",
    "linear_probe": "test",
}


def main() -> int:
    """Runs what is missing, then writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=[*TRAINED, *GRAPH_ROWS])
    parser.add_argument("--budgets", nargs="+", type=int, choices=BUDGETS)
    parser.add_argument("--seeds", type=int, help="so many seeds instead of the protocol's")
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits instead")
    parser.add_argument("--page", action="store_true", help="write the page from what is there")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    dataset = "digits" if args.quick else "fashion_mnist"
    if not args.page:
        done = {
            (line["dataset"], line["row"], line["labels_per_class"], line["seed"])
            for line in read_lines(LINES)
        }
        for row, budget, seed in wanted(args):
            if (dataset, row, budget, seed) not in done:
                measure(dataset, row, budget, seed)
    write_text(PAGE, page(shown(read_lines(LINES)), [*TRAINED, *(f"{r}{BEFORE}" for r in TRAINED)]))
    print(f"Written: {PAGE}")
    return 0


def wanted(args) -> list[tuple[str, int, int]]:
    """The runs that were asked for, cheap rows first, then by seed."""
    found = []
    for row in [*GRAPH_ROWS, *TRAINED]:
        if args.rows and row not in args.rows:
            continue
        full = row in GRAPH_ROWS or row in EVERY_BUDGET
        own = BUDGETS if full else MANY if row.endswith(SHORTER) else FEWER
        for budget in args.budgets or own:
            if args.quick and budget > 40:  # the smallest class has fewer images
                continue
            found += [(row, budget, seed) for seed in range(args.seeds or SEEDS[budget])]
    return sorted(found, key=lambda run: (run[0] in TRAINED, run[2], run[1]))


def shown(lines: list[dict]) -> list[dict]:
    """The lines of the page in the order of the rows.

    Those of a row as it was before only until as many runs have been measured again.
    """
    cells = collections.Counter(
        (line["dataset"], line["labels_per_class"], line["row"]) for line in lines
    )
    needed = {
        row for (*of, row), runs in cells.items() if cells[(*of, row.removesuffix(BEFORE))] < runs
    }
    order = [*GRAPH_ROWS, *TRAINED]
    return sorted(
        (line for line in lines if not line["row"].endswith(BEFORE) or line["row"] in needed),
        key=lambda line: order.index(line["row"].removesuffix(BEFORE)),
    )


def measure(dataset: str, row: str, budget: int, seed: int) -> None:
    """Does one run and adds its line."""
    print(f"{dataset}, {budget} labels a class, seed {seed}: {row}", end=" ", flush=True)
    started = time.perf_counter()
    found = (
        trained(dataset, row, budget, seed) if row in TRAINED else asked(dataset, row, budget, seed)
    )
    line = {
        "dataset": dataset,
        "row": row,
        "labels_per_class": budget,
        "seed": seed,
        **found,
        "seconds": round(time.perf_counter() - started, 1),
        "processor": processor(),
        "commit": commit(),
        "versions": versions(),
    }
    add_line(LINES, line)
    print(f"{found['accuracy']:.4f}, {line['seconds']:.0f} s", flush=True)


def processor() -> str:
    """What the run was computed on."""
    from tfgraphreg.compat import tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(map(str, names)) or f"{os.cpu_count()} cores ({platform.machine()})"


def trained(dataset: str, row: str, budget: int, seed: int) -> dict:
    """Trains a network; inductive test accuracy."""
    settings = {**NETWORK, **TRAINED[row]}
    shorter = SHORTER if row.endswith(SHORTER) else ""
    recipe = {**NETWORK, **TRAINED[f"recipe{shorter}"]}
    settings |= same_steps(dataset, settings, recipe, budget, seed)
    settings["precision"] = settled_precision(tfgraphreg.TrainConfig(**recipe))
    run_of = {"dataset": dataset, "labels_per_class": budget, "seed": seed}
    graph = None
    if row == "pull_oracle_graph":
        graph = oracle(tfgraphreg.TrainConfig(**run_of, **settings))
        settings = {name: settings[name] for name in settings if name not in GRAPH}
    with tempfile.TemporaryDirectory() as folder:
        config = tfgraphreg.TrainConfig(
            **run_of, run_dir=f"{folder}/run", export_dir=f"{folder}/model", **settings
        )
        run = tfgraphreg.train(config, graph=graph)
    rounds = run.metrics["rounds"]
    return {
        "images": "test",
        "accuracy": run.metrics["test_accuracy"],
        "mean_average_precision": run.metrics["mean_average_precision"],
        "epochs": len(run.history),
        "rounds": rounds,
        "settings": settings,
    }


def same_steps(dataset: str, settings: dict, recipe: dict, budget: int, seed: int) -> dict:
    """As many epochs as give at least the recipe's steps: an epoch of two streams is longer."""
    of = {"dataset": dataset, "labels_per_class": budget, "seed": seed}
    probe, full = tfgraphreg.TrainConfig(**of, **settings), tfgraphreg.TrainConfig(**of, **recipe)
    data = tfgraphreg.load_dataset(dataset)
    split = keep_labels(data.train, budget, seed=seed)

    def steps(config):
        rows = labeled_batch_size(config, split)
        passes = settled_passes(config, split, data.num_classes)
        return plan_epoch(config, len(split), labeled=rows, passes=passes).steps

    every = settings.get("rebuild_graph_every") or 1
    epochs = -(-steps(full) * recipe["epochs"] // steps(probe))
    return {"epochs": -(-epochs // every) * every}


def oracle(config) -> SimilarityGraph:
    """The config's graph less its edges between images of different classes: an upper bound."""
    material = prepare(config, lambda *_: None)
    graph, labels = material.graph, material.true_labels
    sources = graph.sources()
    keep = labels[sources] == labels[graph.indices]
    return SimilarityGraph.from_edges(
        sources[keep], graph.indices[keep], graph.weights[keep], graph.num_nodes
    )


def asked(dataset: str, row: str, budget: int, seed: int) -> dict:
    """Labels without a network."""
    config = tfgraphreg.TrainConfig(
        dataset=dataset, labels_per_class=budget, seed=seed, alpha=0.1, **GRAPH
    )
    material = prepare(config, lambda *_: None)
    data, labels = material.dataset, material.dataset.train.labels
    if GRAPH_ROWS[row] == "test":
        features = graph_features(config, data, lambda *_: None)
        copies = copies_of(config, data)
        predicted = by_features(
            row, features, labels, test_features(data), data.num_classes, copies
        )
        right = predicted == data.test.labels
    else:
        right = over_graph(row, material, config)[~data.train.labeled]
    return {"images": GRAPH_ROWS[row], "accuracy": float(np.mean(right)), "settings": GRAPH}


def over_graph(row: str, material, config) -> np.ndarray:
    """`[N]` bool: which training images get their label over the graph."""
    data, labels = material.dataset, material.dataset.train.labels
    if row == "spreading_and_kernel_ridge":
        features = graph_features(config, data, lambda *_: None)
        second = kernel_ridge(features, labels, data.num_classes, copies=copies_of(config, data))
        found = pseudo_labels(
            material.graph, labels, data.num_classes, class_sizes="equal", second=second
        ).labels
    else:
        method, _, sizes = row.partition("_")
        found = propagate(
            material.graph,
            labels,
            data.num_classes,
            method=method,
            class_sizes="equal" if sizes else None,
        ).labels
    return found == material.true_labels


_CACHE: dict = {}


def test_features(data) -> np.ndarray:
    """Patch features of the test images, by what was learned from the training images."""
    from tfgraphreg.features.patches import fit_patches

    if data.checksum not in _CACHE:
        _CACHE[data.checksum] = fit_patches(data.train.images, seed=FEATURE_SEED)(data.test.images)
    return _CACHE[data.checksum]


def copies_of(config, data):
    """Features of the labeled images as the recipe shows them, and their labels."""
    config = dataclasses.replace(config, augment=_FILE["augment"])
    return features_of_copies(config, data, data.train.labels, lambda *_: None)


def by_features(row: str, train, labels, test, num_classes: int, copies) -> np.ndarray:
    """Class numbers of the test images, from the labeled images' features alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    lab = labels >= 0
    train, labels = train[lab], labels[lab]
    if row == "kernel_ridge":
        both = np.concatenate([train, test])
        given = np.concatenate([labels, np.full(len(test), -1)])
        found = kernel_ridge(both, given, num_classes, copies=copies)
        return found[len(train) :].argmax(axis=1)
    model = (
        KNeighborsClassifier(1)
        if row == "nearest_neighbor"
        else LogisticRegression(C=100, max_iter=1000)
    )
    return model.fit(unit_length(train), labels).predict(unit_length(test))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigError as error:
        sys.exit(f"error: {error}")
