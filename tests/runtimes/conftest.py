import pytest
import torch

from mengzi_mt.data.choice_trees import choice_tree, tree_batch
from mengzi_mt.models.tree import TreeDecoder

END = 1


@pytest.fixture
def make_model(tiny_model):
    """A T5 whose answers end at different lengths: ``make_model(tied=…)``."""

    def make(tied, vocabulary=2_400):
        model = tiny_model(tied=tied, vocabulary=vocabulary, seed=3).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(4 if tied else 8)
            model.lm_head.weight[END] *= 1.5
        return model

    return make


def drawn_inputs(lengths, vocabulary=2_300):
    """Token ids of these lengths, end-of-sequence included."""
    generator = torch.Generator().manual_seed(7)
    return [[*torch.randint(3, vocabulary, (length - 1,), generator=generator).tolist(), END] for length in lengths]


CHOICES = [
    [(5, 6, 1), (5, 7, 8, 1), (9, 1)],
    [(40, 1), (41, 42, 43, 44, 45, 1)],
    [(12, 13, 1), (12, 1), (14, 13, 1), (12, 13, 15, 1)],
]


def examples_of(inputs):
    """Every input with a tree of choices."""
    return [(ids, choice_tree(CHOICES[place % len(CHOICES)], 0)) for place, ids in enumerate(inputs)]


def torch_scores(model, examples):
    """The float32 scores of this package."""
    return TreeDecoder(model)(tree_batch(examples, 1.0))


def flat(scores):
    return torch.tensor([value for one in scores for value in one], dtype=torch.float64)
