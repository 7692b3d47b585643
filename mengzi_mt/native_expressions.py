"""Jinja expressions as Python expressions, in the subset that needs no sandbox.

The subset has no attribute access but keys of dictionaries, no calls but a dozen text methods, and no operation whose
result can outgrow the product of the template and the row. Names and texts of a template enter the source only through ``repr``.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from jinja2 import nodes

_ATTRIBUTES = frozenset(name for kind in (dict, list, tuple, str, int, float, bool, type(None)) for name in dir(kind))
GROWING = (nodes.BinExpr, nodes.Concat, nodes.Call)
_LAZY = frozenset({"map", "select", "selectattr", "reject", "rejectattr", "unique"})
_METHODS = frozenset(
    ["split", "rsplit", "strip", "lstrip", "rstrip", "startswith", "endswith", "removeprefix", "removesuffix", "replace", "index"]
)
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}


class Unsupported(Exception):  # noqa: N818
    """A construct that is left to the sandbox."""


class OutsideNative(Exception):  # noqa: N818
    """Raised by a native function on a row that the sandbox must render."""


def _unique(items: Iterable[Any], case_sensitive: bool, key: str | None = None) -> list[Any]:
    seen, kept = set(), []
    for item in items:
        value = item if key is None else item[key]
        value = value if case_sensitive or not isinstance(value, str) else value.lower()
        if value not in seen:
            seen.add(value)
            kept.append(item)
    return kept


def _first(items: Sequence[Any]) -> Any:
    if type(items) is dict:
        raise OutsideNative
    return items[0]


def _last(items: Sequence[Any]) -> Any:
    if type(items) is dict:
        raise OutsideNative
    return items[-1]


def _text(value: Any) -> str:
    if type(value) is not str:
        raise OutsideNative
    return value


_HELPERS: dict[str, Any] = {"_unique": _unique, "_first": _first, "_last": _last, "_text": _text, "_Outside": OutsideNative}


class Scope:
    """Which Python name stands for which Jinja name; a loop opens a scope of its own."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.names: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """The Python name that stands for a Jinja name here, or None."""
        scope: Scope | None = self
        while scope:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None


class ExpressionWriter:
    """Writes Python expressions; what they need beside the row stands in ``objects``.

    Args:
        constants: names whose values are known when the template is compiled.
    """

    def __init__(self, constants: Mapping[str, Any]) -> None:
        self.lines: list[str] = []
        self.objects: dict[str, Any] = dict(_HELPERS)
        self._constants = dict(constants)
        self._counter = count()
        self._root = Scope()

    def expression(self, node: nodes.Expr) -> str:
        """The Python expression of a list that is consumed at once, at the template's top level."""
        return self._expression(node, self._root, lazy=True)

    def value(self, node: nodes.Expr) -> str:
        """The Python expression of one value."""
        return self._expression(node, self._root)

    def constant(self, value: Any) -> str:
        """The Python name of a value."""
        return self._constant(value)

    def bind(self, name: str, variable: str) -> None:
        """Let a Jinja name stand for a Python variable."""
        self._root.names[name] = variable

    def _new(self, letter: str) -> str:
        return f"{letter}{next(self._counter)}"

    def _expression(self, node: nodes.Node, scope: Scope, lazy: bool = False) -> str:
        """The Python expression of a Jinja expression; Jinja's lazy filters only where something consumes them whole."""
        if not lazy and isinstance(node, nodes.Filter) and node.name in _LAZY:
            raise Unsupported(f"the generator of {node.name} as a value")
        write = getattr(self, f"_write_{type(node).__name__.lower()}", None)
        if write is None:
            raise Unsupported(type(node).__name__)
        written: str = write(node, scope)
        return written

    def _constant(self, value: Any) -> str:
        """A constant: simple ones are written out by ``repr``, others become a global of the function."""
        if value is None or isinstance(value, (str, bool)) or type(value) is int:
            return repr(value)
        name = self._new("c")
        self.objects[name] = value
        return name

    def _write_name(self, node: nodes.Name, scope: Scope) -> str:
        found = scope.find(node.name)
        if found is not None:
            if "," in found:
                raise Unsupported("the loop itself as a value")
            return found
        if node.name in self._constants:
            return self._constant(self._constants[node.name])
        if node.name == "loop" or keyword.iskeyword(node.name):
            raise Unsupported(node.name)
        return f"r[{node.name!r}]"

    def _write_const(self, node: nodes.Const, scope: Scope) -> str:
        return self._constant(node.value)

    def _write_list(self, node: nodes.List, scope: Scope) -> str:
        return "[" + ", ".join(self._expression(item, scope) for item in node.items) + "]"

    def _write_tuple(self, node: nodes.Tuple, scope: Scope) -> str:
        return "(" + "".join(self._expression(item, scope) + ", " for item in node.items) + ")"

    def _write_getattr(self, node: nodes.Getattr, scope: Scope) -> str:
        if isinstance(node.node, nodes.Name) and node.node.name == "loop" and (found := scope.find("loop")):
            index, items = found.split(",")
            known = {
                "index": f"({index} + 1)", "index0": index, "first": f"({index} == 0)", "last": f"({index} + 1 == len({items}))",
                "length": f"len({items})", "revindex": f"(len({items}) - {index})", "revindex0": f"(len({items}) - {index} - 1)",
            }  # fmt: skip
            if node.attr not in known:
                raise Unsupported(f"loop.{node.attr}")
            return known[node.attr]
        if node.attr in _ATTRIBUTES or node.attr.startswith("_"):
            raise Unsupported(f"the attribute {node.attr}")
        return f"{self._expression(node.node, scope)}[{node.attr!r}]"

    def _write_getitem(self, node: nodes.Getitem, scope: Scope) -> str:
        owner = self._expression(node.node, scope)
        if isinstance(node.arg, nodes.Slice):
            parts = [self._expression(p, scope) if p else "" for p in (node.arg.start, node.arg.stop, node.arg.step)]
            return f"{owner}[{':'.join(parts)}]"
        return f"{owner}[{self._expression(node.arg, scope)}]"

    def _write_compare(self, node: nodes.Compare, scope: Scope) -> str:
        parts = [self._expression(node.expr, scope)]
        for operand in node.ops:
            parts += [_COMPARISONS[operand.op], self._expression(operand.expr, scope)]
        return f"({' '.join(parts)})"

    def _write_and(self, node: nodes.And, scope: Scope) -> str:
        return f"({self._expression(node.left, scope)} and {self._expression(node.right, scope)})"

    def _write_or(self, node: nodes.Or, scope: Scope) -> str:
        return f"({self._expression(node.left, scope)} or {self._expression(node.right, scope)})"

    def _write_not(self, node: nodes.Not, scope: Scope) -> str:
        return f"(not {self._expression(node.node, scope)})"

    def _write_condexpr(self, node: nodes.CondExpr, scope: Scope) -> str:
        if node.expr2 is None:
            raise Unsupported("a condition without else")
        test, yes, no = (self._expression(part, scope) for part in (node.test, node.expr1, node.expr2))
        return f"({yes} if {test} else {no})"

    def _write_add(self, node: nodes.Add, scope: Scope) -> str:
        return f"({self._expression(node.left, scope)} + {self._expression(node.right, scope)})"

    def _write_sub(self, node: nodes.Sub, scope: Scope) -> str:
        return f"({self._expression(node.left, scope)} - {self._expression(node.right, scope)})"

    def _write_concat(self, node: nodes.Concat, scope: Scope) -> str:
        return "(" + " + ".join(f"str({self._expression(part, scope)})" for part in node.nodes) + ")"

    def _write_floordiv(self, node: nodes.FloorDiv, scope: Scope) -> str:
        return f"({self._expression(node.left, scope)} // {self._expression(node.right, scope)})"

    def _write_call(self, node: nodes.Call, scope: Scope) -> str:
        """A method of a text that cannot make it much longer, with plain arguments."""
        method = node.node
        if not isinstance(method, nodes.Getattr) or method.attr not in _METHODS or node.kwargs or node.dyn_args or node.dyn_kwargs:
            raise Unsupported(f"the call of {method!r:.60}")
        arguments = ", ".join(self._expression(argument, scope) for argument in node.args)
        if method.attr == "index":
            return f"list({self._expression(method.node, scope)}).index({arguments})"
        return f"_text({self._expression(method.node, scope)}).{method.attr}({arguments})"

    def _write_filter(self, node: nodes.Filter, scope: Scope) -> str:
        if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise Unsupported("filter arguments")
        value = self._expression(node.node, scope, lazy=True)
        arguments = [self._expression(argument, scope) for argument in node.args]
        named = {pair.key: pair.value for pair in node.kwargs}
        write = getattr(self, f"_filter_{node.name}", None)
        if write is None:
            raise Unsupported(f"the filter {node.name}")
        written: str = write(value, arguments, named, node, scope)
        return written

    def _filter_join(self, value: str, arguments: list[str], named: dict[str, nodes.Expr], *_: Any) -> str:
        if named or len(arguments) > 1:
            raise Unsupported("join by attribute")
        return f"str({arguments[0] if arguments else repr('')}).join(map(str, {value}))"

    def _filter_replace(self, value: str, arguments: list[str], named: dict[str, nodes.Expr], *_: Any) -> str:
        if named or len(arguments) not in (2, 3):
            raise Unsupported("a replace with other arguments")
        return f"_text({value}).replace(_text({arguments[0]}), _text({arguments[1]}){''.join(', ' + a for a in arguments[2:])})"

    def _filter_length(self, value: str, *_: Any) -> str:
        return f"len({value})"

    _filter_count = _filter_length

    def _filter_first(self, value: str, *_: Any) -> str:
        return f"_first({value})"

    def _filter_last(self, value: str, *_: Any) -> str:
        return f"_last({value})"

    def _filter_list(self, value: str, *_: Any) -> str:
        return f"list({value})"

    def _filter_trim(self, value: str, arguments: list[str], named: dict[str, nodes.Expr], *_: Any) -> str:
        if arguments or named:
            raise Unsupported("trim of other characters")
        return f"_text({value}).strip()"

    def _filter_string(self, value: str, *_: Any) -> str:
        return f"str({value})"

    def _filter_map(self, value: str, arguments: list[str], named: dict[str, nodes.Expr], *_: Any) -> str:
        if arguments or set(named) != {"attribute"}:
            raise Unsupported("map with a filter")
        return f"[x[{_key(named['attribute'])!r}] for x in {value}]"

    def _filter_unique(self, value: str, arguments: list[str], named: dict[str, nodes.Expr], *_: Any) -> str:
        if arguments or not set(named) <= {"case_sensitive", "attribute"}:
            raise Unsupported("unique")
        sensitive = named.get("case_sensitive")
        if sensitive is not None and not isinstance(sensitive, nodes.Const):
            raise Unsupported("unique")
        key = _key(named["attribute"]) if "attribute" in named else None
        return f"_unique({value}, {bool(sensitive and sensitive.value)}, {key!r})"

    def _select(self, value: str, arguments: list[str], named: dict[str, nodes.Expr], node: nodes.Filter, negate: bool) -> str:
        if named or len(node.args) not in (1, 3):
            raise Unsupported("this selection")
        item = f"x[{_key(node.args[0])!r}]"
        if len(node.args) == 3:
            tests = {"equalto": "==", "eq": "==", "==": "==", "ne": "!=", "!=": "!=", "in": "in"}
            test = node.args[1].value if isinstance(node.args[1], nodes.Const) else None
            if test not in tests:
                raise Unsupported("this selection")
            item = f"{item} {tests[test]} {arguments[2]}"
        return f"[x for x in {value} if {'not ' if negate else ''}({item})]"

    def _filter_selectattr(
        self, value: str, arguments: list[str], named: dict[str, nodes.Expr], node: nodes.Filter, _: Scope
    ) -> str:
        return self._select(value, arguments, named, node, negate=False)

    def _filter_rejectattr(
        self, value: str, arguments: list[str], named: dict[str, nodes.Expr], node: nodes.Filter, _: Scope
    ) -> str:
        return self._select(value, arguments, named, node, negate=True)


def _key(node: nodes.Expr) -> str:
    """The constant name of an attribute; dotted ones and list positions are left to the sandbox."""
    if not isinstance(node, nodes.Const) or not isinstance(node.value, str) or "." in node.value or node.value.isdigit():
        raise Unsupported("an attribute that is no plain name")
    return node.value
