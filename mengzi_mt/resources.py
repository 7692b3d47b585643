"""Where the shipped files are: ``tasks/``, ``prompts/``, ``suites/``, ``recipes/``, ``models/``.

In a checkout they stand at the repository's root; an installed wheel carries them under
``mengzi_mt/resources/`` (see ``pyproject.toml``).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_root() -> Path:
    """The folder that holds ``tasks/``, ``prompts/``, ``suites/`` and ``recipes/``."""
    installed = _PACKAGE / "resources"
    return installed if (installed / "tasks").is_dir() else _PACKAGE.parent


def resource_dir(kind: str) -> Path:
    """The folder of one kind of shipped files, for instance ``resource_dir("tasks")``."""
    return resource_root() / kind
