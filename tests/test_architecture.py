"""The rooms' order: a module imports only from its own room and from rooms below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mengzi_mt"
GROUND = [
    "errors",
    "resources",
    "yaml_io",
    "settings",
    "denoising_settings",
    "config",
    "sandbox",
    "native_expressions",
    "native_jinja",
    "conditions",
    "page",
    "summaries",
]
ROOMS = [
    "tasks",
    "prompts",
    "data",
    "corpora",
    "models",
    "runtimes",
    "training",
    "pretraining",
    "evaluation",
    "compression",
    "sdk",
    "cli",
]
APART = {
    ("tasks", "prompts"),
    ("prompts", "tasks"),
    ("training", "evaluation"),
    ("evaluation", "training"),
    ("evaluation", "pretraining"),
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mengzi_mt."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mengzi_mt.")}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_downwards(path):
    room = path.relative_to(PACKAGE).parts[0]
    for other in imported(path) - set(GROUND) - {room}:
        assert ROOMS.index(other) < ROOMS.index(room), f"{room} imports {other}"
        assert (room, other) not in APART


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_imports_no_room(name):
    assert not imported(PACKAGE / f"{name}.py") & set(ROOMS)


def test_every_room_is_in_the_order():
    assert {path.relative_to(PACKAGE).parts[0] for path in MODULES} == set(ROOMS)
