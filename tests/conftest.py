"""What every test needs: the Keras 2 API, before anything can bind Keras 3."""

from tfgraphreg.compat import prepare_environment

prepare_environment()
