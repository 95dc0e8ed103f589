"""Other forms of an exported model: TFLite and ONNX, converted, and asked without TensorFlow."""

from tfgraphreg.formats.catalog import FORMATS, check_formats, convert, load, parse_formats

__all__ = ["FORMATS", "check_formats", "convert", "load", "parse_formats"]
