"""One training pass with neighbors, in plain TensorFlow; what both Keras wrappers share."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

from tfgraphreg.compat import tf
from tfgraphreg.distances import Distance, find_distance
from tfgraphreg.errors import ConfigError, TFGraphRegError
from tfgraphreg.model.graph_term import ContrastTerm, GraphTerm
from tfgraphreg.model.readout import Readout
from tfgraphreg.neighbors.modes import NeighborMode, Paired, find_mode, own_inputs


class Regularizer:
    """Runs a batch and its neighbors through the base model and compares neighbors.

    Args:
        readout: Runs the base model.
        alpha: Weight of the graph term, finite and >= 0.
        distance: See `find_distance`.
        mode: How batches carry neighbors; None: found from the keys of each batch.
        augmenter: Called as `augmenter(inputs, training=True)` on what goes through the model in
            training, or None.
        contrast: Temperature of a `ContrastTerm`, above 0; None: distances are compared.

    Raises:
        ConfigError: If an argument cannot be.
    """

    def __init__(
        self,
        readout: Readout,
        *,
        alpha: float,
        distance: Any,
        mode: NeighborMode | None,
        augmenter: Callable[..., Any] | None,
        contrast: float | None = None,
    ):
        if not (_is_number(alpha) and alpha >= 0):
            raise ConfigError(
                "`alpha` must be a finite number of at least 0.", received=f"alpha={alpha!r}"
            )
        if mode is not None and not isinstance(mode, NeighborMode):
            raise ConfigError(
                "`mode` must be Packed(k), Gathered(k), Paired(), Bank(k, size) or None.",
                received=f"mode={mode!r}",
            )
        self.readout = readout
        self.alpha = float(alpha)
        self.mode = mode
        self.augmenter = augmenter
        self.contrast = contrast
        self.term = GraphTerm(find_distance(distance))
        if contrast is not None:
            _check_contrast(contrast, self.alpha, self.term.distance.name, mode)
            self.term = ContrastTerm(float(contrast))
        self.memory: Any = None
        if self.alpha > 0 and readout.width is not None:
            self._start(mode, readout.width)

    def infer(self, inputs: Any) -> Any:
        """The base model's outputs in inference; neighbors in the batch are ignored."""
        argument = self.readout.select(own_inputs(inputs, self.mode))
        return self.readout.outputs(argument, training=False)

    def train(self, inputs: Any, *, fold: bool) -> tuple[Any, tf.Tensor | None]:
        """One pass in training mode.

        Args:
            inputs: Features of a batch.
            fold: Whether duplicates that the batch names by index may be computed once.

        Returns:
            The base model's outputs for the B rows of the batch; this replica's share of the mean
            over the global batch's edges of `w * d`, or None if alpha is 0.

        Raises:
            DataError: If alpha > 0 and the batch does not carry the neighbors.
        """
        if self.alpha == 0:
            own = own_inputs(inputs, self.mode)
            return self.readout.outputs(self._argument(own), training=True), None
        mode = self.mode or find_mode(inputs)
        mode.check(inputs)
        passed = mode.gather(inputs, fold=fold)
        outputs, compared = self.readout.run(self._argument(passed.inputs), training=True)
        self._start(mode, compared.shape[-1])
        if passed.places is not None:
            outputs = tf.nest.map_structure(lambda v: tf.gather(v, passed.places), outputs)
            compared = tf.gather(compared, passed.places)
        own = compared
        if passed.rows is not None:
            outputs = tf.nest.map_structure(lambda v: v[: passed.rows], outputs)
            own = compared[: passed.rows]
        share = self.term.mean(mode.edges(compared, inputs, self.memory))
        if mode.remembers:
            mode.remember(own, inputs, self.memory)
        self.term.learn(own)
        return outputs, share

    def _argument(self, inputs: Any) -> Any:
        argument = self.readout.select(inputs)
        return argument if self.augmenter is None else self.augmenter(argument, training=True)

    def _start(self, mode: NeighborMode | None, width: int | None) -> None:
        """Makes the variables of the memory and of a distance that learns."""
        keeper = mode if mode is not None and mode.remembers and self.memory is None else None
        learns = self.term.distance.running is not None and self.term.running is None
        if keeper is None and not learns:
            return
        if width is None or not _may_create():
            raise ConfigError(
                "A bank, and a distance that learns, need to know the embedding's width first.",
                cure="Name the embedding of a functional model by its layer or output.",
            )
        with tf.init_scope():
            if keeper is not None:
                self.memory = keeper.make_memory(width)
            self.term.start(width)


class Wrapper:
    """What the wrappers of both Keras versions share; stands before `Model` among the bases."""

    base_model: Any
    _library: Any  # the Keras module

    def _regularized(
        self, base_model: Any, embedding: Any, *, augmenter: Any, **settings: Any
    ) -> None:
        """Keeps the arguments, and makes the `Regularizer` of them."""
        self._refusals = Refusals()
        self.embedding = embedding
        self.augmenter = augmenter
        readout = Readout(base_model, embedding, self._library)
        self._regularizer = Regularizer(readout, augmenter=augmenter, **settings)

    def __repr__(self) -> str:
        """The arguments, as they would be written."""
        if "_regularizer" not in vars(self):  # Keras names the model while it is being made.
            return super().__repr__()
        parts = [f"alpha={self.alpha:g}", f"distance={self.distance.name!r}"]
        options = {
            "embedding": getattr(self.embedding, "__name__", self.embedding),
            "mode": self.mode,
            "contrast": self._regularizer.contrast,
        }
        parts += [f"{name}={value!r}" for name, value in options.items() if value is not None]
        return f"GraphRegularization({self.base_model.name}, {', '.join(parts)})"

    @property
    def alpha(self) -> float:
        """The weight of the graph term."""
        return self._regularizer.alpha

    @property
    def distance(self) -> Distance:
        """The distance between embeddings."""
        return self._regularizer.term.distance

    @property
    def mode(self) -> NeighborMode | None:
        """How batches carry neighbors, if it was given."""
        return self._regularizer.mode

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on batches of `with_neighbors`; see `keras.Model.fit`."""
        with self._refusals.shown():
            return self._library.Model.fit(self, *args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """One step on one batch; see `keras.Model.train_on_batch`."""
        with self._refusals.shown():
            return self._library.Model.train_on_batch(self, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Loss and metrics without the graph term; see `keras.Model.evaluate`."""
        with self._refusals.shown():
            return self._library.Model.evaluate(self, *args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """The base model's outputs; see `keras.Model.predict`."""
        with self._refusals.shown():
            return self._library.Model.predict(self, *args, **kwargs)


def _check_contrast(contrast: Any, alpha: float, distance: str, mode: NeighborMode | None) -> None:
    if not (_is_number(contrast) and contrast > 0):
        raise ConfigError(
            "`contrast` must be a temperature, a finite number above 0, or None.",
            received=f"contrast={contrast!r}",
            cure="Try 0.1.",
        )
    if alpha == 0 or distance != "cosine":
        raise ConfigError(
            "`contrast` compares by cosine, and only where `alpha` is above 0.",
            received=f"alpha={alpha:g}, distance={distance}",
        )
    if mode is not None and not (isinstance(mode, Paired) and mode.known):
        raise ConfigError(
            "`contrast` needs pairs whose batches name the known neighbors.",
            received=f"mode={mode!r}",
            cure="Use mode=Paired(known=True).",
        )


def _is_number(value: Any) -> bool:
    """Whether it is a finite real number, of Python or NumPy."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _may_create() -> bool:
    """Whether variables can be created here: not inside one replica of several."""
    return tf.distribute.in_cross_replica_context() or (
        tf.distribute.get_strategy().num_replicas_in_sync == 1
    )


class Refusals:
    """Raises an error of this package from inside `tf.function` unchanged.

    AutoGraph would replace it by an exception of its own with a page of source lines.
    """

    def __init__(self):
        self._last: TFGraphRegError | None = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the traced function: remembers the error."""
        try:
            yield
        except TFGraphRegError as error:
            self._last = error
            raise

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Outside of it: raises the error as it was."""
        self._last = None
        try:
            yield
        except Exception:
            if self._last is None:
                raise
            raise self._last from None
