"""The number format that a run trains with, and what it leaves behind."""

import pytest

from tfgraphreg import TrainConfig, train
from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import TFGraphRegError
from tfgraphreg.recipes import defaults, detect, learn, segment
from tfgraphreg.training import processor

SCENES = "scenes:digits?n=24&test=4&size=32"


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="with a GPU the processor does not train"
)
def test_a_processor_is_asked_for_its_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert not processor.multiplies_bfloat16()
    for flags, can in (
        ("fpu avx512f avx512_bf16 amx_tile", True),
        ("fpu amx_bf16", True),
        ("fpu avx512f avx512_bf16x", False),
        ("", False),
    ):
        (tmp_path / "cpuinfo").write_text(
            f"processor : 0\nflags\t\t: {flags}\nbugs : avx512_bf16\n"
        )
        assert processor.multiplies_bfloat16() is can


@pytest.mark.parametrize("can", [True, False])
def test_masks_and_boxes_take_what_the_processor_multiplies(monkeypatch, can):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: can)
    for task in ("segment", "detect"):
        config = TrainConfig(dataset="scenes", task=task)
        assert defaults.settled_precision(config) == ("mixed_bfloat16" if can else "float32")
        config = TrainConfig(dataset="scenes", task=task, precision="float32")
        assert defaults.settled_precision(config) == "float32"
        config = TrainConfig(dataset="scenes", task=task, jit_compile=True)
        assert defaults.settled_precision(config) == "float32"
    for propagate, expected in (("none", "float32"), ("laplace", "mixed_bfloat16")):
        config = TrainConfig(propagate=propagate)
        assert defaults.settled_precision(config) == (expected if can else "float32")
    given = TrainConfig(precision="mixed_float16")
    assert defaults.settled_precision(given) == "mixed_float16"


@pytest.mark.parametrize("task", ["segment", "detect", "classify"])
def test_what_was_trained_in_bfloat16_is_kept_in_float32(tmp_path, monkeypatch, task):
    trained = []
    keep = learn.in_float32

    def noted(base, build):
        trained.append(base)
        return keep(base, build)

    room = {"segment": segment, "detect": detect, "classify": learn}[task]
    monkeypatch.setattr(room, "in_float32", noted)
    run = train(
        TrainConfig(
            dataset="digits" if task == "classify" else SCENES,
            task=task,
            precision="mixed_bfloat16",
            epochs=1,
            min_steps=1,
            run_dir=str(tmp_path / "run"),
            export_dir=str(tmp_path / "model"),
        )
    )
    assert run.metrics["precision"] == "mixed_bfloat16"
    policies = [
        {layer.dtype_policy.name for layer in model._flatten_layers() if "conv" in layer.name}
        for model in (trained[0], run.model)
    ]
    assert policies == [{"mixed_bfloat16"}, {"float32"}]
    assert keras.mixed_precision.global_policy().name == "float32"


def test_a_run_that_fails_leaves_the_policy_as_it_was(tmp_path):
    with pytest.raises(TFGraphRegError):
        train(
            TrainConfig(
                dataset=SCENES,
                task="segment",
                precision="mixed_bfloat16",
                learning_rate=1e30,
                epochs=2,
                min_steps=4,
                run_dir=str(tmp_path / "run"),
                export_dir=str(tmp_path / "model"),
            )
        )
    assert keras.mixed_precision.global_policy().name == "float32"
