"""What commands print of their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfgraphreg.commands.terminal import cell, say, table_console

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from tfgraphreg.export import Prediction
    from tfgraphreg.recipes.audit import Audited
    from tfgraphreg.recipes.compare import Comparison
    from tfgraphreg.recipes.find import Answer
    from tfgraphreg.recipes.propagate import Labeling

_TRAINED = (
    "test_accuracy",
    "test_mean_average_precision",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "precision_at_10",
    "mean_average_precision",
    "test_ap50",
    "test_ap75",
    "test_ap",
    "test_best_overlap",
    "test_mean_iou",
    "test_mean_dice",
    "test_mean_pixel_accuracy",
    "test_pixel_accuracy",
)
_EVALUATED = {
    None: (
        "test_accuracy",
        "test_mean_average_precision",
        "effective_rank",
        "mean_pairwise_distance",
    ),
    "classification": (
        "top_5_accuracy",
        "balanced_accuracy",
        "macro_f1",
        "micro_f1",
        "roc_auc",
        "log_loss",
        "expected_calibration_error",
        "cohen_kappa",
    ),
    "retrieval": (
        "recall_at_1",
        "recall_at_5",
        "recall_at_10",
        "precision_at_10",
        "mean_average_precision",
        "map_at_r",
        "r_precision",
        "ndcg",
        "mean_reciprocal_rank",
    ),
    "retrieval_within": ("recall_at_1", "precision_at_10", "mean_average_precision"),
    "faithfulness": ("edge_neighbor_share", "distance_ratio", "trustworthiness", "continuity"),
}


def trained(name: str, metrics: dict[str, Any]) -> None:
    """The main numbers of a run, as a table."""
    from rich.table import Table

    what = "test images as queries against the training images"
    if "test_mean_iou" in metrics:
        what = "pixels of test images"
    if "test_ap50" in metrics:
        what = "objects in test images"
    table = Table(title=f"{cell(name)}: {what}")
    shown = [name for name in _TRAINED if metrics.get(name) is not None]
    for name in shown:
        table.add_column(name.replace("test_mean", "mean").replace("_", " "), justify="right")
    table.add_row(*(f"{metrics[name]:.4f}" for name in shown))
    table_console(80).print(table)


def evaluated(found: dict[str, Any]) -> None:
    """The numbers of evaluation.json that fit a line each."""
    for group, names in _EVALUATED.items():
        values = found if group is None else found.get(group) or {}
        shown = [name for name in names if values.get(name) is not None]
        if shown and group is not None:
            what = f" ({values['set']})" if group == "retrieval_within" else ""
            say(f"{group.replace('_', ' ')}{what}:")
        for name in shown:
            say(f"  {name.replace('_', ' '):<28} {values[name]:.4f}")
    if found.get("probes"):
        say("probes on the frozen embedding:")
        for name, row in found["probes"].items():
            say(f"  {name.replace('_', ' '):<28} {row['accuracy']:.4f} ± {row['std']:.4f}")


def propagated(labeling: Labeling) -> None:
    """How many images got a label and, where it is known, how many of them the right one."""
    found = labeling.summary()
    sizes = labeling.found.class_sizes
    prior = "class sizes unknown" if sizes is None else "class sizes as a prior"
    say(
        f"{found['given']} labels given, {found['propagated']} propagated "
        f"({labeling.found.method}, {prior})"
    )
    if found["unreached"]:
        say(f"{found['unreached']} images have no label: no path of edges joins them to one")
    off = labeling.found.size_error
    if off is not None and off > 0.005:
        say(f"A class differs from its size by {off:.1%} of the images")
    if found["accuracy"] is not None:
        say(
            f"right: {found['accuracy']:.1%} of the {found['measured']} images whose class is "
            f"known and was not given; {found['accuracy_certain']:.1%} of the more certain half"
        )


def audited(found: Audited) -> None:
    """How many findings of each issue there are."""
    counts = found.found.counts()
    if found.found.label_errors is None:
        say("labels were not judged: that needs one class an image, and two of a class")
    say(
        ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n)
        or "nothing was found"
    )
    for blend in found.found.blends[:5]:
        names = found.dataset.class_names
        say(
            f"{names[blend.first]} and {names[blend.second]} blend: {blend.share:.1%} of "
            "their edges join one to the other"
        )


def searched(answers: Sequence[Answer]) -> None:
    """What was found for each query."""
    for answer in answers:
        if answer.error:
            say(f"{answer.path}: error: {answer.error}")
            continue
        says = f"the model says {answer.guess}"
        if answer.voted:
            says += f", the nearest say {answer.voted} ({answer.share:.0%})"
        if answer.unknown:
            says = f"unknown, nothing nearer than {answer.limit:.4f} ({says})"
        say(f"{answer.path}: {says}; nearest:")
        for distance, name, label in answer.nearest:
            say(f"  {distance:.4f}  {name}" + (f"  ({label})" if label else ""))


def predicted(predictions: Sequence[Prediction]) -> None:
    """The likeliest classes of each image file."""
    for prediction in predictions:
        if prediction.error:
            say(f"{prediction.name}: error: {prediction.error}")
        else:
            words = ", ".join(f"{name} {score:.1%}" for name, score in prediction.classes)
            say(f"{prediction.name}: {words}")


def compared(comparison: Comparison) -> None:
    """The tables, notes and problems of a comparison."""
    from rich.table import Table

    from tfgraphreg.recipes.tables import text_cells

    console = table_console()
    for dataset in comparison.datasets:
        header, rows = text_cells(comparison, dataset)
        table = Table(title=cell(dataset))
        words = len(comparison.columns) - 1
        for index, name in enumerate(header):
            # Two truncated names would look alike.
            side: JustifyMethod = "left" if index < words else "right"
            table.add_column(cell(name), justify=side, overflow="fold")
        for row in rows:
            table.add_row(*(cell(word) for word in row))
        console.print(table)
    for sentence in (*comparison.notes, *comparison.problems):
        console.print(cell(sentence), soft_wrap=True, highlight=False)


def backbones(rows: Sequence[dict[str, Any]]) -> None:
    """The networks that can be trained."""
    from rich.table import Table

    console = table_console()
    numbers = ("parameters", "width", "min_size", "default_size", "learning_rate")
    shown: tuple[str, ...] = ("name", "family", "library", *numbers, "paper")
    if console.width < 120:
        # Truncated words say nothing.
        shown = ("name", "parameters", "width", "min_size", "learning_rate")
    whole = ("name", "parameters")
    table = Table(title=f"{len(rows)} backbones")
    for name in shown:
        side: JustifyMethod = "right" if name in numbers else "left"
        table.add_column(name.replace("_", " "), justify=side, no_wrap=name in whole)
    for row in rows:
        table.add_row(*(f"{row[n]:,}" if n == "parameters" else str(row[n]) for n in shown))
    console.print(table)


def benchmarked(name: str, result: dict[str, Any]) -> None:
    """The tables of one benchmark."""
    from rich.table import Table

    from tfgraphreg.benchmark.page import provenance, ratio_rows

    console = table_console(160)
    console.print(f"\n[bold]{name}[/bold]: {result['about']}")
    for each in result["tables"]:
        table = Table(title=each["title"])
        for number, column in enumerate(each["columns"]):
            table.add_column(column, justify="right" if number else "left")
        for row in each["rows"]:
            table.add_row(*row)
        console.print(table)
        for note in each["notes"]:
            console.print(f"  {note}")
    goals = Table(title="Ratios that the regression guard keeps")
    for column in ("ratio", "value", "goal", "kept"):
        goals.add_column(column, justify="left" if column == "ratio" else "right")
    for cells in ratio_rows(result["ratios"]):
        goals.add_row(*cells)
    console.print(goals)
    console.print(f"  {provenance(result)}")
