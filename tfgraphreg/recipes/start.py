"""Training that starts from the weights of another run: `weights=run:NAME`."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, ModelError, RunError
from tfgraphreg.model.settings import AUTO_BACKBONE
from tfgraphreg.runs.folder import CONFIG, RunFolder, finished_metrics, read_run

logger = logging.getLogger(__name__)

RUN = "run:"


def check_start(config: TrainConfig) -> str:
    """Checks the run that a config starts from, before anything is loaded.

    Returns:
        The weights that the backbone is built with: ``"none"``.

    Raises:
        RunError: If there is no such run, or it is not finished.
        ConfigError: If that run has another backbone.
    """
    run, theirs = _find(config), backbone_of_start(config)
    if config.backbone not in (AUTO_BACKBONE, theirs):
        raise ConfigError(
            "A run can start only from one with the same backbone.",
            received=f"backbone={config.backbone}, that of {run.path} is {theirs}",
            cure=f"Use `backbone={theirs}`.",
        )
    return "none"


def backbone_of_start(config: TrainConfig) -> str:
    """The backbone of the run that a config starts from.

    Raises:
        RunError: If there is no such run, or it is not finished.
    """
    run = _find(config)
    return finished_metrics(run).get("backbone", run.config.backbone)


def start_from(model: Any, config: TrainConfig, class_names: Sequence[str]) -> None:
    """Copies the weights of another run's best epoch into a classifier that was just built.

    The backbone must have the same shapes. The embedding layer and the class layer are copied
    where theirs agree, the class layer only if the classes are the same; else they start anew.

    Raises:
        RunError: If there is no such run, or its checkpoints are damaged.
        ModelError: If its backbone has other weights.
    """
    from tfgraphreg.model.classifier import EMBEDDING, LOGITS

    run = _find(config)
    other, their_names = _rebuilt(run)
    copied = []
    for mine, theirs in zip(model.layers, other.layers, strict=True):
        shapes = [[tuple(w.shape) for w in layer.weights] for layer in (mine, theirs)]
        head = mine.name in (EMBEDDING, LOGITS)
        other_classes = mine.name == LOGITS and tuple(class_names) != their_names
        if shapes[0] != shapes[1] or other_classes:
            if not head:
                raise ModelError(
                    f"The backbone of {run.path} has weights of other shapes.",
                    cure="Use the same `image_size` as that run.",
                )
            continue
        if mine.weights:
            mine.set_weights(theirs.get_weights())
            copied.append(mine.name)
    logger.info(f"Start weights: {', '.join(copied)} of the run {run.path}")


def _find(config: TrainConfig) -> RunFolder:
    name = config.weights.removeprefix(RUN)
    for path in (pathlib.Path(name), pathlib.Path("runs") / name):
        if name and (path / CONFIG).is_file():
            return read_run(path)
    raise RunError(
        "There is no run of this name to start from.",
        received=f"weights={config.weights}",
        cure="Name a run folder, or one under runs/.",
    )


def _rebuilt(run: RunFolder) -> tuple[Any, tuple[str, ...]]:
    """The classifier of a finished run with the weights of its best epoch, and its classes."""
    from tfgraphreg.backbones.build import build_backbone
    from tfgraphreg.export import Predictor
    from tfgraphreg.model.classifier import build_classifier
    from tfgraphreg.training.checkpoints import restore_best
    from tfgraphreg.training.history import HISTORY, best_epoch, read_history

    served = Predictor(run.export_path)
    backbone = build_backbone(
        finished_metrics(run).get("backbone", run.config.backbone),
        input_shape=served.image_shape,
        image_size=run.config.image_size,
    )
    model = build_classifier(
        backbone,
        embedding_dim=run.config.embedding_dim,
        num_classes=len(served.class_names),
    )
    best = best_epoch(read_history(run.path / HISTORY)) + 1
    restore_best(run.path / "checkpoints", model, best)
    return model, served.class_names
