"""Listed choices in another order, some of them left out: what keeps a model from learning a list instead of reading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jinja2 import nodes

from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.trees import RenderedPrompt, split_parts

_CHOICES = "answer_choices"


def picking_field(template: Template) -> str | None:
    """The field whose number picks the answer, or None where the choices of the template cannot be varied.

    They can where they are the same on every row, the input shows them one by one in their order (joined, or in a loop over
    them) and reads neither the field nor a single choice, nothing is assigned, and the target is the picked choice alone.
    """
    if template.compiled.fixed_choices is None or len(set(template.compiled.fixed_choices)) < 2:
        return None
    before, _, tail = split_parts(template.jinja, template.place)
    field = _picked(tail)
    if field is None or _names(before, field) or next(before.find_all((nodes.Assign, nodes.AssignBlock, nodes.Macro)), None):
        return None
    whole = [loop.iter for loop in before.find_all(nodes.For)]
    whole += [item.node for item in before.find_all(nodes.Filter) if item.name == "join" and item.node is not None]
    shown = {id(node) for node in whole if isinstance(node, nodes.Name) and node.name == _CHOICES}
    return field if shown and shown == {id(name) for name in _names(before, _CHOICES)} else None


def _names(tree: nodes.Template, name: str) -> list[nodes.Name]:
    return [node for node in tree.find_all(nodes.Name) if node.name == name]


def _picked(tail: list[nodes.Node]) -> str | None:
    """The field of a target that is ``{{ answer_choices[field] }}`` and nothing else."""
    parts = [part for node in tail for part in (node.nodes if isinstance(node, nodes.Output) else [node])]
    printed = [part for part in parts if not (isinstance(part, nodes.TemplateData) and not part.data.strip())]
    if len(printed) != 1 or not isinstance(printed[0], nodes.Getitem):
        return None
    item = printed[0]
    if not isinstance(item.node, nodes.Name) or item.node.name != _CHOICES or not isinstance(item.arg, nodes.Name):
        return None
    return item.arg.name


def drawn_choices(gold: int, number: int, draws: np.random.Generator) -> list[int]:
    """Some of ``number`` choices by their place, the right one among them, in an order of their own.

    How many is log-uniform from two to all: of forty labels short lists are drawn as often as long ones.
    """
    wrong = np.delete(np.arange(number), gold)
    size = int(np.exp(draws.uniform(np.log(2), np.log(number + 1))))
    kept = draws.permutation(wrong)[: size - 1]
    return [int(place) for place in draws.permutation(np.append(kept, gold))]


def render_varied(template: Template, field: str, values: Mapping[str, Any], draws: np.random.Generator) -> RenderedPrompt | None:
    """The row with drawn choices in place of the template's.

    Args:
        template: of which :func:`picking_field` named ``field``.
        field: holds the number of the right choice.
        values: the row's.
        draws: decides which choices stand where.

    Returns:
        None where the row's field is no number of a choice.

    Raises:
        InputError: as :meth:`Template.render`.
    """
    choices = template.compiled.fixed_choices or ()
    gold = values.get(field)
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
        return None
    order = drawn_choices(gold, len(choices), draws)
    moved = {**values, field: order.index(gold)}
    return template.compiled.render_sandboxed(moved, choices=tuple(choices[place] for place in order))
