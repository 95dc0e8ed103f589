"""What every test needs: the Keras 2 API, before anything can bind Keras 3; two CPU devices."""

import pytest

from tfgraphreg.compat import prepare_environment

prepare_environment()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A new folder to run commands in, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def two_replicas():
    """A MirroredStrategy over two logical CPU devices."""
    from tfgraphreg.compat import tf
    from tfgraphreg.training.strategy import choose_strategy

    if len(tf.config.list_logical_devices("CPU")) < 2:
        pytest.skip("TensorFlow was started with one logical CPU before this test")
    return choose_strategy("mirrored")


def pytest_collection_finish(session):
    """Splits the CPU in two before any test starts TensorFlow, if a test asks for it."""
    if any("two_replicas" in getattr(item, "fixturenames", ()) for item in session.items):
        from tfgraphreg.compat import tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
