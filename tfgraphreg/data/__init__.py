"""Where images come from: `tfgraphreg.data.catalog.load` is the entrance."""
