"""What every test needs: the Keras 2 API, before anything can bind Keras 3; two CPU devices."""

import pathlib
import shutil

import pytest

from tfgraphreg.compat import prepare_environment

prepare_environment()

# The inner loop, `pytest -m fast`: modules that train nothing, start no other process and take a
# few seconds each. What is added here must keep the whole under 90 s on two idle cores.
FAST = {
    "test_cli",
    "test_config",
    "test_data_layout",
    "test_data_sources",
    "test_distances",
    "test_errors",
    "test_evaluation_average_precision",
    "test_evaluation_classification",
    "test_evaluation_detection",
    "test_evaluation_faithfulness",
    "test_evaluation_multilabel",
    "test_evaluation_retrieval",
    "test_evaluation_segmentation",
    "test_features_vectors",
    "test_graph_build",
    "test_graph_convert",
    "test_graph_knn",
    "test_graph_similarity",
    "test_graph_tsv",
    "test_neighbors_grouping",
    "test_neighbors_matching",
    "test_propagation",
    "test_public",
    "test_quiet",
    "test_registry",
    "test_search_reject",
    "test_storage",
}

# What these guard is the same beside every TensorFlow: other programs, files, pages, packaging,
# tools around the package, and single networks, some of which the contract takes on both stacks. CI
# runs them on the default stack alone.
ONE_STACK = {
    "test_audit",
    "test_backbones_cli",
    "test_backbones_families_attention",
    "test_backbones_families_conv",
    "test_benchmark",
    "test_cli",
    "test_config",
    "test_damage",
    "test_damage_harness",
    "test_data_folder",
    "test_data_scenes",
    "test_data_sources",
    "test_data_voc",
    "test_errors",
    "test_evaluation_average_precision",
    "test_features_patches",
    "test_formats",
    "test_formats_onnx",
    "test_features_proposals",
    "test_graph_report",
    "test_image_files",
    "test_kill_harness",
    "test_neighbors_flags",
    "test_neighbors_matching",
    "test_propagation",
    "test_quiet",
    "test_readme",
    "test_recipes_compare",
    "test_recipes_embeddings",
    "test_recipes_graphs",
    "test_recipes_propagate",
    "test_recipes_reject",
    "test_registry",
    "test_relabel",
    "test_runs",
    "test_serving",
    "test_shards",
    "test_site",
    "test_storage",
    "test_style",
    "test_suggest",
    "test_superpixels",
    "test_tools_backbones",
    "test_tutorials",
    "test_visualize_mde",
    "test_visualize_pictures",
    "test_visualize_report",
    "test_wheel",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests of each module as that module is listed above."""
    for item in items:
        module = pathlib.Path(item.path).stem
        if module in FAST and item.get_closest_marker("slow") is None:
            item.add_marker("fast")
        if module in ONE_STACK:
            item.add_marker("one_stack")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium, in which the page is tested, is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


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
