"""Errors are one sentence after another, also where one quotes another."""

import pytest

from tfgraphreg.errors import DataError, did_you_mean, first_line


@pytest.mark.parametrize(
    ("received", "message"),
    [
        ("k=1", "It failed. Received: k=1. Do this."),
        ("It has no config.", "It failed. Received: It has no config. Do this."),
        ("runs/..", "It failed. Received: runs/... Do this."),
    ],
)
def test_a_message_has_one_full_stop_where_it_ends(received, message):
    assert str(DataError("It failed.", received=received, cure="Do this.")) == message


def test_the_first_line_of_an_error_is_never_empty():
    assert first_line(ValueError("\n  one\ntwo")) == "one"
    assert first_line(AssertionError()) == "AssertionError"


def test_a_misspelled_name_is_compared_in_upper_and_lower_case():
    assert did_you_mean("COSINE", ["euclidean", "cosine"]) == "Did you mean cosine?"
    assert did_you_mean("resnet50", ["ResNet50", "vgg"]) == "Did you mean ResNet50?"
    # What differs by case alone is told apart.
    assert did_you_mean("cat", ["Cat", "cat"]) == "Did you mean cat or Cat?"
    assert did_you_mean("zebra", ["cosine"]) is None
