"""Measures how right the first labels of the few-labels recipe are, under other settings of it.

Fills the table in docs/propagation.md. The settings of the recipe were chosen by it.

python tools/measure_pseudo_labels.py                  8 seeds, some 10 minutes on two cores
python tools/measure_pseudo_labels.py --seeds 2        a look

The 60,000 training images of Fashion-MNIST and labels drawn with seeds from 100 on, which no table
of results uses. Test images play no part.
"""

import argparse
import dataclasses
import platform
import sys

import numpy as np
from run_lines import ROOT, machine

import tfgraphreg
from tfgraphreg import knn_graph
from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.splits import keep_labels
from tfgraphreg.features import patches
from tfgraphreg.propagation import kernel_ridge, pseudo_labels
from tfgraphreg.recipes.copies import copies
from tfgraphreg.recipes.features import FEATURE_SEED

PAGE = ROOT / "docs" / "propagation.md"
BUDGETS = (1, 5, 10, 40, 160)
FIRST_SEED = 100


@dataclasses.dataclass(frozen=True)
class Choice:
    """Settings of the first labels; by default those of the recipe."""

    cells: int = patches.CELLS
    weights: str = "shared_neighbors"
    neighbors: int = 15
    copied: bool = True

    def __str__(self) -> str:
        beside = "with copies" if self.copied else "without"
        return f"{self.cells} x {self.cells} | {self.weights} | {self.neighbors} | {beside}"


CHOICES = (
    Choice(3, "local_gaussian", 10, copied=False),
    Choice(),
    Choice(cells=3),
    Choice(weights="local_gaussian"),
    Choice(weights="local_gaussian", neighbors=10),
    Choice(neighbors=10),
    Choice(neighbors=20),
    Choice(neighbors=30),
    Choice(copied=False),
)


def main() -> int:
    """Measures every choice, then fills the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8, help="so many, from 100 on")
    args = parser.parse_args()
    split = tfgraphreg.load_dataset("fashion_mnist").train
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    rows, described = [], {}
    for choice in CHOICES:
        if choice.cells not in described:
            described[choice.cells] = features(split.images, choice.cells)
        means = right(split, choice, *described[choice.cells], seeds)
        rows.append(f"| {choice} | " + " | ".join(f"{100 * mean:.1f}" for mean in means) + " |")
        print(rows[-1], flush=True)
    fill_measured(PAGE, table(rows, seeds))
    print(f"Written: {PAGE}")
    return 0


def features(images, cells: int):
    """What learned from the images, and what it says of them."""
    patches.CELLS = cells
    fitted = patches.fit_patches(images, seed=FEATURE_SEED)
    return fitted, fitted(images)


def right(split, choice: Choice, fitted, rows, seeds) -> list[float]:
    """Mean share of the unlabeled images that get their label, for each budget."""
    patches.CELLS = choice.cells
    graph = knn_graph(rows, k=choice.neighbors, weighting=choice.weights)
    found = []
    for budget in BUDGETS:
        shares = []
        for seed in seeds:
            labels = keep_labels(split, budget, seed=seed).labels
            made = copies(split.images, labels, "flip_shift") if choice.copied else None
            beside = made and (fitted(made[0]), made[1])
            second = kernel_ridge(rows, labels, 10, copies=beside)
            labeled = pseudo_labels(graph, labels, 10, class_sizes="equal", second=second)
            shares.append(np.mean((labeled.labels == split.labels)[labels < 0]))
        found.append(float(np.mean(shares)))
    return found


def table(rows: list[str], seeds: range) -> list[str]:
    """The table and how it was made."""
    head = "| features pooled | edge weights | neighbors | kernel ridge | "
    head += " | ".join(map(str, BUDGETS)) + " |\n|---|---|--:|---|" + "--:|" * len(BUDGETS)
    about = (
        f"Fashion-MNIST, unlabeled training images labeled right in the first round, in percent, "
        f"by labels a class; mean of seeds {seeds[0]} to {seeds[-1]}. Made by `python "
        f"tools/measure_pseudo_labels.py`, commit {commit()}, {machine()}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}."
    )
    return [*head.split("\n"), *rows, "", about]


if __name__ == "__main__":
    sys.exit(main())
