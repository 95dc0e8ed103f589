"""Tests of what is compared when a run is exported."""

from types import SimpleNamespace

import pytest

from tfgraphreg import TrainConfig
from tfgraphreg.compat import tf
from tfgraphreg.recipes import detect, saved_model, segment
from tfgraphreg.recipes.saved_model import full_float32

allowed = tf.config.experimental.tensor_float_32_execution_enabled


@pytest.mark.parametrize("before", [True, False])
def test_full_float32_leaves_the_setting_as_it_was(before):
    old = allowed()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(before)
        with pytest.raises(KeyError), full_float32():
            assert not allowed()
            raise KeyError
        assert allowed() == before
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(old)


@pytest.mark.parametrize(
    "check", [saved_model.export_and_check, detect._export_and_check, segment._export_and_check]
)
def test_exports_are_compared_with_all_bits_of_float32(check, monkeypatch):
    """On an H100 answers lay 0.0008 apart: it kept 10 bits of what was multiplied."""

    def stop(*_args, **_named):
        raise KeyError(allowed())

    for module, name in (
        (saved_model, "export"),
        (detect, "export_detector"),
        (segment, "export_segmenter"),
    ):
        monkeypatch.setattr(module, name, stop)
    run = SimpleNamespace(config=TrainConfig(dataset="digits"), export_path="model", name="one")
    dataset = SimpleNamespace(class_names=("a", "b"), multilabel=False)
    with pytest.raises(KeyError, match="False"):
        check(run, None, dataset)
    assert allowed()
