"""Nearest vectors: among each other, of queries in a gallery, and in an index that is kept."""
