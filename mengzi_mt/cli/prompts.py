"""``mengzi-mt prompts``: list, check and look at templates."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mengzi_mt.cli.common import AsJson, DataDir, DataKind, DataMapOption, data_source, print_json, print_table
from mengzi_mt.errors import InputError, RunError

app = typer.Typer(help="Prompt templates.", no_args_is_help=True)


@app.command("list")
def list_prompts(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None, as_json: AsJson = False
) -> None:
    """Every template: task, name, whether it has choices."""
    from mengzi_mt.prompts.template_set import load_templates
    from mengzi_mt.tasks.registry import get_task, task_names

    templates = [template for name in names or task_names() for template in load_templates(get_task(name).name)]
    if as_json:
        print_json(
            [
                {
                    "task": t.task,
                    "name": t.name,
                    "id": t.id,
                    "choices": t.answer_choices is not None,
                    "choices_in_prompt": t.metadata.choices_in_prompt,
                    "original_task": t.metadata.original_task,
                    "metrics": list(t.metadata.metrics),
                }
                for t in templates
            ]
        )
        return
    rows = [
        (t.task, t.name, "choices" if t.answer_choices else "free", "" if t.metadata.original_task else "other use")
        for t in templates
    ]
    print_table(f"{len(templates)} templates", ("task", "template", "answer", ""), rows)


@app.command("render")
def render(
    name: Annotated[str, typer.Argument(help="Task.")],
    template: Annotated[str | None, typer.Option("--template", help="One template; all by default.")] = None,
    rows: Annotated[int, typer.Option(help="Rows to show.")] = 1,
    skip: Annotated[int, typer.Option(help="Rows to leave out first.")] = 0,
    split: Annotated[str | None, typer.Option(help="Split; by default the first one at hand.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    data: DataKind = None,
) -> None:
    """Show what templates render on chosen rows."""
    from mengzi_mt.conditions import compile_condition
    from mengzi_mt.data.examples import bound_templates
    from mengzi_mt.tasks.registry import get_task
    from mengzi_mt.tasks.rows import available_splits, load_rows

    task = get_task(name)
    source = data_source(data, data_dir, data_map, default="files" if data_dir else "sample")
    splits = [split] if split else available_splits(task, source)
    if not splits:
        raise InputError(f"No split of {name!r} is at hand", where=str(data_dir), fix="use --data sample or --data-map")
    templates = bound_templates(task)
    chosen = [templates[template]] if template else list(templates)
    for row in load_rows(task, splits[0], source, limit=skip + rows).rows[skip:]:
        for item in chosen:
            typer.secho(f"── {task.name} / {item.name} / {row.row_id}", fg="cyan")
            if item.skip_if and compile_condition(item.skip_if)(row.values):
                typer.echo("(skips this row)\n")
                continue
            labelled = not task.gold_fields or bool(task.gold_fields & set(row.values))
            if not labelled and item.compiled.input_names & task.gold_fields:
                typer.echo("(needs the answer, which this row does not have)\n")
                continue
            prompt = item.render(row.values, row.row_id, with_target=labelled)
            typer.echo(prompt.inputs)
            typer.secho(f"→ {prompt.targets if labelled else '?'}", fg="green")
            if prompt.choices:
                typer.secho(f"  choices: {' | '.join(prompt.choices)}"[:200], dim=True)
            typer.echo("")


@app.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    as_json: AsJson = False,
) -> None:
    """Render every template on every row of the sample and, with --data-dir, of the real files; exit 1 on errors."""
    from mengzi_mt.data.examples import bound_templates
    from mengzi_mt.prompts.check import check_templates
    from mengzi_mt.tasks.registry import get_task, task_names
    from mengzi_mt.tasks.rows import DataSource, available_splits, load_rows

    report: list[dict[str, Any]] = []
    sources = [DataSource("sample")] + ([data_source("files", data_dir, data_map)] if data_dir else [])
    for name in names or task_names():
        task = get_task(name)
        rows = [
            (f"{source.kind}:{row.row_id}", row.values)
            for source in sources
            for split in available_splits(task, source)
            for row in load_rows(task, split, source)
        ]
        optional = frozenset(key for key, spec in task.fields.items() if spec.optional)
        checks = check_templates(bound_templates(task), task.fields, task.gold_fields, optional, rows)
        for item in checks:
            for finding in item.findings.values():
                report.append(
                    {
                        "severity": finding.severity, "file": f"prompts/{name}/templates.yaml", "template": finding.template,
                        "message": finding.message, "count": finding.count, "rows": finding.rows,
                    }
                )  # fmt: skip
        if not as_json:
            lines = [
                (c.template.name, "choices" if c.template.answer_choices else "free", c.rendered, c.skipped, len(c.findings))
                for c in checks
            ]
            columns = ("template", "answer", "rendered", "skipped", "findings")
            print_table(f"{name}: {len(checks)} templates × {len(rows)} rows", columns, lines, columns[2:])
    if as_json:
        print_json(report)
    else:
        for line in report:
            typer.echo(f"{line['severity']}: {line['file']}, template {line['template']!r}: {line['message']} "
                       f"({line['count']} times, e.g. {', '.join(line['rows']) or 'always'})")  # fmt: skip
    errors = [line for line in report if line["severity"] == "error"]
    if errors:
        raise RunError(f"{len(errors)} errors in templates", fix="see the lines above")
