"""From a template's answer back to what it says.

How a template writes its answer (behind a heading, in quotation marks, with 、 between several) is found out by rendering its
target with marks in the place of the answer, so it stands in the template alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mengzi_mt.data.constraints import Answers, Constraint, SpanOf
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.pieces import Pieces
from mengzi_mt.data.typed_spans import ListedSpans
from mengzi_mt.evaluation.metrics.text import normalise
from mengzi_mt.evaluation.span_parsing import parse_entities
from mengzi_mt.prompts.template import Template
from mengzi_mt.sdk.catalogue import DownstreamTask
from mengzi_mt.tasks.task import Task

MARKS = ("\ue000", "\ue001")
"""Private characters, in no template."""


@dataclass(frozen=True)
class Frame:
    """What a template puts around its answer.

    Attributes:
        before: the answer.
        after: it.
        between: several answers; None where it takes one alone.
        nothing: how it says that there is none; empty where it has no word for that.
    """

    before: str = ""
    after: str = ""
    between: str | None = None
    nothing: str = ""

    @property
    def bare(self) -> bool:
        """Whether the answer stands there alone."""
        return not self.before and not self.after

    def inside(self, text: str) -> str:
        """The answer without what stands around it, however the tokenizer has normalised that."""
        for part, pattern in ((self.before, "^{}"), (self.after, "{}$")):
            if part:
                text = re.sub(pattern.format(f"(?:{re.escape(part)}|{re.escape(normalise(part))})"), "", text.strip())
        return text.strip()


def frame_of(task: DownstreamTask, template: Template) -> Frame:
    """The frame of a template's answers."""
    registry = task.task
    wanted = template.compiled.target_names - set(task.inputs.values())
    lists = any(registry.fields[name].type in ("entities", "strings") for name in wanted)
    shown = _target(task, template, registry, wanted, MARKS if lists else MARKS[:1])
    nothing = _target(task, template, registry, wanted, ()) if task.kind == "mentions" else ""
    first, last = shown.find(MARKS[0]), shown.find(MARKS[1] if lists else MARKS[0])
    if first < 0 or last < 0:
        return Frame(nothing=nothing)
    return Frame(shown[:first], shown[last + 1 :], shown[first + 1 : last] if lists else None, nothing)


def _target(task: DownstreamTask, template: Template, registry: Task, wanted: frozenset[str] | set[str], texts: Any) -> str:
    kind = (registry.labels or {}).get(task.entity or "", "")
    entities = [{"text": text, "type": kind, "start": place, "end": place + 1} for place, text in enumerate(texts)]
    forms = {"entities": entities, "strings": list(texts), "answers": [{"text": text, "start": 0} for text in texts]}
    return _rendered_target(task, template, {name: forms.get(registry.fields[name].type, "".join(texts)) for name in wanted})


def _rendered_target(task: DownstreamTask, template: Template, gold: Mapping[str, Any]) -> str:
    values = {**task.task.empty_fields, **dict.fromkeys(task.inputs.values(), ""), **gold}
    return template.render(values).targets or ""


def entity_type(task: DownstreamTask) -> str:
    """The type of the entities of a task that has one alone."""
    return (task.task.labels or {}).get(task.entity or "", "")


def mentions(task: DownstreamTask, answer: str) -> list[tuple[str, str]]:
    """Types and texts that an answer names."""
    types = tuple((task.task.labels or {}).values())
    found = [(str(kind), str(text)) for kind, text in parse_entities(answer, (), types)]
    if task.kind != "mentions":
        return [one for one in found if one[0] in types]
    own = entity_type(task)
    return [(own, text) for kind, text in found if kind in ("", own)]


def words(frame: Frame, answer: str) -> tuple[str, ...]:
    """The words of a list, each once."""
    between = {frame.between or "", normalise(frame.between or ""), "\n", "；", ";", "、"} - {""}
    pieces = re.split("|".join(map(re.escape, sorted(between))), frame.inside(answer))
    return tuple(dict.fromkeys(piece.strip() for piece in pieces if piece.strip()))


@dataclass(frozen=True)
class Copied:
    """A constraint: parts of the text that the prompt shows, or the word for none.

    Attributes:
        frame: of the template.
    """

    frame: Frame

    def answers(self, example: TextExample, pieces: Pieces) -> Answers:
        """Those of one example."""
        texts = [example.inputs[span.start : span.end] for span in example.shrinkable]
        if self.frame.nothing:
            texts.append(self.frame.nothing)
        return SpanOf(tuple(texts) or None, self.frame.between).answers(example, pieces)


def listed_form(task: DownstreamTask, template: Template) -> ListedSpans | None:
    """How a template lists spans under the types of entities; None where it writes them in another way."""
    registry = task.task
    first, second, *_ = types = tuple((registry.labels or {}).values())
    marks = [chr(0xE000 + place) for place in range(3)]
    entities = [{"text": mark, "type": kind} for mark, kind in zip(marks, (first, first, second), strict=True)]
    shown, nothing = (_rendered_target(task, template, {"entities": some}) for some in (entities, []))
    parts = re.fullmatch(f"(.*?){first}(.*?){marks[0]}(.*?){marks[1]}(.*?){second}(.*?){marks[2]}", shown, re.DOTALL)
    if not parts or parts[2] != parts[5] or first in parts[3]:
        return None
    before, behind, between, again, _ = parts.groups()
    later = (between, *(again + kind + behind for kind in types))
    return ListedSpans(tuple(before + kind + behind for kind in types), later, nothing)


def constraint_of(task: DownstreamTask, template: Template) -> Constraint | None:
    """What answers may be: copies of the text, where the template wants them alone or in lists under headings."""
    if task.kind == "entities":
        return listed_form(task, template)
    frame = frame_of(task, template)
    return Copied(frame) if task.kind in ("mentions", "span") and frame.bare else None
