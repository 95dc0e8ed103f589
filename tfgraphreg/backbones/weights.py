"""Weights that exist already: ImageNet's from a library, a file of one's own, a timm state dict."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from typing import Any

from tfgraphreg.backbones.families.timm_weights import check_file
from tfgraphreg.backbones.own import load_timm
from tfgraphreg.backbones.records import NETWORK, Backbone
from tfgraphreg.errors import ModelError
from tfgraphreg.storage import user_path

_TIMM = "timm:"
# Where the libraries keep their files; any answer at all shows that the host can be reached.
_HOSTS = {
    "keras.applications": "https://storage.googleapis.com",
    "kecam": "https://github.com",
}
_PATIENCE_SECONDS = 5.0


def network_weights(record: Backbone, weights: str | os.PathLike[str]) -> str | None:
    """What the record's builder is asked for: ``"imagenet"`` or None.

    Raises:
        ModelError: If there are no such weights, or ImageNet's can be neither fetched nor
            found in the cache.
        DataError: If a timm file cannot be read.
    """
    weights = os.fspath(weights)
    if weights == "imagenet":
        if not record.pretrained:
            raise ModelError(
                f"The library {record.library} publishes no ImageNet weights for {record.name}.",
                received="weights='imagenet'",
                cure=_alternative(record),
            )
        if not _cached(record) and not _reachable(_HOSTS[record.library]):
            raise ModelError(
                f"The ImageNet weights of {record.name} must be downloaded once, and "
                f"{_HOSTS[record.library]} cannot be reached.",
                received="weights='imagenet'",
                cure="Connect to the network, or use weights='none' or a file.",
            )
        return "imagenet"
    if weights.startswith(_TIMM) and record.timm is None:
        raise ModelError(
            f"The backbone {record.name} takes no timm weights.",
            received=f"weights={weights!r}",
            cure="Only the families of tfgraphreg's own take them.",
        )
    if weights.startswith(_TIMM):
        check_file(weights.removeprefix(_TIMM))
    elif weights != "none":
        _checked_file(weights)
    return None


def load_weights(model: Any, record: Backbone, weights: str | os.PathLike[str]) -> None:
    """Fills `model`, as `build_backbone` made it, from a file; does nothing for other weights.

    Raises:
        ModelError: If the file holds the weights of another network.
        DataError: If a timm file cannot be read.
    """
    weights = os.fspath(weights)
    if weights in ("none", "imagenet"):
        return
    if weights.startswith(_TIMM):
        load_timm(model.get_layer(NETWORK), record, weights.removeprefix(_TIMM))
        return
    try:
        status = model.load_weights(weights)
        if status is not None:
            status.assert_existing_objects_matched()
    except Exception as error:  # Keras and h5py raise whatever they meet.
        first = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"The file does not hold the weights of the backbone {record.name} ({first}).",
            received=f"weights={weights!r}",
            cure="Use a file that save_weights wrote for the same backbone and image size.",
        ) from error


def _checked_file(path: str) -> None:
    # A TensorFlow checkpoint is named by a prefix.
    if not os.path.isfile(path) and not os.path.isfile(f"{path}.index"):
        raise ModelError(
            "`weights` must be none, imagenet, timm:FILE or a file.",
            received=f"weights={path!r}, which is no file",
            cure="Check the path.",
        )


def _alternative(record: Backbone) -> str:
    if record.timm is None:
        return "Use weights='none' or a file."
    return f"Use weights='timm:FILE.safetensors' with timm's {record.timm}."


def _cached(record: Backbone) -> bool:
    """Whether Keras' cache holds a file that may be the one: the library then decides."""
    home = user_path(os.environ.get("KERAS_HOME") or "~/.keras")
    wanted = _letters(str(record.arguments.get("network", record.name)).split(".")[-1])
    folder = home / "models"
    names = (_letters(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return any(wanted in name for name in names)


def _letters(text: str) -> str:
    return "".join(sign for sign in text.lower() if sign.isalnum())


def _reachable(url: str) -> bool:
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
