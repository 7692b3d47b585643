"""``mengzi-mt prompts check``: every template on every row, for authors and for CI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mengzi_mt.cli.common import DataDir, DataMapOption, data_source, print_json, print_table
from mengzi_mt.errors import InputError, MengziError, RunError, nearest

if TYPE_CHECKING:
    from mengzi_mt.prompts.check import TemplateCheck, TokenRules
    from mengzi_mt.tasks.task import Task

BUNDLED_TOKENIZER = "mengzi-mt-mini"


def check(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    form: Annotated[str, typer.Option("--format", help="text, json, or github (annotations in a workflow).")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    tokenizer: Annotated[str, typer.Option(help="A tokenizer's folder or hub name, or none.")] = BUNDLED_TOKENIZER,
    max_input: Annotated[int, typer.Option(min=8, help="Input tokens from which an example is cut.")] = 512,
    max_target: Annotated[int, typer.Option(min=4, help="Target tokens from which it is left out.")] = 128,
    report_file: Annotated[Path | None, typer.Option("--output", help="Also write the whole report as JSON here.")] = None,
) -> None:
    """Render every template on every row of the sample and, with --data-dir, of every real file at hand; exit 1 on errors.

    Without --data-map, files under their official names are read, and those that a shipped data map names.
    """
    from mengzi_mt.tasks.registry import get_task, task_names

    form = "json" if as_json else form
    if form not in ("text", "json", "github"):
        raise InputError(f"Unknown format {form!r}", where="--format", fix=nearest(form, ["text", "json", "github"]))
    rules = _token_rules(tokenizer, max_input, max_target)
    tasks = [get_task(name) for name in names or task_names()]
    report = []
    for task in tasks:
        entry = _check_task(task, data_dir, data_map, rules)
        report.append(entry)
        _print_entry(entry, form)
    shared = _shared_ids(tasks)
    for entry in shared:
        _print_entry(entry, form)
    report += shared
    if form == "json":
        print_json([finding for entry in report for finding in entry["findings"]])
    if report_file:
        import json

        report_file.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    if form == "text":
        _print_total(report)
    errors = sum(finding["severity"] == "error" for entry in report for finding in entry["findings"])
    if errors:
        raise RunError(f"{errors} errors in templates", fix="see the lines above")


def _token_rules(name: str, max_input: int, max_target: int) -> TokenRules | None:
    if name == "none":
        return None
    from mengzi_mt.data.tokens import Encoder
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.prompts.check import TokenRules
    from mengzi_mt.resources import resource_dir

    bundled = resource_dir("models") / BUNDLED_TOKENIZER
    if name == BUNDLED_TOKENIZER and not bundled.is_dir():
        return None
    loaded = load_tokenizer(bundled if name == BUNDLED_TOKENIZER else name)
    pieces = loaded.convert_ids_to_tokens(list(range(len(loaded))))
    spelled = frozenset(number for number, piece in enumerate(pieces) if re.fullmatch("<0x[0-9A-F]{2}>", str(piece)))
    unknown = frozenset() if loaded.unk_token_id is None else frozenset([int(loaded.unk_token_id)])
    return TokenRules(Encoder(loaded), unknown, spelled, max_input, max_target)


def _check_task(task: Task, data_dir: Path | None, data_map: str | None, rules: TokenRules | None) -> dict[str, Any]:
    """What checking one task gave: counts of rows, a line a template, findings."""
    from mengzi_mt.data.examples import bound_templates
    from mengzi_mt.prompts.check import Schema, check_templates
    from mengzi_mt.tasks.at_hand import source_at_hand
    from mengzi_mt.tasks.rows import DataSource, available_splits, has_sample, load_rows

    file = f"prompts/{task.name}/templates.yaml"
    rows: list[tuple[str, dict[str, Any]]] = []
    counts = {"sample": 0, "read": 0, "groups": 0, "skipped": 0, "bad": 0}
    try:
        sample = DataSource("sample")
        splits = available_splits(task, sample) if has_sample(task) else []
        rows += [(f"sample:{r.row_id}", r.values) for s in splits for r in load_rows(task, s, sample)]
        counts["sample"] = len(rows)
        if data_dir is not None:
            if data_map:
                source = data_source("files", data_dir, data_map)
                splits = available_splits(task, source)
            else:
                source, splits = source_at_hand(task, data_dir)
            for split in splits:
                loaded = load_rows(task, split, source)
                rows += [(row.row_id, row.values) for row in loaded]
                for key in ("read", "groups", "skipped", "bad"):
                    counts[key] += getattr(loaded.counts, key)
        optional = frozenset(key for key, spec in task.fields.items() if spec.optional)
        schema = Schema(frozenset(task.fields), task.gold_fields, optional)
        checks = check_templates(bound_templates(task), schema, rows, rules)
    except MengziError as error:
        finding: dict[str, Any] = {
            "severity": "error", "file": _file_of(error.where) or file, "line": _line_of(error.where), "template": None,
            "message": error.paragraph(), "count": 1, "rows": [],
        }  # fmt: skip
        return {"task": task.name, "counts": counts, "templates": [], "findings": [finding]}
    return {"task": task.name, "counts": counts, "templates": _lines(checks), "findings": _findings(file, checks)}


def _lines(checks: Iterable[TemplateCheck]) -> list[dict[str, Any]]:
    return [
        {
            "template": check.template.name,
            "answer": "choices" if check.template.answer_choices else "free",
            "rendered": check.rendered,
            "skipped": check.skipped,
            "coverage": check.coverage,
            "for_evaluation": bool(check.template.metadata.original_task and not check.template.skip_if),
            "lengths": None
            if check.lengths is None
            else {
                "measured": check.lengths.measured,
                "inputs": check.lengths.inputs,
                "targets": check.lengths.targets,
                "cut": check.lengths.cut,
                "dropped": check.lengths.dropped,
            },
            "leak_tested": check.leak_tested,
            "findings": len(check.findings),
        }
        for check in checks
    ]


def _findings(file: str, checks: Iterable[TemplateCheck]) -> list[dict[str, Any]]:
    return [
        {
            "severity": finding.severity, "file": file, "line": finding.line, "template": finding.template,
            "message": finding.message, "count": finding.count, "rows": finding.rows,
        }
        for check in checks for finding in check.findings.values()
    ]  # fmt: skip


def _shared_ids(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """Findings on ids that templates of two tasks of the whole registry share, where one of the tasks is checked."""
    from mengzi_mt.prompts.template_set import load_templates
    from mengzi_mt.tasks.registry import task_names

    checked = {task.name for task in tasks}
    owners: dict[str, str] = {}
    findings: list[dict[str, Any]] = []
    for name in task_names():
        try:
            templates = list(load_templates(name))
        except MengziError:
            continue  # reported where the task itself is checked
        for template in templates:
            owner = owners.setdefault(template.id, name)
            if owner != name and checked & {owner, name}:
                findings.append(
                    {
                        "severity": "error", "file": f"prompts/{name}/templates.yaml", "line": template.line,
                        "template": template.name, "message": f"its id is that of a template of {owner!r}", "count": 1, "rows": [],
                    }
                )  # fmt: skip
    return [{"task": "(all)", "counts": {}, "templates": [], "findings": findings}] if findings else []


def _print_entry(entry: dict[str, Any], form: Literal["text", "json", "github"] | str) -> None:
    if form == "text" and entry["templates"]:
        columns = (
            "template", "answer", "rendered", "skipped", "evaluates", "tokens in p50/95/99", "out p50/95/99", "cut", "findings",
        )  # fmt: skip
        lines = []
        for line in entry["templates"]:
            lengths = line["lengths"] or {"inputs": (), "targets": (), "cut": 0.0}
            lines.append(
                (line["template"], line["answer"], line["rendered"], line["skipped"], "yes" if line["for_evaluation"] else "",
                 "/".join(map(str, lengths["inputs"])), "/".join(map(str, lengths["targets"])),
                 f"{lengths['cut']:.0%}" if lengths["cut"] else "", line["findings"] or "")
            )  # fmt: skip
        counts = entry["counts"]
        title = f"{entry['task']}: {len(lines)} templates × ({counts['sample']} sample + {counts['read']} real rows"
        print_table(f"{title}, {counts['skipped']} skipped)", columns, lines, columns[2:])
    if form != "json":
        for finding in entry["findings"]:
            typer.echo(_annotation(finding) if form == "github" else _sentence(finding))


def _print_total(report: list[dict[str, Any]]) -> None:
    columns = ("task", "templates", "sample rows", "real rows", "groups", "skipped", "bad", "renderings", "errors", "warnings")
    lines = [
        (entry["task"], len(entry["templates"]), c["sample"], c["read"], c["groups"], c["skipped"], c["bad"],
         sum(line["rendered"] for line in entry["templates"]),
         sum(f["severity"] == "error" for f in entry["findings"]), sum(f["severity"] == "warning" for f in entry["findings"]))
        for entry in report if (c := entry["counts"])
    ]  # fmt: skip
    total = ("all", *(sum(line[i] for line in lines) for i in range(1, len(columns))))
    print_table("checked", columns, [*lines, total], columns[1:])


def _sentence(finding: dict[str, Any]) -> str:
    place = f"{finding['file']}{':' + str(finding['line']) if finding['line'] else ''}"
    who = f", template {finding['template']!r}" if finding["template"] else ""
    rows = f" ({finding['count']} times, e.g. {', '.join(finding['rows'])})" if finding["rows"] else ""
    return f"{finding['severity']}: {place}{who}: {finding['message']}{rows}"


def _annotation(finding: dict[str, Any]) -> str:
    """A workflow command: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    line = f",line={finding['line']}" if finding["line"] else ""
    title = f",title={finding['template']}" if finding["template"] else ""
    rows = f" ({finding['count']} times, e.g. {', '.join(finding['rows'])})" if finding["rows"] else ""
    message = f"{finding['message']}{rows}".replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{finding['severity']} file={finding['file']}{line}{title}::{message}"


def _line_of(where: str | None) -> int | None:
    match = re.search(r", line (\d+)", where or "")
    return int(match[1]) if match else None


def _file_of(where: str | None) -> str | None:
    match = re.match(r"(.+?\.(?:yaml|jsonl|json|csv|tsv|txt)), ", where or "")
    return match[1] if match else None
