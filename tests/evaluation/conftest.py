import pytest

from mengzi_mt.data.examples import TextExample
from mengzi_mt.prompts.rendering import Span


@pytest.fixture
def example():
    """Makes a text example: ``example("inputs", ("choice", "choice"), targets="choice")``."""

    def make(inputs, choices=None, targets="", shrinkable=()):
        return TextExample(inputs, targets, choices, tuple(Span(*span) for span in shrinkable), 1.0, "task", "template", "row")

    return make
