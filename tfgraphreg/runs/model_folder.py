"""Which exported model a user means; nothing of it is loaded."""

from __future__ import annotations

import pathlib

from tfgraphreg.errors import ConfigError, ModelError
from tfgraphreg.runs.folder import finished_metrics, read_run


def model_folder(run_dir: str | None, model_dir: str | None) -> pathlib.Path:
    """The SavedModel that a user means: of a run, a folder, or the newest there is.

    Raises:
        ConfigError: If both a run and a folder are named.
        ModelError: If there is none.
        RunError: If the run is none, or unfinished.
    """
    if run_dir and model_dir:
        raise ConfigError(
            "`run` and `model` both name the model to ask.",
            received=f"run={run_dir}, model={model_dir}",
            cure="Give one of them.",
        )
    if model_dir:
        return pathlib.Path(model_dir)
    if run_dir:
        run = read_run(run_dir)
        finished_metrics(run)
        return run.export_path
    found = sorted(
        pathlib.Path("saved_models").glob("*/saved_model.pb"), key=lambda p: p.stat().st_mtime
    )
    if not found:
        raise ModelError(
            "There is no SavedModel under saved_models/.",
            cure="Train one, or name one with `model` or `run`.",
        )
    return found[-1].parent
