"""A template: promptsource's record, with an ``apply`` that is compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mengzi_mt.prompts.rendering import CompiledTemplate, RenderedPrompt, compile_template

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
    shrink: frozenset[str] = frozenset()

    def bound_to(self, label_sets: Mapping[str, tuple[str, ...]], shrink: frozenset[str] = frozenset()) -> Template:
        """The same template with the task's label words injected and the task's shrinkable fields known.

        Raises:
            KeyError: a reference to a set of label words that the task does not have.
        """
        choices = self.answer_choices
        if choices and choices.startswith(LABEL_REFERENCE):
            choices = " ||| ".join(label_sets[choices.removeprefix(LABEL_REFERENCE)])
        own = self.metadata.extra.get("shrink")
        return replace(self, answer_choices=choices, shrink=frozenset(own) if own is not None else shrink)

    @property
    def compiled(self) -> CompiledTemplate:
        """The compiled form, made on first use and shared by equal templates."""
        return compile_template(self.jinja, self.answer_choices, self.shrink, where=self.place)

    @property
    def place(self) -> str:
        """What an error names: the task's file and the template."""
        return f"prompts/{self.task or '?'}/templates.yaml, template {self.name!r}"

    @property
    def skip_if(self) -> str | None:
        """A Jinja expression over the example; true where the template cannot use the row."""
        return self.metadata.extra.get("skip_if")

    def render(self, values: Mapping[str, Any], seed: str = "", with_target: bool = True) -> RenderedPrompt:
        """Input, target, choices and shrinkable spans for one example.

        Raises:
            InputError: an undefined name, or a rendering over its bounds; names the template.
        """
        return self.compiled.render(values, seed=f"{seed}/{self.id}", with_target=with_target)

    def apply(self, values: Mapping[str, Any], seed: str = "") -> list[str]:
        """promptsource's call: ``[input, target]``, both stripped."""
        rendered = self.render(values, seed)
        return [rendered.inputs, rendered.targets or ""]
