"""Several templates asked the same thing: how their answers become one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from mengzi_mt.evaluation.generation import Generated
from mengzi_mt.evaluation.normalisation import ChoiceScores, log_normalised
from mengzi_mt.evaluation.selection import Rule

Mention = tuple[str, str]


def vote_of_choices(scores: Sequence[ChoiceScores], rule: Rule) -> tuple[int, list[float]]:
    """The answer's index, and the probability of every choice, from the scores of each template.

    Probabilities are the normalised geometric mean. ``mean`` answers with the most probable choice, ``majority`` with that of most
    templates; equal votes are decided by the probabilities, equal ones by the first choice
    (as :func:`mengzi_mt.evaluation.selection.vote`).
    """
    logs = [log_normalised(one.log_probabilities) for one in scores]
    means = log_normalised([math.fsum(column) / len(logs) for column in zip(*logs, strict=True)])
    votes = Counter(one.index(max(one)) for one in logs) if rule == "majority" else Counter()
    best = max(range(len(means)), key=lambda place: (votes[place], means[place], -place))
    return best, [math.exp(value) for value in means]


def vote_of_texts(answers: Sequence[Generated]) -> int:
    """Which template's text to take: one that most of them write, of these the most probable by token, the first of equals."""
    votes = Counter(one.text for one in answers)
    return max(range(len(answers)), key=lambda place: (votes[answers[place].text], _by_token(answers[place]), -place))


def vote_of_mentions(answers: Sequence[Sequence[Mention]]) -> list[Mention]:
    """Mentions that more than half of the templates name, in the order in which they are first named."""
    votes = Counter(mention for one in answers for mention in set(one))
    return [one for one in dict.fromkeys(one for several in answers for one in several) if 2 * votes[one] > len(answers)]


def _by_token(answer: Generated) -> float:
    return -math.inf if answer.log_probability is None else answer.log_probability / max(1, answer.tokens)
