"""Backbone families that no Keras library has, one file a family.

Every family file holds builder functions named as timm names its models, a table
`VARIANTS: dict[str, Variant]`, and `timm_names(model)`, which maps the weights of its networks
to the entries of a timm state dict. Nothing here imports TensorFlow until a family is imported.
"""
