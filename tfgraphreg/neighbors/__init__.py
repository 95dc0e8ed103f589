"""How neighbors reach a batch.

`dataset.with_neighbors(data, graph, mode)` is the public way; `modes` holds the values `Packed`,
`Gathered`, `Paired` and `Bank`, which make batches, check them and read their edges.

Each function below gives one finite tf.data.Dataset over the epochs `first_epoch` to
`epochs - 1` of `(features, labels)`; a run taken up again at epoch e passes `first_epoch=e`.

- `packing.pack_neighbors(split, graph, *, max_neighbors, folder, key, packer="nsl",
  progress=None) -> PackedExamples`
- `packed.packed_batches(packed, *, batch_size, seed, epochs, first_epoch=0)`
- `batches.plain_batches(data, *, batch_size, seed, epochs, first_epoch=0)`
- `batches.gathered_batches(data, graph, *, max_neighbors, batch_size, seed, epochs,
  first_epoch=0, sample="top")`; `sample` is `"top"`, `"uniform"` or `"weight"`
- `batches.indexed_batches(...)`: the same arguments, for a bank of embeddings
- `batches.paired_batches(data, graph, *, batch_size, seed, epochs, first_epoch=0,
  by_weight=False, correction=None, replicas=1)`; B must be a multiple of 2 * replicas
- `order.steps_per_epoch(num_examples, batch_size)`: batches in an epoch of any of these
- `matching.edge_probabilities(graph, *, draws=200, seed=0, by_weight=False)` and
  `matching.correction(probabilities, *, draws)` for `paired_batches`

Features: the inputs, of a split `image` uint8 `[B, height, width, channels]`; packed and gathered:
`NL_nbr_<i>_<input>` and `NL_nbr_<i>_weight` float32 `[B, 1]`; gathered by sampling also `index` and
`NL_nbr_<i>_index` int64 `[B]`; paired: `pair_weight` float32 `[B]`;
indexed: `index` int64 `[B]`, `neighbor_index` int64 `[B, K]`, `neighbor_weight` float32 `[B, K]`.
Labels: int64 `[B]` or `[B, C]`, -1 where unlabeled.
"""
