"""What commands leave, without times and places: to compare runs of which one was disturbed."""

import csv
import json
import re

from tfgraphreg.compat import tf

# Written by other programs, or different each time by their nature; of tables and pages, times
# stand in them. NSL writes the features of a packed example in any order.
_NAMES_ALONE = re.compile(
    r"saved_model\.pb$|fingerprint\.pb$|tfgraphreg\.json$|\.sha256$|log\.txt$|"
    r"cache/packed/|checkpoints/|metrics\.json$|history\.csv$|report\.html$|table\.\w+$|meta\.json$|\.npy$"
)
_NOT_EVEN_NAMES = re.compile(r"events\.out")


def metrics_of(run):
    """The content of metrics.json."""
    metrics = json.loads((run / "metrics.json").read_text())
    return {k: v for k, v in metrics.items() if not k.endswith(("seconds", "export"))}


def history_of(run):
    """The rows of history.csv."""
    with open(run / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["images_per_second"]
    return rows


def weights_of(run):
    """By checkpoint and name, the bytes of each weight."""
    weights = {}
    for which in ("best", "last"):
        (index,) = (run / "checkpoints" / which).glob("*.index")
        reader = tf.train.load_checkpoint(str(index.with_suffix("")))
        weights[which] = {
            name: reader.get_tensor(name).tobytes()
            for name in reader.get_variable_to_shape_map()
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
        }
    return weights


def worth_of(run):
    """What a run is worth: metrics, history and weights."""
    return metrics_of(run), history_of(run), weights_of(run)


def files_of(folder, *, but=()):
    """By name, the bytes of the files in a folder, None where they differ each time.

    Args:
        folder: The folder.
        but: Beginnings of names that are left out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or _NOT_EVEN_NAMES.search(name) or name.startswith(tuple(but)):
            continue
        found[name] = None if _NAMES_ALONE.search(name) else path.read_bytes()
    return found


def differing(one, other):
    """The names of files that two results of `files_of` do not share, or not with their bytes."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or one[name] != other[name]
    )
