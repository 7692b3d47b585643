"""``mengzi-mt tasks``: what tasks there are, and whether their files read."""

from __future__ import annotations

from typing import Annotated

import typer

from mengzi_mt.cli.common import AsJson, DataDir, DataMapOption, data_source, print_json, print_table
from mengzi_mt.errors import MengziError, RunError

app = typer.Typer(help="The registry of tasks.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    role: Annotated[str | None, typer.Option(help="Only train or zero_shot tasks.")] = None, as_json: AsJson = False
) -> None:
    """Every task: name, category, role, number of templates."""
    from mengzi_mt.prompts.listing import template_summaries
    from mengzi_mt.tasks.listing import task_summaries

    tasks = [task for task in task_summaries() if role in (None, task["role"])]
    counts = {name: len(templates) for name, templates in template_summaries([task["name"] for task in tasks]).items()}
    if as_json:
        print_json([{**task, "templates": counts[task["name"]]} for task in tasks])
        return
    rows = [
        (t["name"], t["title"]["zh"], t["category"], t["role"], t["labels"] or "", counts[t["name"]],
         {True: "research only", False: ""}.get(t["research_only"], "?"))
        for t in tasks
    ]  # fmt: skip
    columns = ("task", "title", "category", "role", "labels", "templates", "licence")
    print_table(f"{len(tasks)} tasks", columns, rows, ("labels", "templates"))


@app.command("show")
def show(name: str, as_json: AsJson = False) -> None:
    """One task: fields, labels, licence, splits."""
    from mengzi_mt.tasks.registry import get_task

    task = get_task(name)
    if as_json:
        print_json(task.model_dump(mode="json", by_alias=True))
        return
    licence = task.licence
    rows = [
        ("title", f"{task.title.zh} · {task.title.en}"),
        ("category, role", f"{task.category}, {task.role}"),
        ("licence", f"{licence.name} (research only: {licence.research_only}; {licence.source})"),
        ("homepage", task.homepage),
        ("citation", task.citation),
        ("path", task.source.path),
        ("hub", task.source.hub if isinstance(task.source.hub, str) else task.source.hub.id),
        ("splits", "; ".join(f"{split}: {', '.join(files)}" for split, files in task.source.splits.items())),
        ("fields", "; ".join(f"{key}: {spec.type}{' (shrink)' if spec.shrink else ''}" for key, spec in task.fields.items())),
        ("labels", "、".join((task.labels or {}).values()) or "none"),
        ("metrics", ", ".join(task.metrics)),
        ("version", task.version),
    ]
    print_table(task.name, ("", ""), rows)


@app.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    as_json: AsJson = False,
) -> None:
    """Read every row of the bundled samples and, with --data-dir, of every real file at hand; count what is left out."""
    from mengzi_mt.tasks.at_hand import source_at_hand
    from mengzi_mt.tasks.registry import get_task, task_names
    from mengzi_mt.tasks.rows import DataSource, available_splits, load_rows

    sources = [DataSource("sample")]
    if data_dir is not None:
        sources.append(data_source("files", data_dir, data_map))
    report, errors = [], []
    for name in names or task_names():
        task = get_task(name)
        for source in sources:
            try:
                if source.kind == "files" and source.root and not source.data_map:
                    source, splits = source_at_hand(task, source.root)
                else:
                    splits = available_splits(task, source)
                if not splits:
                    errors.append(f"{name}: no split of it is complete under {source.root}")
                for split in splits:
                    rows = load_rows(task, split, source)
                    counts = rows.counts
                    report.append(
                        {
                            "task": name, "data": source.kind, "split": split, "rows": len(rows), "read": counts.read,
                            "groups": counts.groups, "skipped": counts.skipped, "bad": counts.bad,
                            "offsets_repaired": counts.repaired,
                        }
                    )  # fmt: skip
            except MengziError as error:
                errors.append(f"{name}: {error.paragraph()}")
    if as_json:
        print_json({"report": report, "errors": errors})
    elif report:
        columns = tuple(report[0])
        print_table("rows read", columns, [tuple(line.values()) for line in report], columns[3:])
    if errors:
        raise RunError(f"{len(errors)} problems: " + " | ".join(errors))
