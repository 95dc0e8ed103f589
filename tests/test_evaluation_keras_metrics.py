import subprocess
import sys

import numpy as np
import pytest

from tfgraphreg.compat import keras, tf
from tfgraphreg.evaluation import keras_metrics, segmentation
from tfgraphreg.evaluation.detection import best_overlaps

PIXEL = {
    "PixelAccuracy": segmentation.pixel_accuracy,
    "MeanPixelAccuracy": segmentation.mean_pixel_accuracy,
    "MeanIoU": segmentation.mean_iou,
    "MeanDice": segmentation.mean_dice,
}


def _batch(n=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, (n, 5, 5))  # the last class is never true
    labels[rng.random(labels.shape) < 0.2] = 255
    return labels, rng.random((n, 5, 5, classes)).astype(np.float32)


@pytest.mark.parametrize("name", PIXEL)
def test_pixel_metrics_equal_the_array_functions(name):
    metric = getattr(keras_metrics, name)(4)
    labels, scores = _batch()
    for part in (slice(0, 2), slice(2, 6)):
        metric.update_state(labels[part], scores[part])
    counts = segmentation.pixel_counts(labels, scores.argmax(-1), classes=4)
    assert float(metric.result()) == pytest.approx(PIXEL[name](counts))
    metric.reset_state()
    assert np.isnan(float(metric.result()))
    metric.update_state(labels[..., None], scores, sample_weight=np.arange(6) < 3)
    counts = segmentation.pixel_counts(labels[:3], scores[:3].argmax(-1), classes=4)
    assert float(metric.result()) == pytest.approx(PIXEL[name](counts))
    again = type(metric).from_config(metric.get_config())
    assert again.classes == 4 and again.ignore_label == 255


def _boxes(n, rows, seed):
    rng = np.random.default_rng(seed)
    low = rng.random((n, rows, 2)) * 5
    kinds = rng.integers(-1, 3, (n, rows, 1))
    return np.concatenate([low, low + rng.random((n, rows, 2)) * 4, kinds], axis=-1)


@pytest.mark.parametrize("only_class", [None, 2])
def test_best_overlap_equals_the_array_function(only_class):
    truth, guess = _boxes(5, 4, 0), _boxes(5, 6, 1)
    metric = keras_metrics.AverageBestOverlap(only_class=only_class)
    metric.update_state(truth, guess)
    expected = [
        best_overlaps(t[:, :4], t[:, 4], g[:, :4], g[:, 4], only_class=only_class)
        for t, g in zip(truth, guess)
    ]
    assert float(metric.result()) == pytest.approx(np.concatenate(expected).mean(), abs=1e-6)
    metric.reset_state()
    assert np.isnan(float(metric.result()))


def test_two_replicas_count_what_one_counts():
    # In a process of its own: logical devices are set before TensorFlow starts.
    code = (
        "from tfgraphreg.compat import tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration("
        "cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "import sys; sys.path.insert(0, 'tests')\n"
        "import test_evaluation_keras_metrics as module\n"
        "module._check_replicas()\n"
        "print('same')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def _check_replicas():
    labels, scores = _batch(8)
    counts = segmentation.pixel_counts(labels, scores.argmax(-1), classes=4)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.layers.Activation("linear", input_shape=(5, 5, 4))])
        model.compile(
            loss=lambda y, p: tf.reduce_mean(p, axis=[1, 2, 3]),
            metrics=[getattr(keras_metrics, name)(4, name=name) for name in PIXEL],
        )
    result = model.evaluate(scores, labels, batch_size=4, verbose=0, return_dict=True)
    for name, function in PIXEL.items():
        assert result[name] == pytest.approx(function(counts), abs=1e-6), name
