"""The check that authors and CI run: every template on every row, and what is wrong with which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mengzi_mt.conditions import compile_condition
from mengzi_mt.errors import InputError, nearest
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import TemplateSet

MAX_PLACES = 3
"""How many rows a finding names."""


@dataclass(slots=True)
class Finding:
    """One thing found: its severity, the template, the message, and up to three rows where it shows."""

    severity: Literal["error", "warning"]
    template: str
    message: str
    count: int = 0
    rows: list[str] = field(default_factory=list)


@dataclass(slots=True)
class TemplateCheck:
    """What checking one template gave."""

    template: Template
    rendered: int = 0
    skipped: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, message: str, row_id: str | None = None, severity: Literal["error", "warning"] = "error") -> None:
        """Record a finding once per message, with a count and its first rows."""
        finding = self.findings.setdefault(message, Finding(severity, self.template.name, message))
        finding.count += 1
        if row_id and len(finding.rows) < MAX_PLACES:
            finding.rows.append(row_id)


def check_templates(
    templates: TemplateSet,
    fields: Iterable[str],
    gold: frozenset[str],
    optional: frozenset[str],
    rows: Iterable[tuple[str, Mapping[str, Any]]],
) -> list[TemplateCheck]:
    """Render every template on every row.

    Args:
        templates: bound to their task.
        fields: the example keys a template may name.
        gold: the keys that hold answers; rows without them are rendered without target.
        optional: the keys that a row may lack.
        rows: pairs of row id and values.
    """
    known = set(fields)
    checks = [TemplateCheck(template) for template in templates]
    usable = [check for check in checks if _static_check(check, templates, known)]
    for row_id, values in rows:
        unlabelled = bool(gold) and not gold & set(values)
        padded = {**dict.fromkeys(optional, ""), **values}
        for check in usable:
            _check_row(check, row_id, values, padded, unlabelled)
    return checks


def _static_check(check: TemplateCheck, templates: TemplateSet, known: set[str]) -> bool:
    template = check.template
    try:
        compiled = template.compiled
    except InputError as error:
        check.add(error.what)
        return False
    for name in sorted(compiled.names - known):
        check.add(f"it names {name!r}, which is no field of the task. {nearest(name, known)}")
    if sum(other.id == template.id for other in templates) > 1:
        check.add("its id is used twice")
    if compiled.fixed_choices is not None:
        _check_choices(check, compiled.fixed_choices, None)
    return not check.findings


def _check_row(check: TemplateCheck, row_id: str, row: Mapping[str, Any], values: Mapping[str, Any], unlabelled: bool) -> None:
    """``values`` are the row's with optional fields filled; ``skip_if`` sees the row as it is, as in training."""
    template = check.template
    try:
        if unlabelled:
            if template.metadata.original_task and not template.skip_if:
                template.render(values, row_id, with_target=False)
                check.rendered += 1
            return
        if template.skip_if and compile_condition(template.skip_if)(row):
            check.skipped += 1
            return
        prompt = template.render(values, row_id)
    except InputError as error:
        check.add(error.what, row_id)
        return
    except Exception as error:  # a skip_if expression may fail in any way
        check.add(f"skip_if fails: {error}", row_id)
        return
    check.rendered += 1
    if not prompt.inputs:
        check.add("its input is empty", row_id)
    if not prompt.targets:
        check.add("its target is empty", row_id)
    if prompt.choices is not None:
        if template.compiled.fixed_choices is None:
            _check_choices(check, prompt.choices, row_id)
        if prompt.targets not in prompt.choices:
            check.add(f"its target is not among its choices, e.g. {prompt.targets!r}"[:160], row_id)


def _check_choices(check: TemplateCheck, choices: tuple[str, ...], row_id: str | None) -> None:
    if len(choices) < 2:
        check.add("it has fewer than two choices", row_id)
    if len(set(choices)) != len(choices):
        check.add("two of its choices are equal", row_id)
    if any(not choice for choice in choices):
        check.add("one of its choices is empty", row_id)
