"""A whole template as one Python function: choices, input with its spans, and target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes

from mengzi_mt.errors import MengziError
from mengzi_mt.native_expressions import Unsupported
from mengzi_mt.native_jinja import NativeWriter, native_function
from mengzi_mt.prompts.trees import MARK, SEPARATOR, RenderedPrompt, Shrink, Span, clipped, cut_of, shown_fields, split_parts
from mengzi_mt.sandbox import MAX_CHARACTERS, compile_tree, environment, run_part

NativeTemplate = Callable[[Mapping[str, Any], bool], RenderedPrompt]
_GIVEN_UP = (
    Unsupported, MengziError, jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, ArithmeticError, TypeError,
    ValueError, LookupError, AttributeError,
)  # fmt: skip


def native_template(
    jinja: str, answer_choices: str | None, shrink: Shrink, fixed: tuple[str, ...] | None, where: str
) -> Callable[[Mapping[str, Any], bool], RenderedPrompt] | None:
    """The whole template as one Python function, or None where it is outside the native subset."""
    constants: dict[str, Any] = {} if fixed is None else {"answer_choices": list(fixed)}
    before, _, tail = split_parts(jinja, where)  # a tree of its own: compiling the sandbox's changed the other
    writer = NativeWriter(_folder(constants), constants)
    tainted = shown_fields(before, shrink)
    try:
        if answer_choices is None or fixed is not None:
            choices = writer.constant(fixed)
        else:
            choices = _native_choices(writer, answer_choices)
        inputs = writer.part(before.body, "  ", lambda node: cut_of(node, tainted))
        writer.lines += _native_inputs(inputs)
        writer.lines.append("  if t:")
        targets = [piece.split(":")[0] for piece in writer.part(tail, "    ")]
        writer.lines += [
            f"    y = ({' + '.join(targets) or repr('')}).strip()",
            "    if M in y: raise _Outside",
            "  else: y = None",
        ]
        writer.lines.append(f"  return P(s, y, {choices}, z)")
        objects = {**writer.objects, "P": RenderedPrompt, "S": Span, "M": MARK, "clipped": clipped}
        return native_function(["  n = 0", *writer.lines], objects, "r, t")
    except _GIVEN_UP:
        return None


def _folder(constants: dict[str, Any]) -> Callable[[nodes.Node, dict[str, Any]], str]:
    env = environment()

    def fold(node: nodes.Node, known: dict[str, Any]) -> str:
        body: nodes.Node = nodes.Output([node], lineno=node.lineno) if isinstance(node, nodes.Expr) else node
        tree = copy.deepcopy(nodes.Template([body], lineno=1))
        tree.set_environment(env)
        return run_part(compile_tree(tree), dict(known))

    return fold


def _native_choices(writer: NativeWriter, answer_choices: str) -> str:
    """Writes the choices that a row gives: pieces between separators, or one list joined by the separator."""
    body = environment().parse(answer_choices).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output):
        raise Unsupported("choices made by statements")
    parts = body[0].nodes
    joined = parts[0] if len(parts) == 1 and isinstance(parts[0], nodes.Filter) and parts[0].name == "join" else None
    if joined is not None and joined.node is not None and len(joined.args) == 1 and not joined.kwargs:
        separator = joined.args[0].as_const() if isinstance(joined.args[0], nodes.Const) else ""
        if str(separator).strip() != SEPARATOR:
            raise Unsupported("choices joined otherwise")
        writer.lines.append(f"  a = [_text(x).strip() for x in {writer.expression(joined.node)}]")
        writer.lines.append("  if not a: raise _Outside")
    else:
        groups: list[list[nodes.Expr]] = [[]]
        for part in parts:
            pieces = part.data.split(SEPARATOR) if isinstance(part, nodes.TemplateData) else [part]
            for number, piece in enumerate(pieces):
                if number:
                    groups.append([])
                groups[-1].append(nodes.TemplateData(piece, lineno=1) if isinstance(piece, str) else part)
        written = [writer.part([nodes.Output(group, lineno=1)], "  ") for group in groups]
        texts = [" + ".join(pieces) or repr("") for pieces in written]
        writer.lines.append(f"  a = [{', '.join(f'({text}).strip()' for text in texts)}]")
    writer.bind("answer_choices", "a")
    return "tuple(a)"


def _native_inputs(pieces: Sequence[str]) -> list[str]:
    """Lines that join the input's pieces to ``s``, stripped, and give the spans of those marked with a cut as ``z``."""
    names = [piece.split(":")[0] for piece in pieces]
    lines = [
        f"  x = {' + '.join(names) or repr('')}",
        "  s = x.strip()",
        f"  if M in x or len(x) > {MAX_CHARACTERS}: raise _Outside",
    ]
    spans: list[str] = []
    full: list[str] = []
    place = "0"
    for number, piece in enumerate(pieces):
        name, _, cut = piece.partition(":")
        lines.append(f"  e{number} = {place} + len({name})")
        if cut:
            spans.append(f"S({place}, e{number}, {cut!r})")
            full.append(name)
        place = f"e{number}"
    if not spans:
        return [*lines[:3], "  z = ()"]
    return [*lines, f"  z = ({', '.join(spans)},)", f"  if len(s) != len(x) or not ({' and '.join(full)}): z = clipped(x, z)"]
