"""Where the shipped files are: ``tasks/``, ``prompts/``, ``suites/``, ``recipes/``, ``models/``.

In a checkout they stand at the repository's root; an installed wheel carries them under
``mengzi_mt/resources/`` (see ``pyproject.toml``).
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_root() -> Path:
    """The folder that holds ``tasks/``, ``prompts/``, ``suites/`` and ``recipes/``."""
    installed = _PACKAGE / "resources"
    return installed if (installed / "tasks").is_dir() else _PACKAGE.parent


def resource_dir(kind: str) -> Path:
    """The folder of one kind of shipped files, for instance ``resource_dir("tasks")``."""
    return resource_root() / kind


def registry_dirs(kind: str) -> list[Path]:
    """The folders of ``tasks`` or ``prompts``: those that ``MENGZI_MT_REGISTRY`` adds, then the shipped one.

    The variable names folders (separated as in ``PATH``) that hold ``tasks/`` and ``prompts/`` of one's own; an entry
    there goes before a shipped one of the same name.
    """
    own = [Path(folder) / kind for folder in os.environ.get("MENGZI_MT_REGISTRY", "").split(os.pathsep) if folder]
    return [*(folder for folder in own if folder.is_dir()), resource_dir(kind)]


def registry_entry(kind: str, name: str) -> Path:
    """The folder of one task's files or templates, in the first registry that has it (or where the shipped one would be)."""
    return next((folder / name for folder in registry_dirs(kind) if (folder / name).is_dir()), resource_dir(kind) / name)


def resolve(name: str) -> str:
    """A folder as given, or below the shipped files (``models/mengzi-mt-mini``); anything else is a hub name."""
    shipped = resource_root() / name
    return str(shipped) if not Path(name).exists() and shipped.exists() else name
