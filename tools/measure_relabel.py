"""Measures what `--drop` and `--relabel` are worth where a fifth of the labels is wrong.

Fills the second table of docs/audit.md.

    python tools/measure_relabel.py            3 seeds, 6,000 images of Fashion-MNIST, fcnn

Labels of training images are changed, audited by their features, and dropped or relabeled as
audit.csv says; the network is trained on the rest and asked about all 10,000 test images.
"""

import argparse
import csv
import dataclasses
import pathlib
import sys
import tempfile

import numpy as np

from tfgraphreg.audit import find_label_errors
from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.cli import exit_status
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.dropped import without
from tfgraphreg.data.relabeled import relabeled
from tfgraphreg.features import extract_features
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.recipes.train import train

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from measure_audit import with_noise  # noqa: E402

PAGE = ROOT / "docs" / "audit.md"
MARK = "relabel"
NOISES = ("nearest", "uniform")
SHARE = 0.2
ARMS = ("true labels", "wrong labels", "--drop", "--relabel")


def labeled(dataset: Dataset, labels: np.ndarray) -> Dataset:
    return dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, labels=labels))


def audit_file(path: pathlib.Path, dataset: Dataset, vectors: np.ndarray) -> None:
    """The label errors of audit.csv, as `tfgraphreg audit` finds them."""
    graph = knn_graph(vectors, k=10, weighting="local_gaussian")
    labels = dataset.train.labels
    found = find_label_errors(graph, labels, dataset.num_classes, vectors=vectors)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "issue", "suggested", "action"])
        for item in np.flatnonzero(found.suspected):
            suggested = dataset.class_names[found.suggested[item]]
            writer.writerow([dataset.train.ids[item], "label_error", suggested, "drop"])


def accuracy(dataset: Dataset, seed: int, epochs: int, folder: pathlib.Path) -> float:
    config = TrainConfig(
        backbone="fcnn",
        alpha=0.0,
        epochs=epochs,
        seed=seed,
        run_dir=str(folder / "run"),
        export_dir=str(folder / "model"),
    )
    return train(config, dataset=dataset).metrics["test_accuracy"]


def rows(clean: Dataset, vectors: np.ndarray, noise: str, seed: int, epochs: int):
    """Accuracy and the share of wrong labels of each arm."""
    true = clean.train.labels
    given, _ = with_noise(vectors, true, noise, SHARE, seed)
    wrong = labeled(clean, given)
    place = {name: i for i, name in enumerate(clean.train.ids.tolist())}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        audit_file(folder / "audit.csv", wrong, vectors)
        arms = [clean, wrong, without(wrong, folder / "audit.csv")]
        arms.append(relabeled(wrong, folder / "audit.csv"))
        for number, data in enumerate(arms):
            rest = true[[place[i] for i in data.train.ids.tolist()]]
            share = float((data.train.labels != rest).mean())
            yield ARMS[number], accuracy(data, seed, epochs, folder / str(number)), share


def table(found: dict[tuple[str, str], list[tuple[float, float]]], args) -> list[str]:
    """A row for each noise and arm, and where the numbers come from."""
    lines = ["| noise | labels | seeds | test accuracy | wrong labels left (%) |"]
    lines.append("|---|---|--:|--:|--:|")
    for (noise, arm), pairs in found.items():
        scores, shares = np.array(pairs).T
        spread = f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
        cells = (noise, arm, len(scores), f"{scores.mean():.4f}{spread}", 100 * shares.mean())
        lines.append("| {} | {} | {} | {} | {:.1f} |".format(*cells))
    return [
        *lines,
        "",
        f"Provenance: {args.images} training images of Fashion-MNIST, 20 % of their labels "
        f"changed; `fcnn`, {args.epochs} epochs, alpha 0; audit by {args.features} features; mean "
        f"and standard deviation over seeds, 10,000 test images; commit {commit()}. Made by "
        "`python tools/measure_relabel.py`.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--features", default="pca")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    args = parser.parse_args()
    clean = load_dataset("fashion_mnist", limit=args.images)
    vectors = extract_features(args.features, clean.train.images)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(args.seeds):
        for noise in NOISES:
            for arm, score, share in rows(clean, vectors, noise, seed, args.epochs):
                found.setdefault((noise, arm), []).append((score, share))
                print(noise, seed, arm, f"{score:.4f}", f"{share:.4f}", flush=True)
            fill_measured(args.page, table(found, args), mark=MARK)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
