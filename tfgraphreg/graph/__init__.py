"""Similarity graphs: building, reading, writing and judging them."""
