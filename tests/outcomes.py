"""What a run is worth, without times and places: to compare runs of which one was disturbed."""

import csv
import json

from tfgraphreg.compat import tf


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
