"""Strategies, callbacks, checkpoints: everything around `fit`."""
