"""Text examples: where tasks and prompts meet. Everything downstream sees only :class:`TextExample`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mengzi_mt.conditions import Condition, compile_condition
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.rendering import RenderedPrompt, Span
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import TemplateSet, load_templates
from mengzi_mt.prompts.varied_choices import render_varied
from mengzi_mt.tasks.rows import Row
from mengzi_mt.tasks.task import Task


class TextExample(NamedTuple):
    """One text-to-text example.

    ``shrinkable`` holds the character spans of ``inputs`` that may be cut when it is too long, and where each is cut.
    ``targets`` is empty on unlabelled rows; ``choices`` is None for free generation.
    """

    inputs: str
    targets: str
    choices: tuple[str, ...] | None
    shrinkable: tuple[Span, ...]
    weight: float
    task: str
    template: str
    row_id: str

    @property
    def gold(self) -> int | None:
        """The index of the target among the choices, or None without choices or without target."""
        if not self.choices or self.targets not in self.choices:
            return None
        return self.choices.index(self.targets)


def bound_templates(task: Task) -> TemplateSet:
    """The task's shipped templates with its label words injected and its shrinkable fields known."""
    return load_templates(task.name, task.label_sets(), task.shrink_fields)


def select_templates(task: Task, names: list[str] | None, for_evaluation: bool = False) -> list[Template]:
    """Templates by name, or all that serve.

    For evaluation those are the templates of the task's intended use that skip no rows: a template that drops rows would
    be scored on a subset.
    """
    templates = bound_templates(task)
    if names:
        return [templates[name] for name in names]
    return [
        template
        for template in templates
        if not template.metadata.extra.get("deprecated")
        and (not for_evaluation or (template.metadata.original_task and not template.skip_if))
    ]


Skip = Callable[[Row], bool]
"""Whether a template cannot use a row."""


def skip_of(template: Template) -> Skip:
    """The template's ``skip_if``, compiled, as a function of the row; False for one without.

    The function raises InputError, naming template and row, where the condition fails on a row.
    """
    if not template.skip_if:
        return lambda row: False
    condition: Condition | None = None

    def skips(row: Row) -> bool:
        nonlocal condition
        try:
            if condition is None:
                condition = compile_condition(template.skip_if or "")
            return condition(row.values)
        except Exception as error:
            raise InputError(f"skip_if fails on row {row.row_id}: {error}", where=template.place, fix="correct it") from error

    return skips


def usable(template: Template, row: Row) -> bool:
    """Whether the template can use the row (its ``skip_if`` is false)."""
    return not skip_of(template)(row)


def render_example(task: Task, template: Template, row: Row, weight: float = 1.0, with_target: bool = True) -> TextExample:
    """One row through one template. Optional fields that the row lacks read as empty text.

    Raises:
        InputError: naming template and row.
    """
    try:
        rendered = template.render(_values(task, row), row.row_id, with_target=with_target)
    except InputError as error:
        raise InputError(error.what, where=f"{error.where}, row {row.row_id}", fix=error.fix) from error
    return _as_example(rendered, task, template, row, weight)


def render_with_drawn_choices(task: Task, template: Template, field: str, row: Row, draws: np.random.Generator) -> TextExample:
    """The same with other choices (:func:`mengzi_mt.prompts.varied_choices.render_varied`); as it is where they cannot be varied.

    Raises:
        InputError: naming template and row.
    """
    try:
        rendered = render_varied(template, field, _values(task, row), draws)
    except InputError as error:
        raise InputError(error.what, where=f"{error.where}, row {row.row_id}", fix=error.fix) from error
    return render_example(task, template, row) if rendered is None else _as_example(rendered, task, template, row)


def _values(task: Task, row: Row) -> Mapping[str, Any]:
    empty = task.empty_fields
    return row.values if not empty or empty.keys() <= row.values.keys() else {**empty, **row.values}


def _as_example(rendered: RenderedPrompt, task: Task, template: Template, row: Row, weight: float = 1.0) -> TextExample:
    inputs, targets, choices, shrinkable = rendered
    return TextExample(inputs, targets or "", choices, shrinkable, weight, task.name, template.name, row.row_id)


def render_rows(task: Task, template: Template, rows: Iterator[Row] | list[Row], with_target: bool = True) -> Iterator[TextExample]:
    """Every row that the template can use, rendered in order."""
    for row in rows:
        if usable(template, row):
            yield render_example(task, template, row, with_target=with_target)
