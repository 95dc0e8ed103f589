"""What a trained classifier is worth, and its export."""

from __future__ import annotations

from typing import Any

from tfgraphreg.config import TrainConfig
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.evaluate import measure
from tfgraphreg.recipes.learn import Learned
from tfgraphreg.recipes.material import Material
from tfgraphreg.recipes.saved_model import export_and_check
from tfgraphreg.runs.folder import RunFolder


def finish(
    config: TrainConfig, run: RunFolder, material: Material, learned: Learned, progress: Progress
) -> dict[str, Any]:
    """Measures a classifier, then exports it; gives the numbers."""
    measured = measure(
        learned.model, material.dataset, material.true_labels, config.distance, progress
    )
    export_and_check(run, learned.model, material.dataset)
    return measured
