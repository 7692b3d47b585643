"""Conditions: ``skip_if`` expressions over an example, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import nodes

from mengzi_mt.native_jinja import native_condition
from mengzi_mt.sandbox import environment, reset_steps

Condition = Callable[[Mapping[str, Any]], bool]


@lru_cache(maxsize=4096)
def compile_condition(expression: str) -> Condition:
    """The condition as a function of the example's values: a native one where it can be, on the sandbox's terms always.

    Raises:
        jinja2.TemplateError: the expression does not parse.
    """
    env = environment()
    compiled = env.compile_expression(expression, undefined_to_none=False)
    native = native_condition(_expression(expression))

    def evaluate(values: Mapping[str, Any]) -> bool:
        if native is not None:
            try:
                return bool(native(values))
            except Exception:  # whatever it is, the sandbox knows how to say it
                pass
        reset_steps()
        return bool(compiled(**values))

    return evaluate


def _expression(text: str) -> nodes.Expr:
    (output,) = environment().parse("{{" + text + "}}").body
    assert isinstance(output, nodes.Output)
    return output.nodes[0]
