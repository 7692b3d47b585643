"""``mengzi-mt prompts import`` and ``export``: template files from and for promptsource."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt.cli.common import AsJson, print_json, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.prompts.exchange import ForeignFile, Verdict
    from mengzi_mt.prompts.template_set import TemplateSet

Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]


def import_templates(
    source: Annotated[str, typer.Argument(help="A YAML file; with --from promptsource, a dataset such as super_glue/boolq.")],
    task: Annotated[str | None, typer.Option("--task", help="Task; by default the dataset and subset, joined by _.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="File; by default prompts/TASK/templates.yaml.")] = None,
    origin: Annotated[str, typer.Option("--from", help="file, or promptsource for the installed package's own.")] = "file",
    append: Annotated[bool, typer.Option("--append", help="Keep the file's templates and add these after them.")] = False,
    strict_only: Annotated[bool, typer.Option("--strict-only", help="Leave out what strict rendering refuses.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Take over templates from promptsource's format, and say which of them strict rendering refuses, and why."""
    from mengzi_mt.prompts.exchange import installed_file, joined, read_foreign_file
    from mengzi_mt.prompts.template_set import TemplateSet, dump_templates, read_template_file

    if origin not in ("file", "promptsource"):
        raise InputError(f"Unknown origin {origin!r}", where="--from", fix="use file or promptsource")
    if append and force:
        raise InputError("--append keeps what --force throws away", where="prompts import", fix="choose one of the two")
    foreign = read_foreign_file(installed_file(source) if origin == "promptsource" else Path(source))
    name = _task_name(task, foreign.dataset)
    target = output or _own_file(name)
    verdicts = _judge_all(foreign, name)
    kept = [verdict for verdict in verdicts if verdict.renders == "strict" or not strict_only]
    chosen = {verdict.template.id for verdict in kept}
    templates = TemplateSet(name, tuple(t for t in foreign.named(name) if t.id in chosen))
    if not chosen:
        raise InputError("Strict rendering refuses every template of the file", where=source, fix="leave --strict-only out")
    if append and target.exists():
        templates = joined(read_template_file(target), templates, str(target))
    _write(target, dump_templates(templates), force or append)
    report = _report(foreign, name, target, verdicts, chosen)
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def export_templates(
    name: Annotated[str, typer.Argument(help="Task.")],
    output: Annotated[Path | None, typer.Option("--output", help="File; by default standard output.")] = None,
    force: Force = False,
) -> None:
    """Write a task's templates with its label words written out, as promptsource reads them."""
    from mengzi_mt.prompts.template_set import dump_templates

    text = dump_templates(_bound(name))
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text, force)
        typer.secho(f"wrote {output}", err=True)


def add_commands(app: typer.Typer) -> None:
    """Register both commands."""
    app.command("import")(import_templates)
    app.command("export")(export_templates)


def _bound(name: str) -> TemplateSet:
    """A task's templates, bound to its label words; those of a folder without a task as they are."""
    from mengzi_mt.data.examples import bound_templates
    from mengzi_mt.prompts.template_set import load_templates
    from mengzi_mt.resources import registry_entry
    from mengzi_mt.tasks.registry import get_task, task_names

    if name not in task_names() and registry_entry("prompts", name).is_dir():
        return load_templates(name, {})
    return bound_templates(get_task(name))


def _task_name(given: str | None, dataset: str) -> str:
    name = given or re.sub(r"\W+", "_", dataset).strip("_").lower()
    if not re.fullmatch(r"\w[\w-]*", name):
        raise InputError(f"{name!r} is no task name", where="--task", fix="use letters, digits, _ and -")
    return name


def _own_file(name: str) -> Path:
    """Where a task's templates are, or would be: in the first registry."""
    from mengzi_mt.prompts.template_set import TEMPLATES_FILE
    from mengzi_mt.resources import registry_dirs, registry_entry

    entry = registry_entry("prompts", name)
    return (entry if entry.is_dir() else registry_dirs("prompts")[0] / name) / TEMPLATES_FILE


def _judge_all(foreign: ForeignFile, name: str) -> list[Verdict]:
    from mengzi_mt.prompts.exchange import judge
    from mengzi_mt.tasks.registry import get_task, task_names

    if name not in task_names():
        return [judge(template) for template in foreign.named(name)]
    task = get_task(name)
    return [judge(template, set(task.fields), task.label_sets()) for template in foreign.named(name)]


def _write(target: Path, text: str, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise InputError("The file exists already", where=str(target), fix="choose another --output, or say --force")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The file cannot be written: {error.strerror}", where=str(target), fix="choose another --output"
        ) from error


def _report(foreign: ForeignFile, name: str, target: Path, verdicts: list[Verdict], chosen: set[str]) -> dict[str, Any]:
    from mengzi_mt.tasks.registry import task_names

    return {
        "dataset": foreign.dataset,
        "task": name,
        "task_exists": name in task_names(),
        "file": str(target),
        "fields": sorted({field for verdict in verdicts for field in verdict.names}),
        "keys_left_out": dict(foreign.dropped),
        "templates": [
            {
                "id": verdict.template.id,
                "name": verdict.template.name,
                "renders": verdict.renders,
                "reasons": list(verdict.reasons),
                "written": verdict.template.id in chosen,
            }
            for verdict in verdicts
        ],
    }


def _print_report(report: Mapping[str, Any]) -> None:
    templates = report["templates"]
    lines = [
        (item["name"], item["renders"], "; ".join(item["reasons"]) + ("" if item["written"] else " (left out)"))
        for item in templates
    ]
    written = sum(item["written"] for item in templates)
    print_table(f"{report['dataset']}: {len(templates)} templates", ("template", "renders", "why not strict"), lines)
    for key, count in report["keys_left_out"].items():
        typer.echo(f"left out: the key {key!r} of {count} templates, which has no place here")
    typer.echo(f"wrote {written} of {len(templates)} templates for the task {report['task']!r}: {report['file']}")
    if not report["task_exists"]:
        typer.echo(f"there is no task {report['task']!r} yet; the templates read these fields: {', '.join(report['fields'])}")
    if any(item["renders"] != "strict" and item["written"] for item in templates):
        typer.echo("what strict rendering refuses, training refuses: rewrite it, or say --strict-only (docs/promptsource.md)")
