"""How fast this project is, measured beside NSL and beside what cannot be beaten.

Every number compares contenders that run in turns in one process, so that a busy machine slows
all of them. `run.benchmark` is the entry; each other file measures one thing:

- `graph`: neighbors of 60,000 images, and of up to a million
- `packing`: records with neighbors
- `epoch`: training with neighbors against plain training
- `step`: what XLA, mixed precision, caching and one fused pass bring
- `inference`: a SavedModel trained with a graph against one trained without
- `startup`: from the command to the first step
- `quality`: what paired training learns, against packed
"""
