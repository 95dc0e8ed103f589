"""A finished run as a value, and the one reader of finished run folders."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from typing import TYPE_CHECKING, Any

from tfgraphreg import config as configs
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import DataError, RunError, TFGraphRegError
from tfgraphreg.reading import read_json
from tfgraphreg.runs.folder import CONFIG, EVALUATION, METRICS, RunFolder
from tfgraphreg.storage import check_note, note_of
from tfgraphreg.training.history import HISTORY, Row, read_history

if TYPE_CHECKING:
    from tfgraphreg.export import BoxPredictor, MaskPredictor, Predictor

# The numbers that the reports in metrics.json and evaluation.json hold.
REPORTED = {
    "classification": (
        *("top_5_accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "micro_f1"),
        *("roc_auc", "log_loss", "expected_calibration_error", "cohen_kappa"),
    ),
    "retrieval": ("map_at_r", "r_precision", "ndcg", "mean_reciprocal_rank"),
    "faithfulness": ("edge_neighbor_share", "distance_ratio", "trustworthiness", "continuity"),
    "probes": ("knn", "logistic_regression", "linear_svm", "random_forest", "mlp"),
    "detection": ("voc_ap50", "voc07_ap50"),
}
PARTS = (
    "test_ap50",
    "test_ap75",
    "test_ap",
    "test_best_overlap",
    "test_mean_iou",
    "test_mean_dice",
    "test_mean_pixel_accuracy",
    "test_pixel_accuracy",
)
"""What metrics.json says of runs of boxes, and of masks."""

MAIN = {"classify": "test_accuracy", "segment": "test_mean_iou", "detect": "test_ap50"}
"""The number by which runs of a task are compared first."""

_AGAIN = "Run `tfgraphreg evaluate` again."


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A finished run: what `train` returns, and what a run folder holds.

    Attributes:
        path: The run folder.
        config: What the run did.
        metrics: The content of metrics.json; of a run that was read, also the single numbers of
            its reports and of evaluation.json.
        history: A row for each epoch, as in history.csv.
        model: The trained classifier, a `keras.Model` that gives `embedding` and `logits`; None
            for a run that was read from its folder. `predictor` serves both.
    """

    path: pathlib.Path
    config: TrainConfig
    metrics: dict[str, Any]
    history: list[Row]
    model: Any = None

    def __repr__(self) -> str:
        shown = [f"{self.config.dataset}", f"{len(self.history)} epochs"]
        for name in (*MAIN.values(), "recall_at_1"):
            value = number(self.metrics, name)
            if value is not None:
                shown.append(f"{name.replace('_', ' ')} {value:.4f}")
        return f"Run({str(self.path)!r}: {', '.join(shown)})"

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.path.name

    @property
    def score(self) -> float | None:
        """The number of `MAIN`; None where nothing could be judged."""
        return number(self.metrics, MAIN[self.config.task])

    @property
    def folder(self) -> RunFolder:
        """The folder, as the other recipes take it."""
        return RunFolder(self.path, self.config)

    @property
    def graph_file(self) -> str | None:
        """The digest of the user's own graph, which the config knows by name only."""
        return self.metrics.get("graph_file")

    @functools.cached_property
    def predictor(self) -> Predictor | MaskPredictor | BoxPredictor:
        """The exported model, loaded: a `MaskPredictor` of a run of the task segment, a
        `BoxPredictor` of one of the task detect.

        Raises:
            ModelError: If it is gone.
        """
        from tfgraphreg.export import PREDICTORS

        return PREDICTORS[self.config.task](self.folder.export_path)


def read_finished(path: os.PathLike[str] | str) -> Run:
    """A finished run.

    Raises:
        RunError: If the folder is missing, broken or of an unfinished run.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise RunError(f"{path} is no folder.", cure="Name run folders, such as runs/NAME.")
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} is no run folder: it has no {CONFIG}.")
    if not (path / METRICS).is_file():
        raise RunError(
            f"The run {path} is not finished: it has no {METRICS}.",
            cure="Finish it: the same run with `resume=True`.",
        )
    try:
        config = configs.read(path / CONFIG)
        metrics = read_json(path / METRICS)
        history = read_history(path / HISTORY)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"The run folder {path} is broken ({error}).") from error
    if not history and note_of(path / HISTORY).exists():
        raise RunError(f"The run folder {path} is broken ({HISTORY} is gone or empty).")
    main = MAIN[config.task]
    # Test images in which nothing counts have no average precision and no IoU.
    nothing = config.task != "classify" and metrics.get(main, main) is None
    if number(metrics, main) is None and not nothing:
        raise RunError(f"The run folder {path} is broken: {METRICS} has no number as {main}.")
    try:
        check_note(path / METRICS)
        metrics = {**_reported(path, config, metrics), **metrics}
    except (TypeError, ValueError, AttributeError, TFGraphRegError) as error:
        raise RunError(f"The run folder {path} is broken ({error}).") from error
    return Run(path, config, metrics, history)


def read_evaluation(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of a run folder's evaluation.json, or None if none was written.

    Raises:
        DataError: If it is no JSON object, or is gone.
    """
    path = folder / EVALUATION
    if not path.exists():
        if note_of(path).exists():
            raise DataError(f"{path} is gone, though {note_of(path).name} is there.", cure=_AGAIN)
        return None
    try:
        found = read_json(path)
        check_note(path)
    except ValueError as error:
        raise DataError(f"{path} is broken ({error}).", cure=_AGAIN) from error
    return found


def number(metrics: dict[str, Any], name: str) -> float | None:
    """A metric that is a finite number, else None."""
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _reported(path: pathlib.Path, config: TrainConfig, metrics: dict[str, Any]) -> dict[str, Any]:
    """The single numbers of the reports about a run."""
    reports = {name: metrics.get(name) for name in ("classification", "detection")}
    evaluation = read_evaluation(path) or {}
    if evaluation.get("retrieval_distance") == config.distance:
        reports.update({name: evaluation.get(name) for name in ("retrieval", "faithfulness")})
    probes = evaluation.get("probes") or {}
    found = {f"{name}_probe": row.get("accuracy") for name, row in probes.items()}
    for group, report in reports.items():
        found.update({name: (report or {}).get(name) for name in REPORTED[group]})
    return found
