"""The check that authors and CI run: every template on every row, and what is wrong with which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.prompts.lint import check_condition, leaks, named_choices, near_duplicates
from mengzi_mt.prompts.rendering import SEPARATOR, RenderedPrompt
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import TemplateSet

MAX_PLACES = 3
"""How many rows a finding names."""
LEAK_ROWS = 200
"""Rows on which masked inputs are searched for the answer."""
LENGTH_ROWS = 200
"""Rows on which lengths in tokens are measured."""
MUCH = 0.05
"""Share of examples cut or left out for their length from which a warning is due."""

OWN_METADATA = ("original_task", "choices_in_prompt", "metrics", "languages", "skip_if", "shrink", "deprecated")
"""Metadata that means something here; others are kept for other projects, unless they look like one of these."""

Severity = Literal["error", "warning"]
IdentifiedRow = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Schema:
    """What a task's rows hold: keys, keys with answers, keys that may be absent."""

    fields: frozenset[str]
    gold: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TokenRules:
    """A tokenizer's view: ids of a text, the unknown id, the ids of single bytes, and the limits of a recipe in tokens."""

    encode: Callable[[str], list[int]]
    unknown: frozenset[int] = frozenset()
    single_bytes: frozenset[int] = frozenset()
    max_inputs: int = 512
    max_targets: int = 128


@dataclass(slots=True)
class Finding:
    """One thing found: its severity, the template, the message, and up to three rows where it shows."""

    severity: Severity
    template: str
    message: str
    count: int = 0
    rows: list[str] = field(default_factory=list)
    line: int | None = None


@dataclass(frozen=True)
class Lengths:
    """Tokens of inputs and targets (p50, p95, p99, end-of-sequence included) and shares beyond the limits."""

    measured: int
    inputs: tuple[int, int, int]
    targets: tuple[int, int, int]
    cut: float
    dropped: float


@dataclass(slots=True)
class TemplateCheck:
    """What checking one template gave."""

    template: Template
    rendered: int = 0
    skipped: int = 0
    leak_tested: int = 0
    lengths: Lengths | None = None
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """The share of rows that the template uses."""
        return self.rendered / max(1, self.rendered + self.skipped)

    def add(self, message: str, row_id: str | None = None, severity: Severity = "error") -> None:
        """Record a finding once per message, with a count and its first rows."""
        finding = self.findings.setdefault(message, Finding(severity, self.template.name, message, line=self.template.line))
        finding.count += 1
        if row_id and len(finding.rows) < MAX_PLACES:
            finding.rows.append(row_id)


def check_templates(
    templates: TemplateSet, schema: Schema, rows: Sequence[IdentifiedRow], tokens: TokenRules | None = None
) -> list[TemplateCheck]:
    """Render every template on every row.

    Args:
        templates: bound to their task.
        schema: of the task's rows.
        rows: pairs of row id and values; rows without any gold key are rendered without target.
        tokens: also compare choices as tokens, and measure lengths.
    """
    checks = [TemplateCheck(template) for template in templates]
    usable = [check for check in checks if _static_check(check, templates, schema, tokens)]
    _check_pairs(checks)
    filler = dict.fromkeys(schema.optional, "")
    labelled = [bool(schema.gold & set(values)) or not schema.gold for _, values in rows]
    for check in usable:
        kept = _check_rows(check, rows, labelled, filler, tokens)
        _check_leaks(check, rows, labelled, filler, schema.gold)
        if tokens:
            _measure(check, kept, tokens)
    return checks


def _static_check(check: TemplateCheck, templates: TemplateSet, schema: Schema, tokens: TokenRules | None) -> bool:
    template = check.template
    try:
        compiled = template.compiled
    except InputError as error:
        check.add(error.what)
        return False
    for name in sorted(compiled.names - schema.fields):
        check.add(f"it names {name!r}, which is no field of the task. {nearest(name, schema.fields)}")
    for key in template.metadata.extra:
        if key not in OWN_METADATA and get_close_matches(key, OWN_METADATA, n=1, cutoff=0.75):
            check.add(f"its metadata has {key!r}, which means nothing here. {nearest(key, OWN_METADATA)}")
    if sum(other.id == template.id for other in templates) > 1:
        check.add("its id is used twice")
    if compiled.fixed_choices is not None:
        _check_choices(check, compiled.fixed_choices, None, tokens)
        named = () if "answer_choices" in template.jinja.split(SEPARATOR)[0] else named_choices(template, compiled.fixed_choices)
        if 0 < len(named) < len(compiled.fixed_choices) and template.metadata.choices_in_prompt:
            check.add(f"its words name only some of its choices: {'、'.join(named)}", severity="warning")
    return not any(finding.severity == "error" for finding in check.findings.values())


def _check_pairs(checks: Sequence[TemplateCheck]) -> None:
    by_id = {check.template.id: check for check in checks}
    for a, b, ratio in near_duplicates([check.template for check in checks]):
        by_id[b.id].add(f"its words are nearly those of {a.name!r} (similarity {ratio:.2f})")


def _check_rows(
    check: TemplateCheck,
    rows: Sequence[IdentifiedRow],
    labelled: Sequence[bool],
    filler: Mapping[str, str],
    tokens: TokenRules | None,
) -> list[RenderedPrompt]:
    """Render every row; an even selection of what was rendered with targets comes back."""
    template = check.template
    skip_if, compiled = template.skip_if, template.compiled
    every = max(1, len(rows) // LENGTH_ROWS)
    kept: list[RenderedPrompt] = []
    for number, (row_id, row) in enumerate(rows):
        try:
            if not labelled[number]:
                if template.metadata.original_task and not skip_if:
                    template.render({**filler, **row}, row_id, with_target=False)
                    check.rendered += 1
                continue
            if skip_if and check_condition(skip_if, row):
                check.skipped += 1
                continue
            prompt = compiled.render({**filler, **row}, (row_id, template.id), True)
        except InputError as error:
            check.add(error.what, row_id)
            continue
        check.rendered += 1
        if number % every == 0:
            kept.append(prompt)
        if not prompt.inputs:
            check.add("its input is empty", row_id)
        if not prompt.targets:
            check.add("its target is empty", row_id)
        choices = prompt.choices
        if choices is not None:
            if compiled.fixed_choices is None:
                _check_choices(check, choices, row_id, tokens if number % every == 0 else None)
            if prompt.targets not in choices:
                check.add("its target is not among its choices", f"{row_id} ({prompt.targets!r:.60})")
    return kept


def _check_choices(check: TemplateCheck, choices: tuple[str, ...], row_id: str | None, tokens: TokenRules | None) -> None:
    if len(choices) < 2:
        check.add("it has fewer than two choices", row_id)
    if len(set(choices)) != len(choices):
        check.add("two of its choices are equal", row_id)
    if any(not choice for choice in choices):
        check.add("one of its choices is empty", row_id)
    if tokens is None:
        return
    encoded = [tuple(tokens.encode(choice)) for choice in choices]
    first: dict[tuple[int, ...], str] = {}
    for choice, ids in zip(choices, encoded, strict=True):
        other = first.setdefault(ids, choice)
        if other != choice:
            check.add(f"two of its choices are the same tokens: {other!r} and {choice!r}", row_id)
        if tokens.unknown.intersection(ids):
            check.add("a choice has unknown tokens" + ("" if row_id else f": {choice!r}"), row_id)
        elif tokens.single_bytes.intersection(ids) and row_id is None:
            check.add(f"a choice has characters that the tokenizer spells in bytes: {choice!r}", severity="warning")


def _check_leaks(
    check: TemplateCheck,
    rows: Sequence[IdentifiedRow],
    labelled: Sequence[bool],
    filler: Mapping[str, str],
    gold: frozenset[str],
) -> None:
    usable = [pair for pair, has_answer in zip(rows, labelled, strict=True) if has_answer]
    chosen = usable[:: max(1, len(usable) // LEAK_ROWS)]
    found, check.leak_tested = leaks(check.template, [(row_id, row, {**filler, **row}) for row_id, row in chosen], gold)
    for row_id in found:
        check.add("its input gives the answer away (with all texts masked)", row_id)


def _measure(check: TemplateCheck, kept: Sequence[RenderedPrompt], tokens: TokenRules) -> None:
    if not kept:
        return
    inputs = [len(tokens.encode(prompt.inputs)) + 1 for prompt in kept]
    targets = [len(tokens.encode(prompt.targets or "")) + 1 for prompt in kept]
    outcome: Counter[str] = Counter()
    for prompt, length, target in zip(kept, inputs, targets, strict=True):
        too_long = length > tokens.max_inputs
        outcome["cut" if too_long and prompt.shrinkable and target <= tokens.max_targets else
                "dropped" if too_long or target > tokens.max_targets else "whole"] += 1  # fmt: skip
    cut, dropped = outcome["cut"] / len(kept), outcome["dropped"] / len(kept)
    check.lengths = Lengths(len(kept), _percentiles(inputs), _percentiles(targets), cut, dropped)
    if cut > MUCH:
        check.add(f"{cut:.0%} of its inputs are longer than {tokens.max_inputs} tokens and are cut", severity="warning")
    if dropped > MUCH:
        limits = f"{tokens.max_inputs} + {tokens.max_targets} tokens"
        check.add(f"{dropped:.0%} of its examples do not fit in {limits} and are left out", severity="warning")


def _percentiles(lengths: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(lengths)
    p50, p95, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.50, 0.95, 0.99))
    return p50, p95, p99
