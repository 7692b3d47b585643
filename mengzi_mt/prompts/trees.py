"""Operations on a template's syntax tree: the split at ``|||``, and marks around the texts that may be cut."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from mengzi_mt.errors import InputError
from mengzi_mt.sandbox import environment

SEPARATOR = "|||"
Cut = Literal["tail", "head", "middle"]
CUTS: tuple[Cut, ...] = ("tail", "head", "middle")
Shrink = tuple[tuple[str, Cut], ...]
"""Fields that may be cut, and where."""
MARK = "\ufdd0"  # then t, h or m where a shrinkable text begins, / where it ends; Unicode keeps it out of every text
_CAPTURES = (nodes.AssignBlock, nodes.Macro, nodes.CallBlock, nodes.FilterBlock)
_COUNTS = frozenset({"length", "count", "wordcount"})


class Span(NamedTuple):
    """Characters ``start`` to ``end`` of a text that may be cut, at its tail, its head or in its middle."""

    start: int
    end: int
    cut: Cut = "tail"


class RenderedPrompt(NamedTuple):
    """One rendered example. ``shrinkable`` holds the spans of ``inputs`` that may be cut."""

    inputs: str
    targets: str | None
    choices: tuple[str, ...] | None
    shrinkable: tuple[Span, ...]


class _Silence(NodeTransformer):
    """Removes what a syntax tree prints and keeps what it assigns."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """The node without its printed text, or None; what an assignment or a macro captures is not printed."""
        if isinstance(node, (nodes.Output, nodes.FilterBlock, nodes.CallBlock)):
            return None
        if isinstance(node, (nodes.AssignBlock, nodes.Macro)):
            return node
        return super().visit(node, *args, **kwargs)


def split_parts(jinja: str, where: str) -> tuple[nodes.Template, nodes.Template, list[nodes.Node]]:
    """Two trees: what stands before the top-level ``|||``, and what stands after it; and the nodes after it alone.

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
    return before, after, [tail, *tree.body[i + 1 :]]


def mark_shrinkable(tree: nodes.Template, shrink: Shrink) -> nodes.Template:
    """Puts marks around every printed expression that shows a shrinkable field; captured text is a value and gets none."""
    tainted = shown_fields(tree, shrink)
    captured = {id(output) for capture in tree.find_all(_CAPTURES) for output in capture.find_all(nodes.Output)}
    for output in [node for node in tree.find_all(nodes.Output) if id(node) not in captured]:
        marked: list[nodes.Expr] = []
        for part in output.nodes:
            cut = None if isinstance(part, nodes.TemplateData) else cut_of(part, tainted)
            if cut is None:
                marked.append(part)
            else:
                line = part.lineno
                opening, closing = (nodes.TemplateData(MARK + sign, lineno=line) for sign in (cut[0], "/"))
                marked += [opening, part, closing]
        output.nodes = marked
    tree.set_environment(environment())
    return tree


def shown_fields(tree: nodes.Template, shrink: Shrink) -> dict[str, Cut]:
    """Names that hold text of a shrinkable field: the fields, what loops take from them, what is assigned from them."""
    tainted = dict(shrink)
    loops_and_assignments = [(n.target, n.iter) for n in tree.find_all(nodes.For)] + [
        (n.target, n.node) for n in tree.find_all(nodes.Assign)
    ]
    for _ in loops_and_assignments:
        for target, source in loops_and_assignments:
            cut = cut_of(source, tainted)
            for name in [target, *target.find_all(nodes.Name)] if cut else []:
                if isinstance(name, nodes.Name) and cut:
                    tainted.setdefault(name.name, cut)
    return tainted


def cut_of(node: nodes.Node, tainted: Mapping[str, Cut]) -> Cut | None:
    """How the text that an expression shows may be cut; what it only tests or counts does not matter."""
    if isinstance(node, nodes.Name):
        return tainted.get(node.name)
    if isinstance(node, nodes.CondExpr):
        shown: list[nodes.Node] = [part for part in (node.expr1, node.expr2) if part is not None]
    elif isinstance(node, nodes.Getitem):
        shown = [node.node]
    elif isinstance(node, (nodes.Compare, nodes.Not, nodes.Test)) or (isinstance(node, nodes.Filter) and node.name in _COUNTS):
        shown = []
    else:
        shown = list(node.iter_child_nodes())
    return next((cut for part in shown if (cut := cut_of(part, tainted))), None)


def without_marks(value: Any) -> Any:
    """The same value with no mark in any of its texts."""
    if isinstance(value, str):
        return value.replace(MARK, "")
    if isinstance(value, list):
        return [without_marks(item) for item in value]
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items()}
    return value


def strip_marks(text: str) -> tuple[str, tuple[Span, ...]]:
    """The text without marks and surrounding blanks, and the spans that the marks enclosed."""
    if MARK not in text:
        return text.strip(), ()
    spans: list[Span] = []
    pieces: list[str] = []
    length, start, depth = 0, 0, 0
    cut: Cut = "tail"
    for piece in re.split(f"({MARK}[thm/])", text):
        if piece == f"{MARK}/":
            depth -= 1
            if depth == 0:
                spans.append(Span(start, length, cut))
        elif piece.startswith(MARK):
            if depth == 0:
                start, cut = length, next(cut for cut in CUTS if cut[0] == piece[1])
            depth += 1
        else:
            pieces.append(piece)
            length += len(piece)
    plain = "".join(pieces)
    return plain.strip(), clipped(plain, spans)


def clipped(plain: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans of the text as spans of the stripped text; empty ones are dropped."""
    offset, length = len(plain) - len(plain.lstrip()), len(plain.strip())
    clipped = [Span(max(start - offset, 0), min(end - offset, length), cut) for start, end, cut in spans]
    return tuple(span for span in clipped if span.end > span.start)
