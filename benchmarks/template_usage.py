"""What a template does with each field of a row, read from its syntax tree: printed, looped over, indexed, compared, …"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes

_TEXT_FILTERS = {"trim", "lower", "upper", "capitalize", "title", "replace", "string", "format", "wordwrap", "wordcount"}
_NUMBER_FILTERS = {"round", "abs"}
_LIST_FILTERS = {"join", "choice", "random", "first", "last", "most_frequent", "min", "max", "sum"}
_SAME_LIST_FILTERS = {"list", "sort", "unique", "reverse", "select", "reject", "selectattr", "rejectattr", "map"}
_TEXT_METHODS = {
    "lower",
    "upper",
    "capitalize",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "startswith",
    "endswith",
    "title",
    "format",
}
_LIST_METHODS = {"append", "insert", "extend", "pop", "remove", "count"}


@dataclass(eq=False)
class Usage:
    """How one value is used. Usages of the same value in several templates are one object."""

    keys: dict[str, Usage] = field(default_factory=dict)
    item: Usage | None = None
    text: bool = False
    number: bool = False
    digits: bool = False
    printed: bool = False
    mapping: bool = False
    values: list[Any] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    indexes: list[Usage] = field(default_factory=list)
    is_choices: bool = False
    indexes_choices: bool = False
    least: int = 0
    pieces: dict[str, Usage] = field(default_factory=dict)
    member_of: Usage | None = None
    labelled: bool = False
    contains: list[str] = field(default_factory=list)

    def may_be(self, values: Iterable[Any]) -> None:
        """Note values that the template compares with, each once."""
        self.values += [value for value in dict.fromkeys(values) if value not in self.values]

    def key(self, name: str) -> Usage:
        """The value under one key of a mapping."""
        return self.keys.setdefault(name, Usage())

    def element(self) -> Usage:
        """The values that a list holds."""
        if self.item is None:
            self.item = Usage()
        return self.item


class _Reader:
    """Walks one template; ``fields`` collects the row's fields."""

    def __init__(self, fields: Usage) -> None:
        self.fields = fields
        self.scope: dict[str, Usage] = {}
        self.choices = Usage(is_choices=True)

    def statements(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            self.statement(node)

    def statement(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Output):
            for part in node.nodes:
                if not isinstance(part, nodes.TemplateData):
                    self.value(part).printed = True
        elif isinstance(node, nodes.If):
            self.value(node.test)
            self.statements([*node.body, *node.elif_, *node.else_])
        elif isinstance(node, nodes.For):
            self.bind(node.target, self.value(node.iter).element())
            if node.test is not None:
                self.value(node.test)
            self.statements([*node.body, *node.else_])
        elif isinstance(node, nodes.Assign):
            self.bind(node.target, self.value(node.node))
        elif isinstance(node, (nodes.AssignBlock, nodes.With, nodes.Macro, nodes.FilterBlock)):
            self.statements(node.body)

    def bind(self, target: nodes.Node, usage: Usage) -> None:
        if isinstance(target, nodes.Name):
            self.scope[target.name] = usage
        elif isinstance(target, nodes.Tuple):
            for number, part in enumerate(target.items):
                self.bind(part, usage.key(f"#{number}"))

    def value(self, node: nodes.Node) -> Usage:
        """The usage of an expression's value; a fresh one where it is no field's."""
        method = getattr(self, "_" + type(node).__name__.lower(), None)
        if method is not None:
            return method(node)  # type: ignore[no-any-return]
        for child in node.iter_child_nodes():
            self.value(child)
        return Usage()

    def _name(self, node: nodes.Name) -> Usage:
        if node.name == "answer_choices":
            return self.choices
        if node.name in self.scope:
            return self.scope[node.name]
        return Usage() if node.name in ("loop", "range", "zip", "namespace", "dict") else self.fields.key(node.name)

    def _const(self, node: nodes.Const) -> Usage:
        return Usage(values=[node.value], text=isinstance(node.value, str), number=isinstance(node.value, int))

    def _list(self, node: nodes.List) -> Usage:
        usage = Usage(item=Usage())
        for item in node.items:
            self.value(item)
            if isinstance(item, nodes.Const):
                usage.element().may_be([item.value])
        usage.lengths = [len(node.items)]
        return usage

    _tuple = _list

    def _dict(self, node: nodes.Dict) -> Usage:
        usage = Usage(mapping=True)
        for pair in node.items:
            if isinstance(pair.key, nodes.Const):
                usage.may_be([pair.key.value])
                usage.keys[str(pair.key.value)] = self.value(pair.value)
        return usage

    def _getattr(self, node: nodes.Getattr) -> Usage:
        return self.value(node.node).key(node.attr)

    def _getitem(self, node: nodes.Getitem) -> Usage:
        base = self.value(node.node)
        if isinstance(node.arg, nodes.Slice):
            for part in (node.arg.start, node.arg.stop, node.arg.step):
                if part is not None:
                    self.value(part).number = True
            return base
        constant = self._constant(node.arg)
        if isinstance(constant, str):
            return base.key(constant)
        if isinstance(constant, int) and not isinstance(constant, bool):
            if base.mapping:
                return base.keys.get(str(constant), Usage())
            base.least = max(base.least, constant + 1 if constant >= 0 else -constant)
            return base.element()
        index = self.value(node.arg)
        if base is self.choices:
            index.indexes_choices = True
            return Usage(text=True)
        if base.mapping:
            index.may_be(base.values)
            return next(iter(base.keys.values()), Usage())
        if base.lengths:
            index.lengths += base.lengths
        index.indexes.append(base)
        return base.element()

    @staticmethod
    def _constant(node: nodes.Node) -> Any:
        try:
            return node.as_const() if isinstance(node, nodes.Expr) else None
        except nodes.Impossible:
            return None

    def _filter(self, node: nodes.Filter) -> Usage:
        if node.node is None:
            return Usage(text=True)
        base = self.value(node.node)
        for argument in [*node.args, *node.kwargs]:
            self.value(argument)
        if node.name in _TEXT_FILTERS:
            base.text = True
        elif node.name in _NUMBER_FILTERS:
            base.number = True
        elif node.name in ("int", "float"):
            base.digits = True
            return Usage(number=True)
        elif node.name == "length":
            return Usage(number=True)
        elif node.name in _LIST_FILTERS:
            element = base.element()
            if node.name == "most_frequent":
                return Usage(item=element)
            return Usage(text=True) if node.name == "join" else element
        elif node.name in _SAME_LIST_FILTERS:
            element = base.element()
            attribute = next((k.value for k in node.kwargs if k.key == "attribute"), None)
            if isinstance(attribute, nodes.Const):
                return Usage(item=element.key(str(attribute.value)))
            if node.name in ("selectattr", "rejectattr") and node.args and isinstance(node.args[0], nodes.Const):
                wanted = element.key(str(node.args[0].value))
                wanted.may_be(self._constant(argument) for argument in node.args[2:])
            return base
        elif node.name == "default":
            return base
        return Usage(text=node.name in _TEXT_FILTERS, number=node.name in _NUMBER_FILTERS)

    def _call(self, node: nodes.Call) -> Usage:
        arguments = [self.value(argument) for argument in node.args]
        for keyword in node.kwargs:
            self.value(keyword.value)
        if isinstance(node.node, nodes.Name):
            return self._global(node.node.name, arguments, node)
        if not isinstance(node.node, nodes.Getattr):
            self.value(node.node)
            return Usage()
        base, method = self.value(node.node.node), node.node.attr
        if method == "split":
            separator = self._constant(node.args[0]) if node.args else " "
            base.text = True
            return base.pieces.setdefault(str(separator), Usage(item=Usage(text=True)))
        if method == "index" and arguments:
            wanted = self._constant(node.args[0])
            if isinstance(wanted, str):
                base.text = True
                base.contains += [wanted] if wanted not in base.contains else []
                return Usage(number=True)
            arguments[0].member_of = base
            base.labelled = True
            base.element()
            return Usage(number=True)
        if method in _TEXT_METHODS:
            base.text = True
            return Usage(text=True)
        if method == "join":
            arguments[0].element().text = True
            return Usage(text=True)
        if method in _LIST_METHODS:
            return base.element()
        if method in ("keys", "values", "items"):
            base.mapping = True
            return Usage(item=Usage())
        if method == "get" and arguments and isinstance(self._constant(node.args[0]), str):
            return base.key(self._constant(node.args[0]))
        return Usage()

    def _global(self, name: str, arguments: list[Usage], node: nodes.Call) -> Usage:
        if name == "range":
            for argument in arguments:
                argument.number = True
            return Usage(item=Usage(number=True))
        if name == "zip":
            element = Usage()
            for number, argument in enumerate(arguments):
                element.keys[f"#{number}"] = argument.element()
            return Usage(item=element)
        if name == "namespace":
            return Usage(keys={keyword.key: self.value(keyword.value) for keyword in node.kwargs})
        return Usage()

    def _compare(self, node: nodes.Compare) -> Usage:
        left = self.value(node.expr)
        for operand in node.ops:
            right = self.value(operand.expr)
            if operand.op in ("in", "notin"):
                if right.item is not None and right.item.values:
                    left.may_be(right.item.values)
                elif left.values:
                    right.text = True
                else:
                    right.element()
            elif operand.op in ("eq", "ne"):
                left.may_be(right.values)
                right.may_be(left.values)
            else:
                for side, other in ((left, right), (right, left)):
                    side.number = True
                    side.may_be([v + d for v in other.values if type(v) is int and abs(v) < 20 for d in (-1, 0, 1)])
        return Usage(number=True)

    def _add(self, node: nodes.BinExpr) -> Usage:
        left, right = self.value(node.left), self.value(node.right)
        for side, other in ((left, right), (right, left)):
            side.text |= other.text
            side.number |= other.number
            if other.item is not None:
                side.element()
        return Usage(text=left.text, number=left.number, item=left.item)

    def _arithmetic(self, node: nodes.BinExpr) -> Usage:
        for side in (node.left, node.right):
            self.value(side).number = True
        return Usage(number=True)

    _sub = _mul = _div = _floordiv = _mod = _pow = _arithmetic

    def _condexpr(self, node: nodes.CondExpr) -> Usage:
        self.value(node.test)
        first = self.value(node.expr1)
        if node.expr2 is not None:
            self.value(node.expr2)
        return first

    def _not(self, node: nodes.Not) -> Usage:
        self.value(node.node)
        return Usage(number=True)


@lru_cache(maxsize=64)
def _body(environment: jinja2.Environment, source: str) -> list[nodes.Node]:
    return environment.parse(source).body


def read_usage(environment: jinja2.Environment, jinja: str, answer_choices: str | None, fields: Usage) -> None:
    """Add to ``fields`` (whose ``keys`` are the row's fields) how a template and its choices use them."""
    for source in (jinja, answer_choices or ""):
        _Reader(fields).statements(_body(environment, source))
