import pytest

from mengzi_mt.data.examples import TextExample


@pytest.fixture
def example():
    """Makes a text example: ``example("inputs", ("choice", "choice"), targets="choice")``."""

    def make(inputs, choices=None, targets="", shrinkable=()):
        return TextExample(inputs, targets, choices, shrinkable, 1.0, "task", "template", "row")

    return make
