"""The arguments of a dataset's loader."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from tfgraphreg.errors import ConfigError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.storage import cache_folder, user_path

# No image is resized to more than this many pixels a side.
_LARGEST_SIDE = 4096


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """The arguments of `tfgraphreg.load_dataset`, checked; see there."""

    data_dir: str | os.PathLike[str] | None = None
    cache_dir: str | os.PathLike[str] | None = None
    seed: int = 0
    validation_fraction: float = 0.0
    limit: int | None = None
    image_size: int | tuple[int, int] | None = None
    labels_per_class: int | None = None
    on_bad_image: str = "error"
    cache_images: bool = False
    offline: bool = False
    progress: Progress = silent

    def __post_init__(self):
        if self.limit is not None and self.limit < 1:
            raise ConfigError("`limit` must be at least 1.", received=f"{self.limit}")
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                "`validation_fraction` must be at least 0 and below 1.",
                received=f"{self.validation_fraction}",
            )
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ConfigError(
                "`labels_per_class` must be at least 1.", received=f"{self.labels_per_class}"
            )
        if self.seed < 0:
            raise ConfigError("`seed` must not be negative.", received=f"{self.seed}")
        if self.on_bad_image not in ("error", "skip"):
            raise ConfigError(
                "`on_bad_image` must be 'error' or 'skip'.", received=f"{self.on_bad_image!r}"
            )
        sides = self.size
        if sides is not None and not all(1 <= side <= _LARGEST_SIDE for side in sides):
            raise ConfigError(
                f"`image_size` must be between 1 and {_LARGEST_SIDE} pixels a side.",
                received=f"{self.image_size}",
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """`(height, width)` of `image_size`, or None."""
        if self.image_size is None or not isinstance(self.image_size, int):
            return self.image_size and (int(self.image_size[0]), int(self.image_size[1]))
        return self.image_size, self.image_size

    @property
    def cache(self) -> pathlib.Path:
        """Where prepared data is kept."""
        if self.cache_dir:
            return user_path(self.cache_dir)
        return cache_folder() / "datasets"
