"""The one room that knows versions.

It selects the Keras 2 API (`tf.keras` itself on TensorFlow 2.15, the package tf-keras from
2.16 on), which `neural_structured_learning` 1.4.0 needs because its classes call
`add_metric`, and it mends the two places where that package no longer runs. Every mend is
applied only where the installed versions need it.

Use it as ``from tfgraphreg.compat import tf, keras, nsl``: the modules are loaded at that
moment, not when tfgraphreg is imported.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
import types
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from tfgraphreg.errors import MissingExtraError, StackError

if TYPE_CHECKING:
    # What `__getattr__` gives, for the type checker; see typings/.
    import neural_structured_learning as nsl  # noqa: F401
    import tensorflow as tf  # noqa: F401
    import tf_keras as keras  # noqa: F401

_FLAG = "TF_USE_LEGACY_KERAS"
_CURE = (
    f"Set the environment variable {_FLAG}=1 before Python starts, "
    "or import tfgraphreg before anything that touches tf.keras."
)


def prepare_environment() -> None:
    """Sets what must be in the environment before TensorFlow or Keras is loaded.

    Cheap, and safe to call many times: it imports nothing. A value that the user has set
    is left alone, except that the Keras 2 API is not optional.
    """
    # What goes wrong reaches the user as an exception; the log repeats it at length.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in ("x86_64", "AMD64"):
        # TensorFlow turns oneDNN on by itself only where it finds AVX512-VNNI. Elsewhere a
        # convolution takes up to twice as long and a grouped one has no gradient.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if _keras_package_is_keras_2():
        # Beside TensorFlow 2.15. KerasCV and tensorflow-addons import the package `keras`, and
        # where tf-keras is loaded too, networks are rebuilt from the classes of the other one.
        os.environ[_FLAG] = "0"
    elif importlib.util.find_spec("tf_keras") is not None:
        os.environ[_FLAG] = "1"


def usable_cores() -> int:
    """The cores that this process may use, where the system says so; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_cores(parts: int) -> None:
    """Leaves a share of the cores to each TensorFlow operation, so that several run at once.

    Only before TensorFlow computes anything, and only in a process that is this program's own. A
    number of threads that the user has set is left alone.
    """
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, usable_cores() // parts)))


def _keras_package_is_keras_2() -> bool:
    try:
        return importlib.metadata.version("keras").startswith("2.")
    except importlib.metadata.PackageNotFoundError:
        return False


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Keeps from the terminal what TensorFlow's C++ code logs while it starts.

    From 2.18 on it writes a dozen lines that no environment variable silences. They are
    shown after all if the block fails.
    """
    with tempfile.TemporaryFile() as log, _errors_into(log) as terminal:
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(terminal, log.read())
            raise


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Drops what C++ code logs in the block, where an exception says what went wrong."""
    with open(os.devnull, "wb") as nowhere, _errors_into(nowhere):
        yield


@contextlib.contextmanager
def _errors_into(file: IO[bytes]) -> Iterator[int]:
    """Sends what this process writes to its standard error to a file; gives the terminal's."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield kept
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def load_tensorflow() -> types.ModuleType:
    """Returns TensorFlow with `tf.keras` bound to the Keras 2 API.

    Raises:
        StackError: If TensorFlow or tf-keras is missing, or Keras 3 is bound already.
    """
    prepare_environment()
    try:
        import tensorflow as tf
    except ImportError as error:
        raise StackError(
            f"TensorFlow cannot be imported ({error}).", cure="Run: pip install tfgraphreg."
        ) from error
    _load_keras(tf)
    _skip_conversion()
    return tf


def _skip_conversion() -> bool:
    """Spares this package AutoGraph, as TensorFlow spares Keras.

    None of its functions branches on a tensor in Python, and converting them takes most of the
    time before a first training step. Layers and functions of a user are still converted.
    """
    try:
        from tensorflow.python.autograph.core import config
    except ImportError:  # Not TensorFlow's public API: without it, all is the same, but slower.
        return False
    rule = config.DoNotConvert("tfgraphreg")
    if not any(str(rule) == str(one) for one in config.CONVERSION_RULES):
        config.CONVERSION_RULES = (rule, *config.CONVERSION_RULES)
    return True


def as_converted(function: Any) -> Any:
    """A function of a user as AutoGraph converts it: it may branch on tensors."""
    import tensorflow as tf  # Loaded by now; `load_tensorflow` looks at versions each time.

    autograph = tf.__internal__.autograph
    return autograph.tf_convert(function, autograph.control_status_ctx())


def _load_keras(tf: types.ModuleType) -> types.ModuleType:
    try:
        tf.keras.Model  # noqa: B018  (the first touch decides which Keras it is)
        # The Keras 2 of tf-keras has no version here.
        keras_2 = not str(getattr(tf.keras, "__version__", "2")).startswith("3")
    except (ImportError, AttributeError) as error:
        minor = ".".join(tf.__version__.split(".")[:2])
        raise StackError(
            f"The Keras 2 API cannot be loaded beside TensorFlow {tf.__version__} ({error}).",
            cure=f'Run: pip install "tf-keras~={minor}.0".',
        ) from error
    if not keras_2:
        has_tf_keras = importlib.util.find_spec("tf_keras") is not None
        cure = _CURE if has_tf_keras else f"Run: pip install tf-keras. {_CURE}"
        raise StackError(
            "tfgraphreg needs the Keras 2 API, and this process has loaded Keras 3 as tf.keras.",
            received=f"keras {tf.keras.__version__}, tensorflow {tf.__version__}",
            cure=cure,
        )
    return tf.keras


def load_keras() -> types.ModuleType:
    """Returns the Keras 2 API that `tf.keras` is bound to."""
    return _load_keras(load_tensorflow())


def load_nsl() -> types.ModuleType:
    """Returns `neural_structured_learning`, mended where this stack needs it.

    Raises:
        StackError: If the package is missing or cannot be imported.
    """
    tf = load_tensorflow()
    _mend_estimator(tf)
    try:
        nsl = importlib.import_module("neural_structured_learning")
        graph_utils = importlib.import_module("neural_structured_learning.tools.graph_utils")
    except ImportError as error:
        raise StackError(
            f"neural_structured_learning cannot be imported ({error}).",
            cure="Run: pip install neural-structured-learning==1.4.0.",
        ) from error
    _mend_open(graph_utils)
    return nsl


def _mend_estimator(tf: types.ModuleType) -> bool:
    """TensorFlow 2.16 removed `tf.estimator`, which NSL imports and, as used here, never calls."""
    if hasattr(tf, "estimator"):
        return False
    tf.estimator = types.SimpleNamespace()  # type: ignore[attr-defined]
    return True


def _mend_open(graph_utils: types.ModuleType) -> bool:
    """Python 3.11 removed the mode 'U', with which NSL opens its TSV files."""
    if sys.version_info < (3, 11) or "open" in vars(graph_utils):
        return False

    def open_text(name: str, mode: str = "r", *args: Any, **kwargs: Any):
        return builtins.open(name, mode.replace("U", ""), *args, **kwargs)

    graph_utils.open = open_text
    return True


def load_kecam() -> types.ModuleType:
    """Returns keras-cv-attention-models.

    Raises:
        MissingExtraError: If it is not installed.
    """
    load_tensorflow()
    return load_optional("keras_cv_attention_models", "kecam", "This backbone")


def load_addons() -> types.ModuleType:
    """Returns tensorflow-addons, which runs on TensorFlow 2.15 only.

    Raises:
        MissingExtraError: If it is not installed.
    """
    load_tensorflow()
    return load_optional("tensorflow_addons", "addons", "This objective")


def load_distributed() -> types.ModuleType:
    """Returns Dask's `distributed`, which needs no TensorFlow.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return load_optional("distributed", "scale", "Work on Dask")


def check_optional(module: str, extra: str, purpose: str) -> None:
    """Refuses to go on without a package of an extra.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(module.replace("_", "-"), extra, purpose)


def load_optional(module: str, extra: str, purpose: str) -> types.ModuleType:
    """Returns a package of an extra.

    Raises:
        MissingExtraError: If it is not installed.
    """
    check_optional(module.partition(".")[0], extra, purpose)
    return importlib.import_module(module)


_LOADERS = {
    "tf": load_tensorflow,
    "keras": load_keras,
    "nsl": load_nsl,
}


def __getattr__(name: str) -> types.ModuleType:
    loader = _LOADERS.get(name)
    if loader is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = loader()
    globals()[name] = value
    return value
