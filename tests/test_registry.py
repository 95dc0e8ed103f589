"""Registries answer misspelled names."""

import pytest

from tfgraphreg.errors import ConfigError, UnknownNameError
from tfgraphreg.registry import Registry


@pytest.fixture
def colors():
    registry = Registry("color")
    for name in ("red", "green", "blue"):
        registry.register(name, name.upper())
    return registry


def test_get_and_names(colors):
    assert colors.get("red") == "RED"
    assert colors.names("*e*") == ["blue", "green", "red"]
    assert colors.names("b*") == ["blue"]
    assert "green" in colors and len(colors) == 3 and next(iter(colors)) == "blue"


def test_unknown_names_get_the_nearest(colors):
    with pytest.raises(
        UnknownNameError, match=r"Unknown color. Received: 'gren'. Did you mean green"
    ):
        colors.get("gren")
    with pytest.raises(UnknownNameError, match="Known names: blue, green, red"):
        colors.get("xyz")


def test_a_name_is_taken_once(colors):
    with pytest.raises(ConfigError, match="registered already"):
        colors.register("red", "R")
    assert colors.register("red", "R", replace=True) == "R"
