"""What is done to a network's graph so that tf2onnx can convert it."""

from __future__ import annotations

from typing import Any

import numpy as np

# Keras compiles grouped convolution with XLA: what bears one of these is kept a function.
_KEPT_APART = ("_XlaMustCompile", "_noinline")


def frozen(function: Any) -> Any:
    """A concrete function's graph as one GraphDef, with weights and captured constants in it.

    tf2onnx would freeze the function too, but then takes captured constants for inputs, and finds
    no operation for the functions that XLA was to compile.
    """
    # Not TensorFlow's public API, which has none; tf2onnx freezes by the same function.
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    made = convert_variables_to_constants_v2(
        function, lower_control_flow=False, aggressive_inlining=True
    )
    graph = made.graph.as_graph_def(add_shapes=True)
    _let_inline(graph)
    return graph


def _let_inline(graph: Any) -> None:
    """Lets TensorFlow's optimizer, which tf2onnx runs, put every function where it is called."""
    functions = graph.library.function
    nodes = [*graph.node, *(node for body in functions for node in body.node_def)]
    for owner in (*nodes, *functions):
        for name in _KEPT_APART:
            if name in owner.attr:
                del owner.attr[name]


def _erfc(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Erfc as 1 - Erf: ONNX has Erf alone, and exact GELU is made of Erfc."""
    given, gave = node.input[0], node.output[0]
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    erf = graph.make_node("Erf", [given], shapes=shapes, dtypes=dtypes).output[0]
    graph.make_node("Sub", [one, erf], outputs=[gave], name=name, shapes=shapes, dtypes=dtypes)


HANDLERS: dict[str, tuple[Any, list[Any]]] = {"Erfc": (_erfc, [])}
"""Of tf2onnx's `custom_op_handlers`: operations that it lacks, by others."""
