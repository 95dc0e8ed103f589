"""The network and its graph-regularized training step."""
