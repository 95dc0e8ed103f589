"""An exported model behind HTTP on this machine: TensorFlow Serving's REST form, and a page."""

HOST = "127.0.0.1"
PORT = 8501
"""TensorFlow Serving's."""
