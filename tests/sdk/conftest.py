import pytest

from mengzi_mt.sdk.mengzi import Mengzi


@pytest.fixture(scope="session")
def mengzi():
    """The shipped model."""
    return Mengzi.load(device="cpu")


@pytest.fixture(scope="session")
def normalise(mengzi):
    """What its tokenizer makes of a text."""
    return mengzi.scorers.generator.pieces.normalise
