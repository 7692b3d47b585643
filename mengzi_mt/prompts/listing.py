"""What listings show of templates, without reading more files than have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.resources import registry_entry
from mengzi_mt.summaries import summaries


def template_summaries(tasks: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Name, id and metadata of every template, by task, in the order of their files.

    Raises:
        InputError: a task without templates, or a file that does not read.
    """
    files = [registry_entry("prompts", task) / "templates.yaml" for task in tasks]
    for task, path in zip(tasks, files, strict=True):
        if not path.is_file():
            raise InputError(f"The task {task!r} has no templates", where=str(path), fix="write them, or choose another task")
    return dict(zip(tasks, summaries("prompts", files, _summary), strict=True))


def _summary(path: Path) -> list[dict[str, Any]]:
    from mengzi_mt.prompts.template_set import read_template_file

    return [
        {
            "task": path.parent.name,
            "name": template.name,
            "id": template.id,
            "choices": template.answer_choices is not None,
            "choices_in_prompt": template.metadata.choices_in_prompt,
            "original_task": template.metadata.original_task,
            "metrics": list(template.metadata.metrics),
            "skips_rows": template.skip_if is not None,
            "deprecated": bool(template.metadata.extra.get("deprecated")),
        }
        for template in read_template_file(path)
    ]
