"""Where images come from: `tfgraphreg.load_dataset` is the entrance."""
