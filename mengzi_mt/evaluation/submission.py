"""Leaderboard submissions: written in the exact format, and validated before anybody uploads them."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.rows import DataSource, load_rows
from mengzi_mt.tasks.task import Task

TEST_SPLIT = "test"
_ID_TYPES: dict[str, type] = {"integer": int, "string": str}


def combine_templates(task: Task, path: Path, template: str | None = None) -> list[tuple[Any, int]]:
    """One prediction a row from ``predictions/<task>.jsonl``: ``(id, index of the choice)`` in the file's order.

    With ``template``, that template's; otherwise the choice with the highest mean probability over all templates.

    Raises:
        InputError: no predictions, or none of that template.
    """
    if not path.is_file():
        raise InputError(
            f"There are no predictions for the task {task.name!r}", where=str(path), fix="run evaluate with --split test first"
        )
    totals: dict[str, list[float]] = {}
    identifiers: dict[str, Any] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if template not in (None, record["template"]):
                continue
            if "log_probabilities" not in record:
                raise InputError(
                    f"The template {record['template']!r} ranks no choices", where=str(path), fix="choose one that does"
                )
            probabilities = _softmax(record["log_probabilities"])
            summed = totals.setdefault(record["row_id"], [0.0] * len(probabilities))
            totals[record["row_id"]] = [a + b for a, b in zip(summed, probabilities, strict=True)]
            identifiers[record["row_id"]] = record["id"]
    if not totals:
        raise InputError(
            f"There are no predictions of the template {template!r}", where=str(path), fix="name one that was evaluated"
        )
    return [(identifiers[row], max(range(len(p)), key=p.__getitem__)) for row, p in totals.items()]


def _softmax(log_probabilities: list[float]) -> list[float]:
    top = max(log_probabilities)
    shares = [math.exp(value - top) for value in log_probabilities]
    total = sum(shares)
    return [share / total for share in shares]


def write_submission(
    tasks: Iterable[Task], predictions: Path, target: Path, template: dict[str, str] | None = None
) -> dict[str, int]:
    """Write the zip with one ``<task>_predict.json`` a task; returns the lines of each file.

    Args:
        tasks: tasks with a ``submission`` in their ``task.yaml``.
        predictions: folder with ``<task>.jsonl`` of an evaluation of the test split.
        target: the zip to write.
        template: chosen template per task; the mean over templates otherwise.
    """
    files: dict[str, list[str]] = {}
    for task in tasks:
        spec = task.submission
        if spec is None:
            raise InputError(f"The task {task.name!r} has no leaderboard", where=f"tasks/{task.name}/task.yaml", fix="leave it out")
        chosen = combine_templates(task, predictions / f"{task.name}.jsonl", (template or {}).get(task.name))
        files[spec.file] = [
            json.dumps(
                {"id": identifier, spec.key: task.raw_label(choice) if spec.value == "raw_string" else choice}, ensure_ascii=False
            )
            for identifier, choice in chosen
        ]
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".unfinished")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in files.items():
            archive.writestr(name, "\n".join(lines) + "\n")
    beside.rename(target)
    return {name: len(lines) for name, lines in files.items()}


def validate_submission(path: Path, tasks: Iterable[Task], source: DataSource | None = None) -> list[str]:
    """Everything that is wrong with a submission; an empty list where the leaderboard would accept it.

    Args:
        path: the zip.
        tasks: the tasks that must be in it.
        source: real files to compare ids with; without, names, types, labels and counts are checked.
    """
    tasks = list(tasks)
    problems: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        return [f"{path} is no zip file: {error}"]
    wanted = {task.submission.file: task for task in tasks if task.submission}
    for name in sorted(set(files) - set(wanted)):
        problems.append(f"{name}: no task of the leaderboard has a file of this name (expected {', '.join(sorted(wanted))})")
    for name, task in wanted.items():
        if name not in files:
            problems.append(f"{name} is missing")
        else:
            problems += [f"{name}: {problem}" for problem in _file_problems(files[name], task, source)]
    return problems


def _file_problems(data: bytes, task: Task, source: DataSource | None) -> list[str]:
    spec = task.submission
    assert spec is not None
    problems: list[str] = []
    identifiers: list[Any] = []
    try:
        lines = data.decode("utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        return [f"it is no UTF-8 text (byte {error.start})"]
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"line {number} is no JSON object: {error.msg}")
            continue
        if not isinstance(record, dict) or set(record) != {"id", spec.key}:
            problems.append(f'line {number} must have exactly the keys "id" and "{spec.key}"')
            continue
        identifiers.append(record["id"])
        problem = _value_problem(record[spec.key], task)
        if problem:
            problems.append(f"line {number}: {problem}")
    problems += _identifier_problems(identifiers, task, source)
    return problems[:10] + ([f"and {len(problems) - 10} more"] if len(problems) > 10 else [])


def _value_problem(value: Any, task: Task) -> str | None:
    assert task.submission is not None
    if task.submission.value == "index":
        return None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else f"{value!r} is no index"
    if not isinstance(value, str):
        return f"the label {value!r} must be text, not {type(value).__name__}"
    return None if value in (task.labels or {}) else f"{value!r} is no label of the task"


def _identifier_problems(identifiers: list[Any], task: Task, source: DataSource | None) -> list[str]:
    assert task.submission is not None
    problems = []
    if len(set(map(repr, identifiers))) != len(identifiers):
        problems.append("an id occurs twice")
    kind = _ID_TYPES.get(task.fields[task.submission.id].type)
    wrong = [identifier for identifier in identifiers if kind and type(identifier) is not kind]
    if kind and wrong:
        problems.append(f"the id {wrong[0]!r} must be {kind.__name__}, not {type(wrong[0]).__name__}")
    sizes = task.split_sizes if isinstance(task.split_sizes, dict) else {}
    expected = sizes.get(TEST_SPLIT)
    if source is not None:
        wanted = [row.values.get(task.submission.id) for row in load_rows(task, TEST_SPLIT, source)]
        if len(identifiers) != len(wanted):
            problems.append(f"it has {len(identifiers):,} lines, the test file {len(wanted):,}")
        missing = set(map(repr, wanted)) - set(map(repr, identifiers))
        foreign = set(map(repr, identifiers)) - set(map(repr, wanted))
        if missing or foreign:
            sample = sorted(missing or foreign)[0]
            problems.append(
                f"ids differ from the test file's: {len(missing)} missing, {len(foreign)} foreign, e.g. {sample} (mind the type)"
            )
    elif isinstance(expected, int) and len(identifiers) != expected:
        problems.append(f"it has {len(identifiers):,} lines, expected {expected:,}")
    return problems
