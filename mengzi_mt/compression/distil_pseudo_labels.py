"""Sequence-level distillation: the teacher answers examples drawn from the mixture, and its answers become targets.

    pseudo-labels.jsonl
        {"format": "mengzi-mt/pseudo-labels/1", "made_from": {"teacher": …, "seed": …, …}}
        {"inputs": "…", "targets": "北京", "choices": null, "shrinkable": [[3, 80, "tail"]], "task": …, …}

One line an example, in the order in which the mixture draws them; an interrupted run goes on behind the last whole line. The file
holds all that training needs, so it can be written on another machine, read through, and used again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengzi_mt.data.constraints import OneOf
from mengzi_mt.data.examples import TextExample, render_example
from mengzi_mt.data.mixture import Mixture
from mengzi_mt.data.stream import ExampleStream
from mengzi_mt.data.tokens import Encoder, Limits, TokenizedExample
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.prompts.rendering import Span

FORMAT = "mengzi-mt/pseudo-labels/1"
AT_ONCE = 512
"""Examples that are answered between two writes."""


def write_pseudo_labels(
    path: Path,
    mixture: Mixture,
    number: int,
    generator: Generator,
    made_from: dict[str, Any],
    advance: Callable[[int, int], None] | None = None,
) -> None:
    """Write the teacher's answers to the mixture's first ``number`` examples, behind those that are there.

    An answer with choices is one of them. A row's own label is not looked at.

    Args:
        path: of the file.
        mixture: of the rows to answer.
        number: how many examples.
        generator: of the teacher.
        made_from: what the answers depend on; a file that was made from something else is refused.
        advance: called with the number of lines that are there and are to be, after each write.

    Raises:
        InputError: a file that was made from something else, or is none of this kind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    there = _begin(path, made_from)
    with path.open("a", encoding="utf-8") as file:
        for start in range(there, number, AT_ONCE):
            examples = _unlabelled(mixture, start, min(number, start + AT_ONCE))
            file.writelines(_line(example) for example in _answered(examples, generator))
            file.flush()
            if advance:
                advance(start + len(examples), number)


def read_pseudo_labels(path: Path) -> list[TextExample]:
    """The examples of a file, in order.

    Raises:
        InputError: no such file, or a line that is no example (file, line).
    """
    if not path.is_file():
        raise InputError("There are no pseudo-labels", where=str(path), fix="let the recipe write them, or give another `file`")
    examples = []
    with path.open(encoding="utf-8") as file:
        for place, line in enumerate(file, 1):
            try:
                read = json.loads(line)
                if place == 1:
                    if read["format"] != FORMAT:
                        raise ValueError(f"the format is {read['format']!r}")
                    continue
                choices = None if read["choices"] is None else tuple(read["choices"])
                spans = tuple(Span(*span) for span in read["shrinkable"])
                examples.append(TextExample(**{**read, "choices": choices, "shrinkable": spans}))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"This is no pseudo-label: {error}",
                    where=f"{path}, line {place}",
                    fix="remove the file; it is then written anew",
                ) from error
    if not examples:
        raise InputError("The file holds no pseudo-label", where=str(path), fix="remove it; it is then written anew")
    return examples


@dataclass(frozen=True)
class WithPseudoLabels:
    """A stream of which a share of the positions, evenly spread, holds pseudo-labelled examples; the others stay as they are.

    Attributes:
        stream: the mixture's examples.
        pseudo: the pseudo-labelled ones, taken in turn, over and over.
        share: between 0 and 1.
        encoder: of the student's tokenizer.
        limits: of an example.
    """

    stream: ExampleStream
    pseudo: Sequence[TextExample]
    share: float
    encoder: Encoder
    limits: Limits

    def examples(self, start: int, stop: int) -> list[TokenizedExample | None]:
        """See :class:`mengzi_mt.data.stream.ExampleStream`."""
        numbers = {place: self._before(place) for place in range(start, stop) if self._before(place + 1) > self._before(place)}
        told = [self.pseudo[number % len(self.pseudo)] for number in numbers.values()]
        taken = dict(zip(numbers, self.encoder.examples(told, self.limits), strict=True))
        if len(taken) == stop - start:
            return list(taken.values())
        gold = self.stream.examples(start, stop)
        return [taken[place] if place in taken else gold[place - start] for place in range(start, stop)]

    def _before(self, position: int) -> int:
        """Pseudo-labelled examples before a position."""
        return int(position * self.share + 1e-9)


def _unlabelled(mixture: Mixture, start: int, stop: int) -> list[TextExample]:
    """The examples at some positions of the mixture, without targets."""
    found = []
    for number, row, template in zip(*(array.tolist() for array in mixture.draws(range(start, stop))), strict=True):
        pool = mixture.pools[number]
        found.append(render_example(pool.task, pool.templates[template], pool.rows[row], with_target=False))
    return found


def _answered(examples: Sequence[TextExample], generator: Generator) -> list[TextExample]:
    """The examples with the teacher's answers as targets."""
    answered = list(examples)
    for constraint in (OneOf(), None):
        places = [place for place, example in enumerate(examples) if bool(example.choices) == (constraint is not None)]
        answers = generator.generate([examples[place] for place in places], constraint=constraint)
        for place, answer in zip(places, answers, strict=True):
            answered[place] = examples[place]._replace(targets=answer.text)
    return answered


def _line(example: TextExample) -> str:
    return json.dumps(example._asdict(), ensure_ascii=False) + "\n"


def _begin(path: Path, made_from: dict[str, Any]) -> int:
    """Examples that the file holds already; a line that was cut off is removed, a file that is not there is begun."""
    header = {"format": FORMAT, "made_from": made_from}
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        path.write_text(json.dumps(header, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    try:
        found = json.loads(whole.partition(b"\n")[0])
    except ValueError:
        found = None
    if found != header:
        before = found.get("made_from", {}) if isinstance(found, dict) else {}
        changed = sorted(key for key in {*made_from, *before} if made_from.get(key) != before.get(key))
        raise InputError(
            f"The pseudo-labels there were made from something else: {', '.join(changed) or 'another format'} differ",
            where=str(path), fix="give another pseudo_labels.file, or remove this one; it is then written anew",
        )  # fmt: skip
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.count(b"\n") - 1
