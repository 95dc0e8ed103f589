"""Dividing items by a seed: validation splits, and which labels to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Split
from tfgraphreg.errors import ConfigError


def stratified_choice(
    labels: np.ndarray,
    fraction: float,
    *,
    seed: int,
    at_least: int = 0,
    leave: int = 0,
) -> np.ndarray:
    """Chooses about `fraction` of the items, every class in its proportion.

    Each class gives the floor of its share; the rest of the rounded total comes from the classes
    with the largest remainders. Multi-hot rows are chosen without regard
    to class.

    Args:
        labels: `[N]` int64 class numbers (any value, -1 is a class of its own) or `[N, C]`.
        fraction: In [0, 1).
        seed: The same seed chooses the same items.
        at_least: Items chosen of every class but -1, at the expense of larger classes, as far as
            the total allows.
        leave: Items of every class that are not chosen, even if the total falls short.

    Returns:
        `[N]` bool.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(
            "A fraction of the images must be at least 0 and below 1.", received=f"{fraction}"
        )
    rng = np.random.default_rng([seed, 0x5711])
    order = rng.permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    total = round(fraction * len(labels))
    if labels.ndim == 2:
        chosen[order[: min(total, len(labels) - leave)]] = True
        return chosen
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    share = counts * fraction
    take = np.floor(share).astype(int)
    extra = np.argsort(-(share - take), kind="stable")[: max(0, total - take.sum())]
    take[extra] += 1
    _fill_up(take, np.where(classes == UNLABELED, 0, np.minimum(counts, at_least)))
    take = np.minimum(take, np.maximum(counts - leave, 0))
    for number in range(len(classes)):
        members = order[inverse[order] == number]
        chosen[members[: take[number]]] = True
    return chosen


def _fill_up(take: np.ndarray, wanted: np.ndarray) -> None:
    """Raises `take` to `wanted` where it is below, one by one from the largest surplus."""
    for number in np.flatnonzero(take < wanted):
        while take[number] < wanted[number]:
            giver = int(np.argmax(take - wanted))
            if take[giver] <= wanted[giver]:
                return
            take[giver] -= 1
            take[number] += 1


def divide(split: Split, fraction: float, *, seed: int) -> tuple[Split, Split]:
    """Returns (the rest, about `fraction` of the labeled items), both in their original order.

    Unlabeled items stay in the rest, since nothing can be measured by them; so does one item of
    every class.
    """
    labeled = np.flatnonzero(split.labeled)
    chosen = np.zeros(len(split), bool)
    chosen[labeled] = stratified_choice(split.labels[labeled], fraction, seed=seed, leave=1)
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))


def keep_labels(split: Split, per_class: int, *, seed: int) -> Split:
    """Keeps `per_class` labels of every class; the other items stay, unlabeled.

    With multi-hot labels, items are drawn class by class, rarest first, until every class has
    `per_class` positive items among the labeled ones (one item may serve several classes).

    Raises:
        ConfigError: If `per_class` is below 1 or a class has fewer labeled items.
    """
    if per_class < 1:
        raise ConfigError("`labels_per_class` must be at least 1.", received=f"{per_class}")
    positive = _membership(split)
    counts = positive.sum(0)
    present = np.flatnonzero(counts)
    if len(present) and counts[present].min() < per_class:
        raise ConfigError(
            "`labels_per_class` must not exceed the number of labeled images of any class.",
            received=f"{per_class}, and the smallest class has {counts[present].min()}",
            cure="Choose a smaller number.",
        )
    rng = np.random.default_rng([seed, 0x1ABE1])
    order = rng.permutation(len(split))
    keep = np.zeros(len(split), bool)
    for number in present[np.argsort(counts[present], kind="stable")]:
        missing = per_class - (keep & positive[:, number]).sum()
        members = order[positive[order, number] & ~keep[order]]
        keep[members[: max(0, missing)]] = True
    labels = split.labels.copy()
    labels[~keep] = UNLABELED
    return dataclasses.replace(split, labels=labels)


def labels_beyond_budget(validation: Split, per_class: int) -> str | None:
    """A note on a validation split beside few training labels; None if the split is empty."""
    if not len(validation):
        return None
    return (
        f"The validation split keeps its {len(validation)} labels beyond the {per_class} a class: "
        "they choose the best epoch and train nothing. Without `validation_fraction` the last "
        "epoch counts."
    )


def classes_without_labels(train: Split, class_names: Sequence[str]) -> str | None:
    """A sentence that names the classes of which no labeled training image is left, if any."""
    if train.multilabel:
        return None
    missing = sorted(set(range(len(class_names))) - set(train.labels.tolist()))
    if not missing:
        return None
    names = ", ".join(class_names[number] for number in missing[:10])
    return f"{len(missing)} class(es) have no labeled training image: {names}" + (
        ", and more." if len(missing) > 10 else "."
    )


def _membership(split: Split) -> np.ndarray:
    """`[N, C]` bool: which labeled items belong to which class."""
    if split.multilabel:
        return split.labels == 1
    classes = np.arange(split.labels.max(initial=-1) + 1)
    return split.labels[:, None] == classes
