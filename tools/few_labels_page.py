"""The page of what few labels and a graph are worth: docs/evidence.md from docs/evidence.jsonl."""

import collections
from collections.abc import Callable, Iterable

import numpy as np

from tfgraphreg.recipes.compare import paired_interval

BASE, RECIPE, SHORTER, BEFORE = "labels_only", "recipe", "_shorter", "_before"
PART = f"{RECIPE}_with"  # and "out": the recipe with one part changed


def page(found: list[dict], trained: list[str]) -> str:
    """docs/evidence.md.

    Args:
        found: Of each run its line of docs/evidence.jsonl.
        trained: The rows that are compared with `labels_only`, in order.
    """
    parts = [HEAD]
    for dataset in dict.fromkeys(line["dataset"] for line in found):
        mine = [line for line in found if line["dataset"] == dataset]
        parts += [
            f"## {dataset}\n",
            *tables(mine, trained),
            *in_words(mine, trained),
            *parts_table(mine, trained),
            *rounds_table(mine),
            provenance(mine),
        ]
    return "\n".join(parts)


def tables(found: list[dict], trained: list[str]) -> list[str]:
    """Inductive rows, transductive rows, and differences to labels alone."""
    budgets = budgets_of(found)
    head = head_of("row", budgets)
    made = []
    for images, title in (("test", TEST), ("training", TRAINING)):
        rows = list(dict.fromkeys(line["row"] for line in found if line["images"] == images))
        if rows:
            made.append(f"{title}\n\n{head}")
            made += [line_of(r, [cell(found, r, b) for b in budgets]) for r in rows]
            made.append("")
    made.append(f"{DIFFERENCES}\n\n{head}")
    rows = compared(found, trained)
    made += [line_of(r, [difference(found, r, b) for b in budgets]) for r in rows]
    made.append("")
    return made


def budgets_of(found: list[dict]) -> list[int]:
    """The numbers of labels a class, in order."""
    return sorted({line["labels_per_class"] for line in found})


def head_of(first: str, budgets: list[int]) -> str:
    """The first two lines of a table with a column for each budget."""
    return f"{line_of(first, map(str, budgets))}\n|---|" + "--:|" * len(budgets)


def line_of(first: str, cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join([first, *cells])} |"


def accuracies(found: list[dict], row: str, budget: int) -> dict[int, float]:
    """Accuracy in percent by seed."""
    return {
        line["seed"]: 100 * line["accuracy"]
        for line in found
        if line["row"] == row and line["labels_per_class"] == budget
    }


def cell(found: list[dict], row: str, budget: int) -> str:
    """Mean ± standard deviation (seeds)."""
    values = list(accuracies(found, row, budget).values())
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread} ({len(values)})"


def compared(found: list[dict], trained: list[str]) -> list[str]:
    """The rows there are to compare with labels alone."""
    bases = (BASE, BASE + SHORTER)
    return [r for r in trained if r not in bases and any(line["row"] == r for line in found)]


def differences(found: list[dict], row: str, budget: int, base: str = BASE) -> np.ndarray:
    """`[S]` points above another row, of as many steps and the seeds that both have."""
    shorter = row.endswith((SHORTER, BEFORE)) and accuracies(found, base + SHORTER, budget)
    others = shorter or accuracies(found, base, budget)
    ours = accuracies(found, row, budget)
    return np.array([ours[s] - others[s] for s in sorted(ours.keys() & others.keys())])


def difference(found: list[dict], row: str, budget: int, base: str = BASE) -> str:
    """Mean paired difference to another row, with its 95 % interval."""
    values = differences(found, row, budget, base)
    if not len(values):
        return ""
    ends = paired_interval(values)
    shown = f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else ""
    return f"{values.mean():+.1f}{shown} ({len(values)})"


def in_words(found: list[dict], trained: list[str]) -> list[str]:
    """What the differences say, a line for each row."""
    budgets = budgets_of(found)
    said = []
    for row in compared(found, trained):
        verdicts: dict[str, list[str]] = {}
        for budget in budgets:
            values = differences(found, row, budget)
            if len(values):
                verdicts.setdefault(verdict(values), []).append(str(budget))
        parts = [f"{words} at {', '.join(at)}" for words, at in verdicts.items()]
        if parts:
            said.append(f"- `{row}`: {'; '.join(parts)} labels a class.")
    return [WORDS, *said, ""] if said else []


def parts_table(found: list[dict], trained: list[str]) -> list[str]:
    """What the recipe loses with one part left out or another in its place."""
    rows = [
        row
        for row in compared(found, trained)
        if row.startswith(PART) and not row.endswith(BEFORE)  # The recipe of before is not here.
    ]
    budgets = budgets_of([line for line in found if line["row"] in rows])
    if not rows:
        return []
    return [
        f"{PARTS}\n\n{head_of('row', budgets)}",
        *(line_of(row, [difference(found, row, b, RECIPE) for b in budgets]) for row in rows),
        "",
    ]


def verdict(values: np.ndarray) -> str:
    """What paired differences say."""
    ends = paired_interval(values)
    if ends is None:
        return "one seed only, no judgment"
    low, high = ends
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def rounds_table(found: list[dict]) -> list[str]:
    """How right the labels are that the recipe trains on, beside what it makes of them."""
    runs = [line for line in found if line["row"] == RECIPE and line["rounds"]]
    budgets = budgets_of(runs)
    if not runs:
        return []

    def row(name: str, number: Callable[[dict], float]) -> str:
        means = [np.mean([number(r) for r in runs if r["labels_per_class"] == b]) for b in budgets]
        return line_of(name, [f"{100 * mean:.1f}" for mean in means])

    return [
        f"{ROUNDS}\n\n{head_of('', budgets)}",
        row("labels right, first round", lambda line: line["rounds"][0]["pseudo_label_accuracy"]),
        row("labels right, last round", lambda line: line["rounds"][-1]["pseudo_label_accuracy"]),
        row("test images", lambda line: line["accuracy"]),
        "",
    ]


def provenance(found: list[dict]) -> str:
    """What made the lines."""
    commits = sorted({line["commit"] for line in found})
    seconds = sum(line["seconds"] for line in found)
    versions = sorted({line["versions"]["tensorflow"] for line in found})
    machines = collections.Counter(line.get("processor", "2 cores (x86_64)") for line in found)
    on = ", ".join(f"{count} on {machine}" for machine, count in machines.items())
    return (
        f"{len(found)} runs ({on}), {seconds / 3600:.1f} hours; TensorFlow {', '.join(versions)}; "
        f"commits {', '.join(commits)}. Each run is a line of [evidence.jsonl](evidence.jsonl).\n"
    )


HEAD = """# What the graph is worth with few labels

Made by `python tools/measure_few_labels.py`, which says how; a cell is mean ± standard deviation
over seeds (their number), in percent; empty: not run yet. Labels, weights and order vary with the
seed. In all rows the seeds begin at 0; an incomplete row lacks some, and differences are of the
seeds that both rows have. `labels_only` is trained on the labeled images alone, with the network,
the augmentation, the averaged weights and at least the steps of the recipe.

Rows that end in `_before` have what the recipe had before: patches pooled 3 x 3, edges to the 10
nearest neighbors with local Gaussian weights, no copies of labeled images, float32. Each is shown
until the row without this ending has as many runs. At 40 and 160 labels a class an epoch of
the recipe passes over the images one and a half times, but in rows that end in `_shorter` or
`_before` once, as with fewer labels: those are compared with `labels_only_shorter`. Runs of labels
alone with `"precision"` among their settings in [evidence.jsonl](evidence.jsonl) were trained in
bfloat16 as the recipe is, the others in float32. Runs of the recipe before commit 6c5c61dd48 were
evaluated in bfloat16, all others in float32.

Hyperparameters were chosen on training images only, with labels drawn with seeds of 100 and more
([how they were chosen](propagation.md#how-the-numbers-were-chosen)).

Runs on the H100 shared it, 14 at a time, so their seconds say nothing. 8 more runs there ended
without a number because the check of their exports was too strict for a GPU (mended since). That
check uses no label.
"""
TEST = "Test accuracy (inductive), by labels a class."
TRAINING = "Unlabeled training images labeled right (transductive), by labels a class."
DIFFERENCES = "Difference to `labels_only` in points, same seeds, with 95 % intervals."
WORDS = f"Beside `{BASE}`, by the same intervals:\n"
PARTS = "Difference to `recipe` in points, same seeds, with 95 % intervals: what one part is worth."
ROUNDS = (
    "Labels of `recipe`, and test images that it then gets right, in percent, of the same seeds."
)
