"""What commands print of their results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfgraphreg.commands.terminal import cell, say, table_console
from tfgraphreg.runs.run import PARTS

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from tfgraphreg.export import BoxPrediction, Detection
    from tfgraphreg.recipes.audit import Audited
    from tfgraphreg.recipes.compare import Comparison
    from tfgraphreg.recipes.complete import MaskLabeling
    from tfgraphreg.recipes.find import Answer
    from tfgraphreg.recipes.predict import Predictions
    from tfgraphreg.recipes.propagate import Labeling

_TRAINED = (
    "test_accuracy",
    "test_mean_average_precision",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "precision_at_10",
    "mean_average_precision",
    *PARTS,
)
_EVALUATED = {
    None: (
        "test_accuracy",
        "test_mean_average_precision",
        *PARTS,
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
    "detection": ("voc_ap50", "voc07_ap50"),
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
    _by_class(found)


def _by_class(found: dict[str, Any]) -> None:
    """A row of numbers for each class of a run of boxes or masks."""
    from rich.table import Table

    if "detection" in found:
        rows = found["detection"]["by_class"]
    elif "segmentation" in found:
        report = found["segmentation"]
        rows = {n: {"iou": v, "dice": report["dice"][n]} for n, v in report["iou"].items()}
    else:
        return
    table = Table(title="by class")
    table.add_column("class", overflow="fold")
    for name in next(iter(rows.values()), ()):
        table.add_column(name.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(cell(name), *(_number(value) for value in row.values()))
    table_console(100).print(table)


def _number(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


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


def completed(labeling: MaskLabeling) -> None:
    """How many pixels were given and, where it is known, how many of the others are right."""
    found = labeling.summary()
    say(
        f"{found['given']:,} pixels of {found['images_given']} of {found['images']} images given; "
        f"{found['superpixels']:,} superpixels, {found['edges']:,} edges "
        f"({labeling.found.found.method})"
    )
    if found["unreached"]:
        say(f"{found['unreached']:,} pixels have no label: no path of edges joins them to one")
    if found["measured"]:
        say(
            f"right: {found['pixel_accuracy']:.1%} of the {found['measured']:,} pixels whose class "
            f"is known and was not given; mean IoU {found['mean_iou']:.3f}"
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
        if answer.region:
            says += f" at {_place(answer.region)}"
        if answer.voted:
            says += f", the nearest say {answer.voted} ({answer.share:.0%})"
        if answer.unknown:
            says = f"unknown, nothing nearer than {answer.limit:.4f} ({says})"
        say(f"{answer.path}: {says}; nearest:")
        for distance, name, label in answer.nearest:
            say(f"  {distance:.4f}  {name}" + (f"  ({label})" if label else ""))


def predicted(predictions: Predictions) -> None:
    """What a model finds in each image file."""
    from tfgraphreg.export import BoxPrediction, MaskPrediction

    for each in predictions:
        if each.error:
            say(f"{each.name}: error: {each.error}")
        elif isinstance(each, BoxPrediction):
            _boxes(each)
        else:
            shares = each.shares if isinstance(each, MaskPrediction) else each.classes
            say(f"{each.name}: {', '.join(f'{name} {share:.1%}' for name, share in shares)}")


def _boxes(each: BoxPrediction) -> None:
    height, width = each.size
    count = len(each.detections) or "nothing"
    say(f"{each.name} ({width} x {height} pixels): {count} found")
    for one in each.detections:
        say(f"  {one.class_name} {one.score:.1%}, {_place(one)}")


def _place(one: Detection) -> str:
    left, top, right, bottom = one.box
    return f"x {left:.1f} to {right:.1f}, y {top:.1f} to {bottom:.1f}"


def compared(comparison: Comparison) -> None:
    """The tables, notes and problems of a comparison."""
    from rich.table import Table

    from tfgraphreg.recipes.tables import text_cells

    console = table_console()
    for title, found in comparison.tables.items():
        header, rows = text_cells(comparison, found)
        table = Table(title=cell(title))
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
