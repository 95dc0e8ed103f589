"""What goes into a base model, and which of its rows are compared; for either Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfgraphreg.compat import as_converted, tf
from tfgraphreg.errors import ConfigError, DataError, did_you_mean
from tfgraphreg.neighbors.examples import IMAGE, INPUT

EMBEDDING = "embedding"


class Readout:
    """Runs a base model and picks the embedding that the graph term compares.

    Args:
        base_model: A functional, sequential or subclassed model; gives a tensor or a dictionary.
        embedding: The name of an output, or of a layer of a functional or sequential model; a
            function of the outputs; or None: the output itself, of a dictionary `embedding`.
        keras: The Keras that the model belongs to.

    Attributes:
        halves: Whether `outputs` in training are those of two halves of the rows, side by side.

    Raises:
        ConfigError: If there is no such output or layer.
    """

    def __init__(self, base_model: Any, embedding: str | Callable | None, keras: Any):
        if not (embedding is None or isinstance(embedding, str) or callable(embedding)):
            raise ConfigError(
                "`embedding` must be the name of a layer or output, a function or None.",
                received=repr(embedding),
            )
        self.base_model = base_model
        self.embedding = embedding
        self._keras = keras
        self.halves = False
        self._joined: Any = None
        self._spec: Any = None
        if self._connected():
            self._connect()

    @property
    def width(self) -> int | None:
        """D, or None if it is unknown before the first batch."""
        if self._spec is None or callable(self.embedding):
            return None
        shape = self._spec.shape[1:]
        return None if None in shape else int(tf.TensorShape(shape).num_elements())

    def select(self, inputs: Any) -> Any:
        """The model's argument: a tensor, a list or a dictionary, from inputs by name.

        Raises:
            DataError: If the model lacks an input, or would not use one.
        """
        if not isinstance(inputs, Mapping):
            return inputs
        if not self._connected():
            return next(iter(inputs.values())) if set(inputs) in ({INPUT}, {IMAGE}) else inputs
        structure = _structure(self.base_model, "input")
        if not isinstance(structure, (dict, list, tuple)):
            if len(inputs) == 1:
                return next(iter(inputs.values()))
            expected = [_input_names(self.base_model)[0]]
        else:
            names = _input_names(self.base_model)
            expected = list(structure) if isinstance(structure, dict) else names
            if set(inputs) == set(expected):
                return inputs if isinstance(structure, dict) else [inputs[n] for n in expected]
            if len(inputs) == len(expected) == 1:
                value = next(iter(inputs.values()))
                return {expected[0]: value} if isinstance(structure, dict) else [value]
        raise DataError(
            "The inputs in a batch must be those of the model.",
            received=f"{', '.join(sorted(inputs))}; the model takes {', '.join(sorted(expected))}",
            cure="Rename or leave out what the model does not take.",
        )

    def outputs(self, argument: Any, *, training: bool) -> Any:
        """The base model's outputs for an argument of `select`."""
        if training and self.halves:
            return _in_halves(self.base_model, argument)
        return self.base_model(argument, training=training)

    def run(self, argument: Any, *, training: bool) -> tuple[Any, tf.Tensor]:
        """The base model's outputs, and the rows `[M, D]` that are compared."""
        if isinstance(self.embedding, str) and self._spec is None and self._sequential():
            self.base_model.build((None, *argument.shape[1:]))
            self._connect()
        if self._joined is not None:
            outputs, compared = self._joined(argument, training=training)
        else:
            outputs = self.outputs(argument, training=training)
            compared = self._pick(outputs)
        return outputs, _rows(compared)

    def _connect(self) -> None:
        """Finds the embedding in a model whose layers are connected already."""
        if callable(self.embedding):
            return
        output = _structure(self.base_model, "output")
        if self.embedding is None or (isinstance(output, dict) and self.embedding in output):
            self._spec = self._pick(output)
            return
        self._spec = self._layer_output()
        self._joined = self._keras.Model(_structure(self.base_model, "input"), (output, self._spec))
        left_out = {x.name for x in self.base_model.layers} - {x.name for x in self._joined.layers}
        if left_out:
            raise ConfigError(
                "A model with layers beside its outputs cannot be read at a layer by name.",
                received=f"embedding={self.embedding!r}, beside: {', '.join(sorted(left_out))}",
                cure="Make the embedding an output: keras.Model(inputs, {'embedding': ..., ...}).",
            )

    def _pick(self, outputs: Any) -> Any:
        """The embedding among the outputs."""
        if callable(self.embedding):
            return as_converted(self.embedding)(outputs)
        if isinstance(outputs, Mapping):
            name = EMBEDDING if self.embedding is None else self.embedding
            if name in outputs:
                return outputs[name]
            raise ConfigError(
                "The model has no output of the embedding's name.",
                received=f"embedding={name!r}, outputs {', '.join(sorted(outputs))}",
                cure=did_you_mean(name, outputs)
                or "Name one of the outputs, or pass a function of the outputs.",
            )
        if self.embedding is None and not isinstance(outputs, (list, tuple)):
            return outputs
        raise ConfigError(
            "The embedding cannot be found in what the model gives.",
            received=f"embedding={self.embedding!r}, a model that gives {type(outputs).__name__}",
            cure="Let a subclassed model return a dictionary that holds the embedding, or pass a "
            "function of its outputs.",
        )

    def _layer_output(self) -> Any:
        names = [layer.name for layer in self.base_model.layers]
        if self.embedding not in names:
            raise ConfigError(
                "The model has no layer or output of the embedding's name.",
                received=f"embedding={self.embedding!r}",
                cure=did_you_mean(self.embedding, names) or f"Its layers are {', '.join(names)}.",
            )
        try:
            return self.base_model.get_layer(self.embedding).output
        except (AttributeError, ValueError) as error:
            raise ConfigError(
                "The embedding's layer must be used once in the model.",
                received=f"embedding={self.embedding!r} ({error})",
                cure="Make the embedding an output of the model.",
            ) from error

    def _sequential(self) -> bool:
        return isinstance(self.base_model, self._keras.Sequential)

    def _connected(self) -> bool:
        """Whether the model is functional, or sequential with a known input."""
        return bool(getattr(self.base_model, "inputs", None))


def _structure(model: Any, side: str) -> Any:
    """The model's `input` or `output`: a tensor, a list or a dictionary."""
    try:
        return getattr(model, side)
    except (AttributeError, ValueError):  # A sequential model of Keras 3 knows only the list.
        (only,) = getattr(model, side + "s")
        return only


def _input_names(model: Any) -> list[str]:
    # Keras 2 numbers the tensors' names and keeps those that the user gave in `input_names`.
    return list(getattr(model, "input_names", None) or [t.name for t in model.inputs])


def _in_halves(model: Any, argument: Any) -> Any:
    """The outputs of a training pass in two halves, which TensorFlow computes at the same time.

    Batch normalization sees each half by itself ("ghost batches", Hoffer et al. 2017,
    arXiv:1705.08741). Of an odd number of rows the one in the middle is in both.
    """
    some = tf.nest.flatten(argument)[0]
    rows = some.shape[0] or tf.shape(some)[0]
    size = (rows + 1) // 2
    halves = (lambda values: values[:size], lambda values: values[rows - size :])
    first, second = (model(tf.nest.map_structure(half, argument), training=True) for half in halves)
    odd = 2 * size - rows
    return tf.nest.map_structure(lambda a, b: tf.concat([a, b[odd:]], 0), first, second)


def _rows(compared: Any) -> tf.Tensor:
    """`[M, D]` of `[M, ...]`."""
    if compared.shape.rank == 2:
        return compared
    return tf.reshape(compared, [tf.shape(compared)[0], -1])
