"""Metrics over normalised text, and the statistics that stand beside them.

Both sides of a comparison are NFKC-normalised first, because the tokenizer turns full-width punctuation into ASCII and a
model can only write what its tokenizer writes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from mengzi_mt.errors import InputError


def normalise(text: str) -> str:
    """NFKC, whitespace runs as one blank, ends stripped."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


_SEGMENT = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")


def _segments(text: str) -> list[str]:
    """Chinese characters one by one, other runs of letters and digits whole; lower case, no punctuation (as CMRC 2018's)."""
    return _SEGMENT.findall(normalise(text).lower())


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> float:
    """Share of equal pairs."""
    return sum(p == r for p, r in zip(predictions, references, strict=True)) / max(1, len(references))


def macro_f1(predictions: Sequence[int], references: Sequence[int]) -> float:
    """Unweighted mean of the F1 of every class that occurs on either side (scikit-learn's macro average)."""
    classes = sorted(set(predictions) | set(references))
    total = 0.0
    for label in classes:
        hits = sum(p == r == label for p, r in zip(predictions, references, strict=True))
        total += 2 * hits / (predictions.count(label) + references.count(label)) if hits else 0.0
    return total / max(1, len(classes))


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of predictions equal to one of their references, punctuation, blanks and case aside."""
    hits = sum(any(_segments(p) == _segments(r) for r in several) for p, several in zip(predictions, references, strict=True))
    return hits / max(1, len(references))


def char_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over rows of the best F1 of characters by longest common *substring* length, as CMRC 2018 defines it.

    The evaluation script of CMRC 2018 takes the longest common contiguous piece (its ``find_lcs``), not the bag of
    characters and not the subsequence; a word or number in other letters counts as one unit.
    """
    total = 0.0
    for prediction, several in zip(predictions, references, strict=True):
        total += max((_substring_f1(_segments(prediction), _segments(r)) for r in several), default=0.0)
    return total / max(1, len(references))


def _substring_f1(prediction: list[str], reference: list[str]) -> float:
    common = _longest_common_substring(prediction, reference)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def _longest_common_substring(a: list[str], b: list[str]) -> int:
    best, previous = 0, [0] * (len(b) + 1)
    for x in a:
        row = [0] * (len(b) + 1)
        for j, y in enumerate(b, start=1):
            if x == y:
                row[j] = previous[j - 1] + 1
                best = max(best, row[j])
        previous = row
    return best


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over rows of the best ROUGE-L F1 on characters (Lin, 2004), punctuation kept."""
    total = 0.0
    for prediction, several in zip(predictions, references, strict=True):
        total += max((_rouge_l(normalise(prediction), normalise(r)) for r in several), default=0.0)
    return total / max(1, len(references))


def _rouge_l(prediction: str, reference: str) -> float:
    a, b = prediction.replace(" ", ""), reference.replace(" ", "")
    previous = [0] * (len(b) + 1)
    for x in a:
        row = [0]
        for j, y in enumerate(b, start=1):
            row.append(previous[j - 1] + 1 if x == y else max(previous[j], row[-1]))
        previous = row
    common = previous[-1]
    return 2 * common / (len(a) + len(b)) if common else 0.0


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Corpus BLEU on characters (Papineni et al., 2002), without smoothing, in 0..1."""
    matches, totals = [0] * order, [0] * order
    length = reference_length = 0
    for prediction, several in zip(predictions, references, strict=True):
        candidate = list(normalise(prediction).replace(" ", ""))
        golds = [list(normalise(r).replace(" ", "")) for r in several]
        length += len(candidate)
        reference_length += min((abs(len(g) - len(candidate)), len(g)) for g in golds)[1]
        for n in range(1, order + 1):
            grams = _grams(candidate, n)
            ceiling: Counter[tuple[str, ...]] = Counter()
            for gold in golds:
                ceiling |= _grams(gold, n)
            matches[n - 1] += sum((grams & ceiling).values())
            totals[n - 1] += sum(grams.values())
    if not all(matches):
        return 0.0
    precision = sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / order
    return math.exp(precision + min(0.0, 1 - reference_length / length))


def _grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


_TYPE = r"([^\W\d_]{2,6})"  # a type is a short word: this tells 人名：甲 from the title 《战地：叛逆连队》
_PAIRS = re.compile(rf"\({_TYPE},(.+?)\)(?=\s*\({_TYPE},|\s*$)")
_HEADED = re.compile(rf"【{_TYPE}】(?![(是])(.+?)(?=【{_TYPE}】|$)")
_TYPE_FIRST = re.compile(rf"\s*{_TYPE}\s*:(.*)")
_TYPE_IN_BRACKETS = re.compile(rf"(.+)\({_TYPE}\)\s*")
_MENTION_IS_TYPE = re.compile(rf"(.+)是{_TYPE}")
_NONE = {"", "无", "没有"}


def parse_entities(text: str) -> set[tuple[str, str]]:
    """Entities of an answer as (type, mention) pairs, in any of the ways that NER templates ask for.

    ``类型：甲，乙；类型：丙`` (also a type a line), ``【类型】甲、乙【类型】丙``, ``（类型，甲）（类型，乙）``, ``甲（类型）`` a
    line, ``甲是类型，乙是类型``, and a bare list ``甲，乙``, whose mentions have the type "".
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    groups = _typed_mentions(plain) or [("", re.split(r"[,、;\n]", plain))]
    return {(kind, mention.strip()) for kind, mentions in groups for mention in mentions if mention.strip() not in _NONE}


def _typed_mentions(plain: str) -> list[tuple[str, list[str]]]:
    """Every type of an answer with its mentions; empty for a bare list."""
    if plain.startswith("(") and (pairs := _PAIRS.findall(plain)):
        return [(kind, [mention]) for kind, mention, _ in pairs]
    if plain.startswith("【") and (headed := _HEADED.findall(plain)):
        return [(kind, re.split("[,、]", mentions)) for kind, mentions, _ in headed]
    groups: list[tuple[str, list[str]]] = []
    for segment in re.split(r"[;\n]", plain):
        if match := _TYPE_FIRST.fullmatch(segment):
            groups.append((match[1], re.split("[,、]", match[2])))
        elif match := _TYPE_IN_BRACKETS.fullmatch(segment):
            groups.append((match[2], [match[1]]))
        else:
            groups += [(match[2], [match[1]]) for piece in segment.split(",") if (match := _MENTION_IS_TYPE.fullmatch(piece))]
    return groups


def entity_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Micro F1 over parsed (type, mention) pairs of all rows; never per character."""
    hits = predicted = gold = 0
    for prediction, several in zip(predictions, references, strict=True):
        found, wanted = parse_entities(prediction), parse_entities(several[0])
        hits += len(found & wanted)
        predicted += len(found)
        gold += len(wanted)
    return 2 * hits / (predicted + gold) if hits else 0.0


CHOICE_METRICS: dict[str, Callable[[Sequence[int], Sequence[int]], float]] = {"accuracy": accuracy, "macro_f1": macro_f1}
TEXT_METRICS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], float]] = {
    "exact_match": exact_match,
    "char_f1": char_f1,
    "rouge": rouge_l,
    "bleu": bleu,
    "entity_f1": entity_f1,
}


def compute_text_metric(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """A text metric by its task name."""
    if name not in TEXT_METRICS:
        raise InputError(f"There is no text metric {name!r}", where="task.yaml, key metrics", fix=", ".join(TEXT_METRICS))
    return TEXT_METRICS[name](predictions, references)


def wilson_interval(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a proportion (Wilson, 1927)."""
    if n == 0:
        return (0.0, 1.0)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (max(0.0, centre - half), min(1.0, centre + half))


def binomial_p(hits: int, n: int, chance: float) -> float:
    """One-sided p: the probability of at least ``hits`` of ``n`` by guessing at ``chance``."""
    if hits <= 0:
        return 1.0
    if not 0 < chance < 1:
        return 0.0 if hits > n * chance else 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(chance) + (n - k) * math.log1p(-chance)
        for k in range(hits, n + 1)
    ]
    top = max(logs)
    return min(1.0, math.exp(top) * sum(math.exp(value - top) for value in logs))
