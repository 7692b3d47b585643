"""A template: promptsource's record, with an ``apply`` that is compiled once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jinja2 import meta

from mengzi_mt.errors import InputError
from mengzi_mt.prompts.rendering import CompiledTemplate, Cut, RenderedPrompt, compile_template
from mengzi_mt.prompts.trees import CUTS
from mengzi_mt.sandbox import environment

LABEL_REFERENCE = "@"
"""``answer_choices`` that begin with this name a set of the task's label words: ``@labels``, ``@labels.review``."""


@dataclass(frozen=True)
class TemplateMetadata:
    """promptsource's metadata. ``extra`` keeps keys of other projects, and ours: ``skip_if``, ``shrink``, ``deprecated``."""

    original_task: bool | None = None
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Template:
    """One prompt template of a task.

    ``jinja`` holds input and target, separated by ``|||``. ``answer_choices`` is a Jinja expression whose rendering is
    split at ``|||``, or a reference to the task's label words (``@labels``) until it is bound by :meth:`bound_to`.

    Source of the format: promptsource's API (bigscience-workshop/promptsource, ``API.md``).
    """

    id: str
    name: str
    jinja: str
    task: str = ""
    answer_choices: str | None = None
    reference: str = ""
    metadata: TemplateMetadata = TemplateMetadata()
    shrink: Mapping[str, Cut] = field(default_factory=dict)
    line: int | None = field(default=None, compare=False)

    def bound_to(self, label_sets: Mapping[str, tuple[str, ...]], shrink: Mapping[str, Cut] | None = None) -> Template:
        """The same template with the task's label words injected and the task's shrinkable fields known.

        A template that names ``labels`` (or ``labels_formal``, ``labels_intent``, …) gets that list as an assignment in
        front, so that it means the same in any other reader of the format.

        Raises:
            KeyError: a reference to a set of label words that the task does not have.
        """
        choices = self.answer_choices
        if choices and choices.startswith(LABEL_REFERENCE):
            choices = " ||| ".join(label_sets[choices.removeprefix(LABEL_REFERENCE)])
        elif choices:
            choices = _with_label_lists(choices, label_sets)
        own = _own_cuts(self.metadata.extra.get("shrink"), self.place)
        jinja = _with_label_lists(self.jinja, label_sets)
        return replace(self, jinja=jinja, answer_choices=choices, shrink=own if own is not None else shrink or {})

    @cached_property
    def compiled(self) -> CompiledTemplate:
        """The compiled form, made on first use and shared by equal templates."""
        return compile_template(self.jinja, self.answer_choices, tuple(sorted(self.shrink.items())), where=self.place)

    @property
    def place(self) -> str:
        """What an error names: the task's file, the line and the template."""
        line = f", line {self.line}" if self.line else ""
        return f"prompts/{self.task or '?'}/templates.yaml{line}, template {self.name!r}"

    @property
    def skip_if(self) -> str | None:
        """A Jinja expression over the example; true where the template cannot use the row."""
        return self.metadata.extra.get("skip_if")

    def render(self, values: Mapping[str, Any], seed: str = "", with_target: bool = True) -> RenderedPrompt:
        """Input, target, choices and shrinkable spans for one example.

        Raises:
            InputError: an undefined name, or a rendering over its bounds; names the template.
        """
        return self.compiled.render(values, (seed, self.id), with_target)

    def marking_inserted(self) -> Template:
        """The same template, whose ``shrinkable`` spans are all that fields and choices put into the input."""
        return replace(self, shrink=dict.fromkeys([*self.compiled.input_names, "answer_choices"], "tail"))

    def apply(self, values: Mapping[str, Any], seed: str = "") -> list[str]:
        """promptsource's call: ``[input, target]``, both stripped."""
        rendered = self.render(values, seed)
        return [rendered.inputs, rendered.targets or ""]


def _own_cuts(value: Any, where: str) -> dict[str, Cut] | None:
    """What ``shrink`` in the metadata says: a list of fields, or fields and where each is cut."""
    if value is None:
        return None
    cuts = dict.fromkeys(value, "tail") if isinstance(value, list) else value
    if not isinstance(cuts, dict) or any(cut not in CUTS for cut in cuts.values()):
        raise InputError(
            f"`shrink` in the metadata is {value!r}", where=where, fix="write [field, …] or {field: tail | head | middle, …}"
        )
    return cuts


_LABEL_LIST = re.compile(r"\blabels(?:_\w+)?\b")


def _with_label_lists(jinja: str, label_sets: Mapping[str, tuple[str, ...]]) -> str:
    """The template with an assignment in front for each list of label words that it names."""
    lists = {}
    for name in sorted(set(_LABEL_LIST.findall(jinja))) if label_sets else ():
        if name in meta.find_undeclared_variables(environment().parse(jinja)):
            lists[name] = label_sets[_label_set_of(name, label_sets)]
    assigned = "".join(f"{{% set {name} = [{', '.join(map(_quoted, words))}] %}}" for name, words in lists.items())
    return assigned + jinja


def _label_set_of(name: str, label_sets: Mapping[str, tuple[str, ...]]) -> str:
    """The set that a list's name means: ``labels_formal`` is ``labels.formal``, ``labels_intent_formal`` is ``intent.formal``."""
    rest = name.removeprefix("labels").removeprefix("_")
    known = {"labels" if key == "labels" else "labels_" + key.removeprefix("labels.").replace(".", "_"): key for key in label_sets}
    return known.get(name) or f"labels.{rest}"


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"
