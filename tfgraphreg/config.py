"""What a run does: the settings of all rooms, composed into one frozen value.

The same fields make the command line's flags, the YAML of `config` and the `config.json` of a
run folder. A new setting is added in the `settings.py` of its room and nowhere else.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from tfgraphreg.data.settings import DataSettings
from tfgraphreg.errors import ConfigError, UnknownNameError, did_you_mean
from tfgraphreg.formats.catalog import parse_formats
from tfgraphreg.graph.settings import GraphSettings
from tfgraphreg.model.settings import (
    BackboneSettings,
    GraphTermSettings,
    TaskSettings,
    default_alpha,
)
from tfgraphreg.neighbors.settings import NeighborSettings
from tfgraphreg.propagation.settings import PropagationSettings
from tfgraphreg.reading import read_json, read_yaml
from tfgraphreg.settings import (
    Effect,
    Settings,
    at_least,
    check_choices,
    plain_values,
    refuse,
    setting,
    shown,
    without_effect,
)
from tfgraphreg.storage import check_note
from tfgraphreg.training.settings import LABEL_MIXING, TrainingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Where the files of a run go; none of it changes a result."""

    run_dir: str | None = setting(
        None, "folder of this run. Default: runs/<dataset>-<backbone>-<time>"
    )
    export_dir: str | None = setting(
        None,
        "folder of the SavedModel; an earlier model there is replaced. "
        "Default: saved_models/<run name>",
    )
    export_format: str = setting(
        "saved_model",
        "formats of the exported model, commas between: tflite, tflite_float16, tflite_int8 (extra "
        "tflite), onnx (extra onnx); the SavedModel is always written, the others beside it",
    )
    resume: bool = setting(
        False, "go on with a run that was interrupted, or give a finished one more epochs"
    )
    worker_wait: int = setting(
        600, "seconds that the workers of `strategy=multiworker` wait for each other to start"
    )
    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(
            ("worker_wait",), lambda all: all.strategy == "multiworker", "`strategy=multiworker`"
        ),
    )

    def check(self) -> None:
        """Checks the seconds and the names of formats.

        Raises:
            ConfigError: If seconds are out of range, or a format is unknown.
        """
        at_least(self, 1, "worker_wait", most=7 * 24 * 3600)
        parse_formats(self.export_format)


SECTIONS: dict[str, type[Settings]] = {
    "data": DataSettings,
    "task": TaskSettings,
    "network": BackboneSettings,
    "graph_term": GraphTermSettings,
    "neighbors": NeighborSettings,
    "graph": GraphSettings,
    "propagation": PropagationSettings,
    "training": TrainingSettings,
    "run": RunSettings,
}
"""The settings by section, as a nested YAML file may group them."""


# The fields of the last base come first.
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(
    RunSettings,
    TrainingSettings,
    PropagationSettings,
    GraphSettings,
    NeighborSettings,
    GraphTermSettings,
    BackboneSettings,
    TaskSettings,
    DataSettings,
):
    """Everything that decides the result of a run, and where it goes.

    Each setting is described in the class of its room, such as
    `tfgraphreg.graph.settings.GraphSettings`. A setting that would change nothing beside the
    others is refused unless it has its default.

    Raises:
        ConfigError: If a value, or a combination of values, cannot work.
    """

    def __post_init__(self):
        if self.alpha is None:
            object.__setattr__(self, "alpha", default_alpha(self.task))
        for name, value in plain_values(self).items():
            object.__setattr__(self, name, value)
        check_choices(self)
        for section in SECTIONS.values():
            section.check(self)
        _check_together(self)
        for name, effect in without_effect(self, EFFECTS):
            raise ConfigError(
                f"`{name}` has an effect only with {effect.words}.",
                received=shown(name, getattr(self, name)),
                cure="Leave it out.",
            )

    @property
    def regularized(self) -> bool:
        """Whether there is a graph term at all."""
        return self.alpha > 0

    @property
    def uses_graph(self) -> bool:
        """Whether training needs a graph: for the graph term, or for labels from it."""
        return self.regularized or self.propagate != "none"

    def section(self, kind: type[Settings]) -> dict[str, Any]:
        """The values of one room's settings, by name."""
        return {name: getattr(self, name) for name in names_of(kind)}

    def result_fields(self) -> dict[str, Any]:
        """The fields that decide the result: all but those of `RunSettings`."""
        skipped = names_of(RunSettings)
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in skipped}


EFFECTS: tuple[Effect, ...] = tuple(e for section in SECTIONS.values() for e in section.EFFECTS)


def names_of(kind: type[Settings]) -> tuple[str, ...]:
    """The names of a room's settings."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _check_together(config: TrainConfig) -> None:
    """What settings of different rooms ask of each other."""
    every = config.rebuild_graph_every
    if every and config.epochs % every:
        refuse(
            "epochs",
            f"must be a multiple of `rebuild_graph_every` ({every})",
            config.epochs,
            f"Use {config.epochs // every * every + every}.",
        )
    if every and config.graph != "knn":
        refuse("graph", "must be knn to be built again", config.graph, "Leave it out.")
    if config.batch_size is None and config.labeled_batch:
        refuse(
            "labeled_batch",
            "must be given together with `batch_size`",
            config.labeled_batch,
            "Add `batch_size=128`.",
        )
    if (config.labeled_batch or 0) > (config.batch_size or 0):
        refuse(
            "labeled_batch",
            f"must be at most `batch_size` ({config.batch_size})",
            config.labeled_batch,
            "Use less.",
        )
    alone = config.labeled_batch == config.batch_size
    if config.uses_graph and alone and config.labeled_batch:
        refuse(
            "labeled_batch",
            "must be smaller than `batch_size` where unlabeled images are trained on too",
            config.labeled_batch,
            f"Use {max(config.labeled_batch // 8, 1)}.",
        )
    if config.labeled_batch and not config.uses_graph and not alone:
        refuse(
            "labeled_batch",
            "must be `batch_size` where nothing is learned from unlabeled images",
            config.labeled_batch,
            f"Use {config.batch_size}, or leave it out.",
        )
    if config.alpha > 0 and config.max_neighbors < 1:
        refuse(
            "max_neighbors",
            "must be at least 1 when `alpha` is above 0",
            config.max_neighbors,
            "Use `alpha=0` to train without neighbors.",
        )
    size = config.batch_size or 0  # 0: chosen by the number of images, and even
    if config.neighbors == "paired" and config.alpha > 0 and size % 2:
        refuse("batch_size", "must be even with `neighbors=paired`", size, f"Use {size + 1}.")
    for name in ("warmup_epochs", "crop_epochs"):
        at_start = getattr(config, name)
        if at_start and at_start >= config.epochs:
            refuse(
                name,
                "must be smaller than `epochs`",
                at_start,
                f"Use at most {config.epochs - 1}.",
            )
    if config.augment in LABEL_MIXING and config.alpha > 0:
        raise ConfigError(
            f"`augment={config.augment}` mixes the labels of two images, and an edge between "
            "mixtures has no meaning.",
            received=f"augment={config.augment}, alpha={config.alpha}",
            cure="Use `alpha=0`, or an augmentation that keeps labels, such as rand_augment.",
        )
    if config.augment in LABEL_MIXING and config.pseudo_label_weights != "equal":
        refuse(
            "pseudo_label_weights",
            f"must be equal with `augment={config.augment}`",
            config.pseudo_label_weights,
            "Leave it out.",
        )
    if (
        config.augment in LABEL_MIXING
        and (config.labels_per_class is not None or config.labels is not None)
        and config.propagate == "none"
    ):
        raise ConfigError(
            f"`augment={config.augment}` mixes labels, and unlabeled images have none.",
            received=f"labels_per_class={config.labels_per_class}, labels={config.labels}",
            cure="Use all labels, or an augmentation that keeps labels.",
        )


def flat(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Settings by name, of a mapping whose keys are names (dashes allowed) or sections.

    Raises:
        ConfigError: If a section holds a setting of another one, or a setting stands twice.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        inside = {name: value}
        if name in SECTIONS and isinstance(value, Mapping):
            inside = {str(k).replace("-", "_"): v for k, v in value.items()}
            known = names_of(SECTIONS[name])
            for wrong in inside.keys() - set(known):
                raise ConfigError(
                    f"The section {name} of the config has no such setting.",
                    received=wrong,
                    cure=did_you_mean(wrong, known),
                )
        for twice in found.keys() & inside.keys():
            raise ConfigError("A setting stands twice in the config.", received=twice)
        found.update(inside)
    return found


def from_mapping(values: Mapping[Any, Any]) -> TrainConfig:
    """A config of a flat or nested mapping of settings.

    Raises:
        ConfigError: If a name is unknown or a value is wrong.
    """
    values = flat(values)
    known = names_of(TrainConfig)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            "Unknown setting in the config.",
            received=unknown[0],
            cure=did_you_mean(unknown[0], known),
        )
    if values.get("alpha", 0) is None:  # In a file a number stands there, or nothing.
        refuse("alpha", "must be a finite number", None, "Leave it out for the default.")
    return TrainConfig(**values)


def recipes() -> dict[str, pathlib.Path]:
    """The files of settings that come with the package, by name."""
    folder = pathlib.Path(__file__).parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_file(name: str) -> pathlib.Path:
    """The file of a recipe.

    Raises:
        UnknownNameError: If there is no such recipe.
    """
    known = recipes()
    if name not in known:
        raise UnknownNameError(
            f"Unknown recipe. There is {', '.join(known)}.",
            received=repr(name),
            cure=did_you_mean(name, known),
        )
    return known[name]


def recipe(name: str, **settings: Any) -> TrainConfig:
    """A config with the settings of a recipe, such as ``"few-labels"``.

    Args:
        name: As `tfgraphreg train --recipe`.
        settings: Settings of `TrainConfig`, which overrule the recipe's.

    Raises:
        UnknownNameError: If there is no such recipe.
        ConfigError: As `TrainConfig`.
    """
    return from_mapping({**flat(read_yaml(recipe_file(name))), **settings})


def effective(values: Mapping[Any, Any]) -> dict[str, Any]:
    """The settings of a mapping without those that would change nothing beside the others."""
    values = flat(values)
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    defaults["alpha"] = default_alpha(values.get("task", defaults["task"]))
    for effect in EFFECTS:
        try:
            acts = effect.when(types.SimpleNamespace(**{**defaults, **values}))
        except (TypeError, AttributeError):  # A value of a wrong type, which `TrainConfig` names.
            continue
        if not acts:
            values = {k: v for k, v in values.items() if k not in effect.names}
    return values


def read(path: os.PathLike[str] | str) -> TrainConfig:
    """The config of a `config.json`. What changed nothing in that run is read as its default.

    Raises:
        ConfigError: If the file is missing or no such config.
    """
    try:
        values = read_json(path)
        check_note(path)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as a config ({error}).") from error
    try:
        return from_mapping(effective(values))
    except ConfigError as error:
        # Who evaluates a run gave no settings, and could not tell where the wrong value stands.
        raise ConfigError(
            f"{path}: {error.rule}", received=error.received, cure=error.cure
        ) from error


def differences(one: TrainConfig, other: TrainConfig) -> list[str]:
    """What decides the result and differs, as sentences like `alpha: 0.1 against 0.2`."""
    left, right = one.result_fields(), other.result_fields()
    return [f"{k}: {left[k]} against {right[k]}" for k in left if left[k] != right[k]]
