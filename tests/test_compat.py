"""The stack: Keras 2 whatever is installed, and NSL where it no longer runs by itself."""

import builtins
import os
import platform
import re
import subprocess
import sys
import types

import pytest

from tfgraphreg import compat


def run(code: str, *words: str, **env: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env={**clean, **env}
    )


def test_keras_is_keras_2():
    assert hasattr(compat.keras.Model, "add_metric")
    assert compat.tf.keras.Model is compat.keras.Model


def test_one_keras_is_loaded_whatever_else_is_imported():
    # Where there are two, a network is rebuilt from the classes of the other, and Keras waits
    # for ever for the input layer. `keras` 3 beside tf-keras is a third matter: its own names.
    code = (
        "from tfgraphreg.compat import keras\n"
        "import keras_cv\n"
        "image = keras.Input((4,), name='image')\n"
        "config = keras.Model(image, keras.layers.Dense(2)(image)).get_config()\n"
        "for layer in config['layers']:\n"
        "    made = keras.layers.deserialize(layer)\n"
        "    assert isinstance(made, keras.layers.Layer), type(made)\n"
    )
    found = run(code)
    assert found.returncode == 0, found.stderr


def test_import_loads_no_tensorflow():
    found = run("import sys, tfgraphreg, tfgraphreg.cli; print('tensorflow' in sys.modules)")
    assert found.stdout.strip() == "False", found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--backbone", "nope"],
        ["train", "--dataset", "nope"],
        ["build-graph", "--dataset", "nope"],
        ["propagate", "--dataset", "nope"],
        ["suggest", "--dataset", "nope"],
        ["audit", "--dataset", "nope"],
        ["evaluate", "--run", "nope"],
        ["embed", "--run", "nope"],
        ["search", "--run", "nope"],
        ["export", "--run", "nope", "--export-format", "saved_model"],
        ["embeddings", "--run", "nope", "--out", "a.npz"],
        ["serve", "--run", "nope"],
        ["predict", "--run", "nope", "a.png"],
        ["predict", "--run", "nope", "--model", "nope", "a.png"],
        ["compare", "nope"],
    ],
    ids=" ".join,
)
def test_a_wrong_name_is_refused_before_tensorflow_is_loaded(words):
    code = (
        "import sys; from tfgraphreg.cli import main; status = main(sys.argv[1:])\n"
        "print(status, 'tensorflow' in sys.modules)"
    )
    found = run(code, *words)
    assert found.stdout.split() == ["2", "False"], found.stderr
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1


def test_a_training_run_keeps_what_tensorflow_logs_to_itself(tmp_path):
    command = ["-m", "tfgraphreg", "train", "--dataset", "digits", "--limit", "100"]
    done = subprocess.run(
        [sys.executable, *command, "--epochs", "1", "--run-dir", "run", "--export-dir", "model"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    # Lines of its C++ code begin with a letter for the level and a number.
    assert not re.findall(r"^[IWEF]\d{4} .*|^WARNING: .*", done.stderr, re.MULTILINE)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is switched on for x86 alone"
)
@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_the_user_says_otherwise(monkeypatch, given, found):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    compat.prepare_environment()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == found


@pytest.mark.parametrize(
    ("given", "cores", "found"), [(None, 5, "2"), (None, 1, "1"), ("3", 5, "3")]
)
def test_an_operation_has_its_share_of_the_cores_unless_the_user_says_otherwise(
    monkeypatch, given, cores, found
):
    # Set first, so that it is as before after the test.
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given or "")
    if given is None:
        del os.environ["TF_NUM_INTRAOP_THREADS"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    compat.share_cores(2)
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == found


def test_process_with_keras_3_gets_the_cure():
    if not compat.tf.__version__.startswith("2.15"):
        code = (
            "import tensorflow as tf; tf.keras.Model\n"
            "from tfgraphreg import compat, errors\n"
            "try: compat.load_keras()\n"
            "except errors.StackError as error: print(error)"
        )
        found = run(code)
        assert "this process has loaded Keras 3" in found.stdout, found.stderr
        assert "TF_USE_LEGACY_KERAS=1" in found.stdout
    else:
        pytest.skip("TensorFlow 2.15 has no Keras 3 to load")


def test_nsl_imports_and_its_wrapper_exists():
    assert compat.nsl.__version__ == "1.4.0"
    assert issubclass(compat.nsl.keras.GraphRegularization, compat.keras.Model)


def test_estimator_is_mended_only_where_it_is_gone():
    has = types.SimpleNamespace(estimator="mine")
    assert compat._mend_estimator(has) is False
    assert has.estimator == "mine"
    gone = types.SimpleNamespace()
    assert compat._mend_estimator(gone) is True
    assert hasattr(gone, "estimator")


def test_open_is_mended_only_where_mode_u_is_gone(tmp_path):
    module = types.ModuleType("graph_utils")
    mended = compat._mend_open(module)
    assert mended is (sys.version_info >= (3, 11))
    if mended:
        path = tmp_path / "edges.tsv"
        path.write_text("a\tb\n")
        mode = "rU"
        assert module.open(path, mode).read() == "a\tb\n"
        with pytest.raises(ValueError, match="invalid mode"):
            builtins.open(path, mode)  # noqa: SIM115
        assert compat._mend_open(module) is False


def test_nsl_reads_a_graph_file(tmp_path):
    path = tmp_path / "edges.tsv"
    path.write_text("a\tb\t0.5\na\tc\n")
    graph = compat.nsl.tools.read_tsv_graph(str(path))
    assert graph == {"a": {"b": 0.5, "c": 1.0}}


def test_missing_extra_names_itself(monkeypatch):
    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(compat.MissingExtraError, match=r'pip install "tfgraphreg\[addons\]"'):
        compat.load_optional("tensorflow_addons", "addons", "This objective")
