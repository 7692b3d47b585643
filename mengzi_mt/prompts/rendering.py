"""Rendering: a template is parsed, split at ``|||`` and compiled once, then rendered for every row.

The split is made in the syntax tree, not in the rendered text. So a field that contains ``|||`` cannot move it, an
unlabelled row needs no target, and shrinkable fields leave their exact character spans behind. Most templates become
one plain Python function (:mod:`mengzi_mt.prompts.native`); the sandbox renders the others, and every row on which that
function gives up, to the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta

from mengzi_mt.errors import InputError
from mengzi_mt.prompts.native_template import NativeTemplate, native_template
from mengzi_mt.prompts.trees import (
    SEPARATOR,
    Cut,
    RenderedPrompt,
    Shrink,
    Span,
    mark_shrinkable,
    split_parts,
    strip_marks,
    without_marks,
)  # fmt: skip
from mengzi_mt.sandbox import compile_tree, environment, run_part

__all__ = ["SEPARATOR", "CompiledTemplate", "Cut", "RenderedPrompt", "Shrink", "Span", "compile_template"]

_PROTECTED = "\ufdd2"  # stands for a field's own separator while choices are split
_FAILURES = (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError)


@dataclass(frozen=True)
class CompiledTemplate:
    """A template's two halves and its choices, compiled. Made by :func:`compile_template`."""

    where: str
    input_part: jinja2.Template
    target_part: jinja2.Template
    choices_part: jinja2.Template | None
    fixed_choices: tuple[str, ...] | None
    input_names: frozenset[str]
    target_names: frozenset[str]
    choice_names: frozenset[str]
    native: NativeTemplate | None = None

    @property
    def names(self) -> frozenset[str]:
        """Every example key that the template reads."""
        return self.input_names | self.target_names | self.choice_names

    def render(self, values: Mapping[str, Any], seed: tuple[str, ...] = (), with_target: bool = True) -> RenderedPrompt:
        """See :meth:`mengzi_mt.prompts.template.Template.render`."""
        if self.native is not None:
            try:
                return self.native(values, with_target)
            except Exception:  # whatever it is, the sandbox knows how to say it
                pass
        return self.render_sandboxed(values, seed, with_target)

    def render_sandboxed(
        self,
        values: Mapping[str, Any],
        seed: tuple[str, ...] = (),
        with_target: bool = True,
        choices: tuple[str, ...] | None = None,
    ) -> RenderedPrompt:
        """The same by the sandbox alone, with ``choices`` in place of the template's own where they are given."""
        try:
            context = {key: without_marks(value) for key, value in values.items()}
            context["_seed"] = "/".join(seed)
            choices = choices or self.fixed_choices
            if choices is None and self.choices_part is not None:
                choices = _split_choices(run_part(self.choices_part, _protected(context)))
            if choices is not None:
                context["answer_choices"] = list(choices)
            inputs, spans = strip_marks(run_part(self.input_part, context))
            targets = run_part(self.target_part, context).strip() if with_target else None
        except jinja2.UndefinedError as error:
            raise InputError(
                f"The template names something that the row does not have: {error.message}",
                where=self.where,
                fix=f"use the task's fields ({', '.join(sorted(values))})",
            ) from error
        except _FAILURES as error:
            raise InputError(f"The template fails on this row: {error}", where=self.where, fix="correct the template") from error
        except (RecursionError, MemoryError) as error:
            raise InputError("The template recurses without end", where=self.where, fix="correct the template") from error
        return RenderedPrompt(inputs, targets, choices, spans)


def _split_choices(text: str) -> tuple[str, ...]:
    return tuple(choice.strip().replace(_PROTECTED, SEPARATOR) for choice in text.split(SEPARATOR))


def _protected(value: Any) -> Any:
    """The same value with every ``|||`` of its texts out of the way of the split."""
    if isinstance(value, str):
        return value.replace(SEPARATOR, _PROTECTED)
    if isinstance(value, list):
        return [_protected(item) for item in value]
    if isinstance(value, dict):
        return {key: _protected(item) for key, item in value.items()}
    return value


@lru_cache(maxsize=8192)
def compile_template(jinja: str, answer_choices: str | None, shrink: Shrink, *, where: str) -> CompiledTemplate:
    """Parse, split and compile one template.

    Raises:
        InputError: a syntax error, an unknown filter, or not exactly one ``|||`` at the top level of the template.
    """
    env = environment()
    try:
        before, after, _ = split_parts(jinja, where)
        input_names, target_names = (frozenset(meta.find_undeclared_variables(part)) for part in (before, after))
        choices_tree = env.parse(answer_choices) if answer_choices else None
        choice_names = frozenset(meta.find_undeclared_variables(choices_tree)) if choices_tree else frozenset()
        input_part = compile_tree(mark_shrinkable(before, shrink)) if shrink else compile_tree(before)
        target_part = compile_tree(after)
        choices_part = compile_tree(choices_tree) if choices_tree else None
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            f"The template does not parse: {error.message}", where=f"{where}, line {error.lineno} of its jinja", fix="correct it"
        ) from error
    fixed = None
    if choices_part is not None and not choice_names:
        try:
            fixed = _split_choices(run_part(choices_part, {}))
        except (*_FAILURES, RecursionError, MemoryError) as error:
            raise InputError(f"answer_choices fail: {error}", where=where, fix="correct them") from error
    own = {"answer_choices", "_seed"}
    native = native_template(jinja, answer_choices, shrink, fixed, where)
    return CompiledTemplate(
        where, input_part, target_part, choices_part, fixed, input_names - own, target_names - own, choice_names, native
    )
