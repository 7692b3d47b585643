"""Rendering: a template is parsed, split at ``|||`` and compiled once, then rendered for every row.

The split is made in the syntax tree, not in the rendered text. So a field that contains ``|||`` cannot move it, an
unlabelled row needs no target, and shrinkable fields leave their exact character spans behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.visitor import NodeTransformer

from mengzi_mt.errors import InputError
from mengzi_mt.sandbox import environment, reset_steps

SEPARATOR = "|||"
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # around what a shrinkable field printed; Unicode keeps both out of every text
_PROTECTED = "\ufdd2"  # stands for a field's own separator while choices are split
_FAILURES = (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError)
_CAPTURES = (nodes.AssignBlock, nodes.Macro, nodes.CallBlock, nodes.FilterBlock)


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """One rendered example. ``shrinkable`` holds ``(start, end)`` character spans of ``inputs`` that may be cut."""

    inputs: str
    targets: str | None
    choices: tuple[str, ...] | None
    shrinkable: tuple[tuple[int, int], ...]


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

    @property
    def names(self) -> frozenset[str]:
        """Every example key that the template reads."""
        return self.input_names | self.target_names | self.choice_names

    def render(self, values: Mapping[str, Any], seed: str = "", with_target: bool = True) -> RenderedPrompt:
        """See :meth:`mengzi_mt.prompts.template.Template.render`."""
        try:
            context = {key: _without_marks(value) if isinstance(value, str) else value for key, value in values.items()}
            context["_seed"] = seed
            choices = self.fixed_choices
            if choices is None and self.choices_part is not None:
                choices = _split_choices(_run(self.choices_part, _protected(context)))
            if choices is not None:
                context["answer_choices"] = list(choices)
            inputs, spans = _strip_marks(_run(self.input_part, context))
            targets = _run(self.target_part, context).strip() if with_target else None
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


def _run(part: jinja2.Template, context: dict[str, Any]) -> str:
    reset_steps()
    return part.render(context)


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


def _without_marks(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _strip_marks(text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text without marks and surrounding blanks, and the spans that the marks enclosed."""
    if _OPEN not in text:
        return text.strip(), ()
    spans: list[tuple[int, int]] = []
    pieces: list[str] = []
    length, start, depth = 0, 0, 0
    for piece in re.split(f"([{_OPEN}{_CLOSE}])", text):
        if piece == _OPEN:
            start = length if depth == 0 else start
            depth += 1
        elif piece == _CLOSE:
            depth -= 1
            if depth == 0:
                spans.append((start, length))
        else:
            pieces.append(piece)
            length += len(piece)
    plain = "".join(pieces)
    stripped = plain.strip()
    offset = len(plain) - len(plain.lstrip())
    clipped = [(max(a - offset, 0), min(b - offset, len(stripped))) for a, b in spans]
    return stripped, tuple((a, b) for a, b in clipped if b > a)


@lru_cache(maxsize=8192)
def compile_template(jinja: str, answer_choices: str | None, shrink: frozenset[str], *, where: str) -> CompiledTemplate:
    """Parse, split and compile one template.

    Raises:
        InputError: a syntax error, an unknown filter, or not exactly one ``|||`` at the top level of the template.
    """
    env = environment()
    try:
        before, after = _split(jinja, where)
        input_names, target_names = (frozenset(meta.find_undeclared_variables(part)) for part in (before, after))
        choices_tree = env.parse(answer_choices) if answer_choices else None
        choice_names = frozenset(meta.find_undeclared_variables(choices_tree)) if choices_tree else frozenset()
        input_part = _compile(_mark(before, shrink)) if shrink else _compile(before)
        target_part = _compile(after)
        choices_part = _compile(choices_tree) if choices_tree else None
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            f"The template does not parse: {error.message}", where=f"{where}, line {error.lineno} of its jinja", fix="correct it"
        ) from error
    fixed = None
    if choices_part is not None and not choice_names:
        try:
            fixed = _split_choices(_run(choices_part, {}))
        except (*_FAILURES, RecursionError, MemoryError) as error:
            raise InputError(f"answer_choices fail: {error}", where=where, fix="correct them") from error
    own = {"answer_choices", "_seed"}
    return CompiledTemplate(
        where, input_part, target_part, choices_part, fixed, input_names - own, target_names - own, choice_names
    )


def _compile(tree: nodes.Template) -> jinja2.Template:
    env = environment()
    code = env.compile(env.guarded(tree))
    return jinja2.Template.from_code(env, code, env.make_globals(None))


class _Silence(NodeTransformer):
    """Removes what a syntax tree prints and keeps what it assigns."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """The node without its printed text, or None; what an assignment or a macro captures is not printed."""
        if isinstance(node, (nodes.Output, nodes.FilterBlock, nodes.CallBlock)):
            return None
        if isinstance(node, (nodes.AssignBlock, nodes.Macro)):
            return node
        return super().visit(node, *args, **kwargs)


def _split(jinja: str, where: str) -> tuple[nodes.Template, nodes.Template]:
    """Two trees: what stands before the top-level ``|||``, and what stands after it.

    Whatever is assigned before the separator, in an if or a loop too, stays visible after it; printed text does not.
    """
    env = environment()
    tree = env.parse(jinja)
    found = [(i, j) for i, node in enumerate(tree.body) if isinstance(node, nodes.Output)
             for j, part in enumerate(node.nodes) if isinstance(part, nodes.TemplateData) and SEPARATOR in part.data]  # fmt: skip
    total = sum(part.data.count(SEPARATOR) for part in tree.find_all(nodes.TemplateData))
    if len(found) != 1 or total != 1:
        raise InputError(
            f"The template has {total} separators `|||` of which {len(found)} stand at its top level; it needs exactly one there",
            where=where,
            fix="write input|||target, with the separator outside of any if or for",
        )
    i, j = found[0]
    output = tree.body[i]
    assert isinstance(output, nodes.Output)
    separator = output.nodes[j]
    assert isinstance(separator, nodes.TemplateData)
    left, right = separator.data.split(SEPARATOR)
    line = separator.lineno
    head = nodes.Output([*output.nodes[:j], nodes.TemplateData(left, lineno=line)], lineno=line)
    tail = nodes.Output([nodes.TemplateData(right, lineno=line), *output.nodes[j + 1 :]], lineno=line)
    silent = [_Silence().visit(node) for node in env.parse(jinja).body[:i]]
    before = nodes.Template([*tree.body[:i], head], lineno=1)
    after = nodes.Template([*(node for node in silent if node is not None), tail, *tree.body[i + 1 :]], lineno=1)
    for part in (before, after):
        part.set_environment(env)
    return before, after


def _mark(tree: nodes.Template, shrink: frozenset[str]) -> nodes.Template:
    """Puts marks around every printed expression that reads a shrinkable field; captured text is a value and gets none."""
    captured = {id(output) for capture in tree.find_all(_CAPTURES) for output in capture.find_all(nodes.Output)}
    for output in [node for node in tree.find_all(nodes.Output) if id(node) not in captured]:
        marked: list[nodes.Expr] = []
        for part in output.nodes:
            reads = {name.name for name in part.find_all(nodes.Name)} | ({part.name} if isinstance(part, nodes.Name) else set())
            if isinstance(part, nodes.TemplateData) or not reads & shrink:
                marked.append(part)
            else:
                line = part.lineno
                marked += [nodes.TemplateData(_OPEN, lineno=line), part, nodes.TemplateData(_CLOSE, lineno=line)]
        output.nodes = marked
    tree.set_environment(environment())
    return tree
