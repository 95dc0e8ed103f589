"""Image embeddings by graph regularization, in Keras."""

__version__ = "0.1.0"
