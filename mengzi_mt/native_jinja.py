"""Native rendering: a template's syntax tree becomes one plain Python function.

Jinja's compiled code calls back into its environment for every name, attribute and piece of text, and the sandbox adds
a check to each. Most templates need none of that: they print fields, index the label words, join a list, loop over one.
For those a function of a few f-strings is written here and gives the same text some ten times faster.

What is outside the subset (:class:`~mengzi_mt.native_expressions.Unsupported`) is rendered by the sandbox; so is every row
on which the native function raises anything at all, so that the sandbox alone decides what is an error and how it reads.
Nested loops stop at :data:`MAX_NESTED`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import meta, nodes

from mengzi_mt.native_expressions import GROWING, ExpressionWriter, Scope, Unsupported
from mengzi_mt.sandbox import environment

MAX_GROWING = 4
"""Assignments of joined or added texts in one template: each may double a value, so a chain of many must be counted."""
MAX_NESTED = 10_000
"""Turns that a loop within a loop may take before the sandbox, which counts its steps, takes over."""


class NativeWriter(ExpressionWriter):
    """Writes the statements that render syntax trees; see :meth:`part`.

    Args:
        fold: evaluates a constant subtree (of the names in ``constants``) to text, by the sandbox itself.
        constants: names whose values are known when the template is compiled.
    """

    def __init__(self, fold: Callable[[nodes.Node, dict[str, Any]], str], constants: Mapping[str, Any]) -> None:
        super().__init__(constants)
        self._fold = fold
        self._loops = 0
        self._growing = 0

    def part(self, body: Sequence[nodes.Node], indent: str, marked: Callable[[nodes.Expr], str | None] | None = None) -> list[str]:
        """Write what prints ``body``; the names of the pieces (Python expressions of texts) in order.

        ``marked`` names the cut of a printed expression that may be cut. Such a piece comes as ``name`` with the cut
        after a colon (``p3:tail``), and only pieces at the top level may be marked.
        """
        pieces: list[str] = []
        pending: list[str] = []

        def flush() -> None:
            if pending:
                name = self._new("p")
                self.lines.append(f"{indent}{name} = {_joined(pending)}")
                pieces.append(name)
                pending.clear()

        for node in body:
            if isinstance(node, nodes.Output):
                for expression in node.nodes:
                    cut = None if isinstance(expression, nodes.TemplateData) or marked is None else marked(expression)
                    if cut:
                        flush()
                        name = self._new("p")
                        self.lines.append(f"{indent}{name} = {_joined([self._printed(expression, self._root, indent)])}")
                        pieces.append(f"{name}:{cut}")
                    else:
                        pending.append(self._printed(expression, self._root, indent))
            elif isinstance(node, nodes.Assign):
                self._assign(node, indent)
            elif (folded := self._folded(node)) is not None:
                pending.append(repr(folded))
            else:
                if marked is not None and any(marked(e) for output in node.find_all(nodes.Output) for e in output.nodes):
                    raise Unsupported("a text that may be cut inside a block")
                flush()
                name = self._new("b")
                self.lines.append(f"{indent}{name} = []")
                self._block(node, indent, name, self._root)
                joined = self._new("p")
                self.lines.append(f"{indent}{joined} = ''.join({name})")
                pieces.append(joined)
        flush()
        return pieces

    def _folded(self, node: nodes.Node) -> str | None:
        """The text that a subtree prints, where it depends on constants only."""
        whole = nodes.Template([nodes.Output([node], lineno=1) if isinstance(node, nodes.Expr) else node], lineno=1)
        whole.set_environment(environment())
        names = meta.find_undeclared_variables(whole)
        if not names or not names <= set(self._constants):
            return None
        if any(isinstance(inner, nodes.Filter) and inner.name == "choice" for inner in whole.find_all(nodes.Filter)):
            raise Unsupported("choice")
        return self._fold(node, self._constants)

    def _assign(self, node: nodes.Assign, indent: str) -> None:
        if not isinstance(node.target, nodes.Name):
            raise Unsupported("several targets")
        name = node.target.name
        value = node.node
        assert isinstance(value, nodes.Expr)
        try:
            self._constants[name] = value.as_const()
            self._root.names.pop(name, None)
            return
        except nodes.Impossible:
            pass
        parts = [value, *value.find_all(nodes.Expr)]
        if any(isinstance(p, GROWING) or (isinstance(p, nodes.Filter) and p.name in ("join", "replace")) for p in parts):
            self._growing += 1
            if self._growing > MAX_GROWING:
                raise Unsupported("many assignments that may grow")
        written = self._expression(value, self._root)
        self._constants.pop(name, None)
        variable = self._new("v")
        self.lines.append(f"{indent}{variable} = {written}")
        self._root.names[name] = variable

    def _block(self, node: nodes.Node, indent: str, out: str, scope: Scope) -> None:
        folded = self._folded(node) if scope is self._root else None
        if folded is not None:
            self.lines.append(f"{indent}{out}.append({folded!r})")
        elif isinstance(node, nodes.Output):
            printed = [self._printed(expression, scope, indent) for expression in node.nodes]
            if printed:
                self.lines.append(f"{indent}{out}.append({_joined(printed)})")
        elif isinstance(node, nodes.If):
            self._if(node, indent, out, scope)
        elif isinstance(node, nodes.For):
            self._for(node, indent, out, scope)
        else:
            raise Unsupported(type(node).__name__)

    def _body(self, body: Sequence[nodes.Node], indent: str, out: str, scope: Scope) -> None:
        before = len(self.lines)
        for node in body:
            self._block(node, indent, out, scope)
        if len(self.lines) == before:
            self.lines.append(f"{indent}pass")

    def _if(self, node: nodes.If, indent: str, out: str, scope: Scope) -> None:
        self.lines.append(f"{indent}if {self._expression(node.test, scope)}:")
        self._body(node.body, indent + " ", out, scope)
        for other in node.elif_:
            self.lines.append(f"{indent}elif {self._expression(other.test, scope)}:")
            self._body(other.body, indent + " ", out, scope)
        if node.else_:
            self.lines.append(f"{indent}else:")
            self._body(node.else_, indent + " ", out, scope)

    def _for(self, node: nodes.For, indent: str, out: str, scope: Scope) -> None:
        if node.recursive:
            raise Unsupported("a recursive loop")
        items, inner = self._new("l"), Scope(scope)
        targets = [node.target] if isinstance(node.target, nodes.Name) else getattr(node.target, "items", [])
        if not targets or not all(isinstance(target, nodes.Name) for target in targets):
            raise Unsupported("nested targets")
        for target in targets:
            inner.names[target.name] = self._new("v")
        variables = ", ".join(inner.names[target.name] for target in targets)
        variables = variables if isinstance(node.target, nodes.Name) else f"({variables},)"
        source = f"list({self._expression(node.iter, scope, lazy=True)})"
        if node.test is not None:
            source = f"[{variables} for {variables} in {source} if {self._expression(node.test, inner)}]"
        self.lines.append(f"{indent}{items} = {source}")
        self._loops += 1
        if self._loops > 1:
            self.lines.append(f"{indent}n += len({items})")
            self.lines.append(f"{indent}if n > {MAX_NESTED}: raise _Outside")
        index = self._new("i")
        inner.names["loop"] = f"{index},{items}"
        if node.else_:
            self.lines.append(f"{indent}if not {items}:")
            self._body(node.else_, indent + " ", out, scope)
        self.lines.append(f"{indent}for {index}, {variables} in enumerate({items}):")
        self._body(node.body, indent + " ", out, inner)
        self._loops -= 1

    def _printed(self, node: nodes.Expr, scope: Scope, indent: str) -> str:
        """A piece of an f-string: a quoted text, or ``{name}`` of a value that is computed in a line of its own."""
        if isinstance(node, nodes.TemplateData):
            return repr(node.data)
        folded = self._folded(node) if scope is self._root else None
        if folded is not None:
            return repr(folded)
        written = self._expression(node, scope)
        if written.isidentifier():
            return f"{{{written}}}"
        name = self._new("v")
        self.lines.append(f"{indent}{name} = {written}")
        return f"{{{name}}}"


def _joined(pieces: Sequence[str]) -> str:
    """One expression for pieces of text: quoted constants beside ``{name}`` of values, which Python joins at once."""
    return " ".join(f"f'{piece}'" if piece[0] == "{" else piece for piece in pieces) or "''"


def native_function(lines: Iterable[str], objects: dict[str, Any], arguments: str) -> Callable[..., Any]:
    """The function whose body is ``lines``, with ``objects`` as its globals and no builtins beyond what it needs."""
    source = f"def render({arguments}):\n" + "\n".join(lines)
    allowed = {"str": str, "len": len, "list": list, "map": map, "enumerate": enumerate, "tuple": tuple}
    space: dict[str, Any] = {**objects, "__builtins__": allowed}
    exec(compile(source, "<native template>", "exec"), space)
    made: Callable[..., Any] = space["render"]
    return made


def native_condition(expression: nodes.Expr) -> Callable[[Mapping[str, Any]], Any] | None:
    """An expression as a function of the row alone, or None where it is outside the subset."""
    writer = NativeWriter(lambda node, known: "", {})
    try:
        written = writer.value(expression)
        return native_function([*writer.lines, f"  return {written}"], writer.objects, "r")
    except (Unsupported, SyntaxError, RecursionError):
        return None
