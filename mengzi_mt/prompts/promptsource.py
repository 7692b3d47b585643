"""promptsource's own rendering of a template, for templates from elsewhere: the same text, compiled once and in the sandbox.

Ours is strict; promptsource renders an unknown name as nothing, lets a template change lists, cuts long values in the
middle of the template's text and splits the rendered text wherever it finds ``|||``. Foreign templates rely on all of it.

Source: promptsource 0.2.3, ``promptsource/templates.py`` (bigscience-workshop/promptsource), ``Template.apply``.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jinja2
from jinja2 import meta, pass_context
from jinja2.runtime import Context

from mengzi_mt.errors import InputError, first_line
from mengzi_mt.prompts.rendering import SEPARATOR
from mengzi_mt.prompts.template import Template
from mengzi_mt.sandbox import BoundedEnvironment, environment, reset_steps

TRUNCATED_LENGTH = 2_048
"""Characters at which ``truncate`` cuts a printed value, back to the last blank before them."""
PROTECTOR = "3ed2dface8203c4c9dfb1a5dc58e41e0"
"""Stands for a field's own separator while the text is split; its 32 characters count in ``truncate`` and ``length``."""


@pass_context
def _choice(context: Context, items: Any) -> Any:
    """Drawn by the row's seed as in strict rendering, or by Python's global generator as promptsource does."""
    if context.get("_seed") is None:
        return random.choice(items)
    return random.Random(f"{context['_seed']}").choice(list(items))


@pass_context
def _random(context: Context, items: Any) -> Any:
    """Jinja's ``random``, drawn as ``choice`` is."""
    try:
        return _choice(context, items)
    except IndexError:
        return context.environment.undefined("No random item, sequence was empty.")


def _most_frequent(items: Any) -> Any:
    """promptsource's own, which gives None for an empty list."""
    return environment().filters["most_frequent"](items) if items else None


def _highlight(value: Any) -> Any:
    return "<span style='color: #F08080'>" + value + "</span>"


@lru_cache(maxsize=1)
def lenient_environment() -> BoundedEnvironment:
    """Unknown names print nothing and lists may change; every bound on steps, size and time holds as in the strict one."""
    filters: dict[str, Callable[..., Any]] = {"choice": _choice, "random": _random}
    filters |= {"most_frequent": _most_frequent, "highlight": _highlight}
    return BoundedEnvironment(undefined=jinja2.Undefined, mutable=True, filters=filters)


@lru_cache(maxsize=8192)
def _compile(source: str) -> jinja2.Template:
    env = lenient_environment()
    return jinja2.Template.from_code(env, env.compile(env.guarded(env.parse(source))), env.make_globals(None))


@dataclass(frozen=True)
class PromptsourceTemplate:
    """One template, rendered as promptsource renders it. ``apply`` and the two ``get_`` methods have its signatures.

    Args:
        template: the record; what is ours alone (``shrink``, ``skip_if``) is not looked at.
        protect_separators: keep a field's own ``|||`` out of the split, as promptsource does for texts at the row's top
            level. Those in nested values split all the same.
        global_random: let ``choice`` draw from Python's global generator, as promptsource does; by default it draws by
            the row's ``seed``.
    """

    template: Template
    protect_separators: bool = True
    global_random: bool = False

    def apply(
        self, example: Mapping[str, Any], truncate: bool = True, highlight_variables: bool = False, *, seed: str = ""
    ) -> list[str]:
        """Every part that ``|||`` separates, stripped: usually ``[input, target]``; ``[""]`` means to skip the row.

        Args:
            example: the row; it is never changed.
            truncate: cut each printed value at 2,048 characters, back to the last blank (Chinese has none: say False).
            highlight_variables: put printed values into coloured HTML spans; numbers fail, unless ``truncate`` made them text.
            seed: what ``choice`` draws by, together with the template's id.

        Raises:
            InputError: the template does not compile, fails on this row or exceeds the sandbox's bounds; or the row has a
                field called ``answer_choices``.
        """
        part = self._main_part(truncate, highlight_variables)
        if "answer_choices" in example:
            raise InputError(
                "The row has a field 'answer_choices', the name under which templates find their choices",
                where=self.template.place,
                fix="rename the field",
            )
        context = self._context(example, seed)
        context["answer_choices"] = self._choices(context)
        return [self._unprotected(piece).strip() for piece in self._run(part, context).split(SEPARATOR)]

    def get_answer_choices_list(self, example: Mapping[str, Any], *, seed: str = "") -> list[str] | None:
        """The choices of one row, or None for a template without choices."""
        return self._choices(self._context(example, seed))

    def get_fixed_answer_choices_list(self) -> list[str] | None:
        """The choices where they are the same for every row, otherwise None."""
        expression = self.template.answer_choices
        if expression is None or (self._part(expression) and self._names(expression)):
            return None
        return self._render_choices(expression, self._context({}, ""))

    @staticmethod
    def _names(expression: str) -> set[str]:
        return meta.find_undeclared_variables(lenient_environment().parse(expression)) if "{" in expression else set()

    @cached_property
    def _fixed_choices(self) -> list[str] | None:
        """Choices that are plain text, which no row and no drawing can change."""
        return None if "{" in (self.template.answer_choices or "") else self.get_fixed_answer_choices_list()

    @cached_property
    def _main_parts(self) -> dict[tuple[bool, bool], jinja2.Template]:
        return {}

    def _main_part(self, truncate: bool, highlight: bool) -> jinja2.Template:
        """The template compiled for two switches, with promptsource's replacements in its text.

        They are textual: the closing braces of a dict within a dict are hit, too.
        """
        part = self._main_parts.get((truncate, highlight))
        if part is None:
            jinja = self.template.jinja
            if truncate:
                jinja = jinja.replace("}}", f" | string | truncate({TRUNCATED_LENGTH}) }}}}")
            if highlight:
                jinja = jinja.replace("}}", " | highlight }}")
            part = self._main_parts[truncate, highlight] = self._part(jinja)
        return part

    @cached_property
    def _calls(self) -> bool:
        """Whether the template may call anything, as it must in order to change a list of the row."""
        return "(" in self.template.jinja + (self.template.answer_choices or "")

    def _part(self, source: str) -> jinja2.Template:
        try:
            return _compile(source)
        except (jinja2.TemplateSyntaxError, SyntaxError) as error:
            raise InputError(
                f"The template does not parse: {first_line(error)}", where=self.template.place, fix="correct it"
            ) from error
        except (RecursionError, MemoryError) as error:
            raise InputError("The template nests too deeply", where=self.template.place, fix="correct it") from error

    def _context(self, example: Mapping[str, Any], seed: str) -> dict[str, Any]:
        context = dict(example)
        for key, value in context.items():
            if isinstance(value, str):
                context[key] = value.replace(SEPARATOR, PROTECTOR) if self.protect_separators else value
            elif self._calls:
                context[key] = copy.deepcopy(value)
        context["_seed"] = None if self.global_random else f"{seed}/{self.template.id}"
        return context

    def _choices(self, context: dict[str, Any]) -> list[str] | None:
        if self.template.answer_choices is None:
            return None
        fixed = self._fixed_choices
        return list(fixed) if fixed is not None else self._render_choices(self.template.answer_choices, context)

    def _render_choices(self, expression: str, context: dict[str, Any]) -> list[str]:
        rendered = self._run(self._part(expression), context)
        return [self._unprotected(choice.strip()) for choice in rendered.split(SEPARATOR)]

    def _unprotected(self, text: str) -> str:
        return text.replace(PROTECTOR, SEPARATOR) if self.protect_separators else text

    def _run(self, part: jinja2.Template, context: dict[str, Any]) -> str:
        reset_steps()
        try:
            return part.render(context)
        except Exception as error:  # a foreign template may fail in any way
            raise InputError(
                f"The template fails on this row: {first_line(error)}", where=self.template.place, fix="correct the template"
            ) from error
