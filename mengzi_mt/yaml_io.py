"""Strict YAML: safe tags only, no duplicated keys, errors that name file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mengzi_mt.errors import InputError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 100
"""Levels of nesting that a file may have; libyaml's composer recurses on the C stack and would take the process down."""


class StrictLoader(_Base):  # type: ignore[misc]
    """A safe loader that refuses a key given twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, where no key stands twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            try:
                duplicated = key in seen
            except TypeError as error:
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark) from error
            if duplicated:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice in one mapping", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_text(path: Path) -> str:
    """The whole file as UTF-8 text (a byte-order mark is dropped)."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("The file does not exist", where=str(path), fix="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The file is no UTF-8 text (byte {error.start})", where=str(path), fix="save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"The file cannot be read: {error.strerror}", where=str(path)) from error


def load_yaml(path: Path, loader: type = StrictLoader) -> Any:
    """Parse one YAML file strictly.

    Raises:
        InputError: with the line, where the file is missing, badly indented, has a duplicated key or a foreign tag.
    """
    text = read_text(path)
    try:
        _check_depth(text)
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = error.problem or "it cannot be parsed"
        raise InputError(f"Not valid YAML: {problem}", where=where, fix="repair this line") from error
    except (yaml.YAMLError, ValueError) as error:  # a malformed date or number is a ValueError
        raise InputError(f"Not valid YAML: {error}", where=str(path), fix="repair the file") from error


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels of nesting", problem_mark=mark)


def load_mapping(path: Path) -> dict[str, Any]:
    """Parse one YAML file whose top level must be a mapping."""
    value = load_yaml(path)
    if not isinstance(value, dict):
        raise InputError("The file must hold a mapping at its top level", where=str(path), fix="write `key: value` lines")
    return value
