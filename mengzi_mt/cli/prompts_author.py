"""``mengzi-mt prompts new`` and ``stats``: a starter for authors, and what the registry holds."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt.cli.common import AsJson, print_json, print_table
from mengzi_mt.errors import InputError, nearest

if TYPE_CHECKING:
    from mengzi_mt.tasks.task import Task

_HEADER = """\
# 这是任务 {name}（{title}）的提示模板草稿，能直接通过检查。
#
# 这个任务的一行数据有这些字段（在模板里写 {{{{ 字段名 }}}}）：
{fields}
{labels}#
# 写法：
#   - 输入和答案之间用一个 ||| 隔开，不要放进 if 或 for 里；
#   - 选择题写 answer_choices，答案写 {{{{ answer_choices[…] }}}}，不要把标签词再抄一遍；
#   - 用全角标点，读一遍，像人说的话才算写好；
#   - 每个模板要有自己的句式（指令、提问、填空、对话……），不要只换一个词；
#   - id 一旦提交就不再改；要废弃一个模板，在 metadata 里写 deprecated: true。
# 写完运行：mengzi-mt prompts check {name}，再看看效果：mengzi-mt prompts render {name}
"""
_TYPES = {
    "string": "文本",
    "integer": "整数",
    "number": "数",
    "boolean": "真或假",
    "strings": "文本列表",
    "label": "标签的序号（从 0 起）",
    "index": "正确选项的序号（从 0 起）",
    "entities": "实体列表，每个有 text、type、start、end",
    "answers": "答案列表，每个有 text、start",
    "object": "原样的对象",
    "objects": "对象列表",
}


def new(
    name: Annotated[str, typer.Argument(help="Task.")],
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default the task's own, or standard output where that exists.")
    ] = None,
) -> None:
    """Write a commented starter template for a task that already passes the check."""
    from mengzi_mt.resources import registry_entry
    from mengzi_mt.tasks.registry import get_task

    task = get_task(name)
    text = starter(task)
    own = registry_entry("tasks", name).parent.parent / "prompts" / name / "templates.yaml"
    target = output or (None if own.exists() else own)
    if target is None:
        typer.echo(text, nl=False)
        typer.secho(f"(not written: {own} exists; add this entry to it, or choose --output)", err=True)
        return
    if target.exists():
        raise InputError("The file exists already", where=str(target), fix="choose another --output")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    typer.secho(f"wrote {target}", err=True)


def starter(task: Task) -> str:
    """The YAML of one template with its explanation, for any task."""
    from mengzi_mt.prompts.template import Template, TemplateMetadata
    from mengzi_mt.prompts.template_set import TemplateSet, dump_templates

    jinja, choices = _starter_template(task)
    metadata = TemplateMetadata(
        original_task=True,
        choices_in_prompt="answer_choices | join" in jinja,
        metrics=("Accuracy",) if choices else ("Other",),
        languages=("zh",),
        extra={"skip_if": condition} if (condition := _starter_condition(task)) else {},
    )
    identifier = str(uuid.uuid4())
    template = Template(identifier, "my_first_template", jinja, task.name, choices, metadata=metadata)
    fields = "\n".join(
        f"#   {key}：{_TYPES[spec.type]}" + "（可能没有，没有时是空的）" * spec.optional + "（太长时会截短）" * bool(spec.shrink)
        for key, spec in task.fields.items()
    )
    words = "、".join((task.labels or {}).values())
    labels = f"# 标签词（answer_choices 写 '@labels'）：{words}\n" if words else ""
    header = _HEADER.format(name=task.name, title=task.title.zh, fields=fields, labels=labels)
    return header + dump_templates(TemplateSet(task.name, (template,)))


def _starter_template(task: Task) -> tuple[str, str | None]:
    """Input and target of the simplest honest prompt: every text field by name, then the answer."""
    texts = [key for key, spec in task.fields.items() if spec.type == "string" and (not spec.optional or not _required(task))]
    gold = _first_of(task, "label") or _first_of(task, "index")
    options = _first_of(task, "strings")
    if gold and (task.fields[gold].type == "label" or options):
        labels = task.fields[gold].type == "label"
        ask = "请从{{ answer_choices | join('、') }}中选出正确的一项。\n答案：|||{{ answer_choices[" + gold + "] }}"
        return f"{_shown(texts)}\n{ask}", "@labels" if labels else "{{ " + str(options) + " | join(' ||| ') }}"
    target = _free_target(task)
    if target is None and len(texts) > 1:
        target = "{{ " + texts.pop() + " }}"
    if target is None:
        return "接着写下去：{{ " + texts[0] + "[:-1] }}|||{{ " + texts[0] + "[-1:] }}", None
    return f"{_shown(texts)}\n请写出答案。\n答案：|||{target}", None


def _shown(texts: list[str]) -> str:
    return "\n".join(f"{key}：{{{{ {key} }}}}" for key in texts)


def _required(task: Task) -> list[str]:
    return [key for key, spec in task.fields.items() if spec.type == "string" and not spec.optional]


def _first_of(task: Task, kind: str) -> str | None:
    """The first field of a type (a label of another set than the main one does not count)."""
    return next((key for key, spec in task.fields.items() if spec.type == kind and not spec.labels), None)


def _free_target(task: Task) -> str | None:
    """What a target without choices prints, from the first field that holds answers."""
    if answers := _first_of(task, "answers"):
        return "{{ " + answers + "[0].text }}"
    if entities := _first_of(task, "entities"):
        return "{{ " + entities + " | map(attribute='text') | unique(case_sensitive=true) | join('，') or '无' }}"
    if objects := _first_of(task, "objects"):
        key = next(iter(task.fields[objects].items))
        return "{{ " + objects + f" | map(attribute='{key}') | unique(case_sensitive=true) | join('，') or '无' }}}}"
    if strings := _first_of(task, "strings"):
        return "{{ " + strings + " | join('，') }}"
    return None


def _starter_condition(task: Task) -> str | None:
    """What the starter must skip: rows whose answer would be empty."""
    conditions = []
    if not any(_first_of(task, kind) for kind in ("label", "index", "answers", "entities", "objects")):
        conditions += [f"not {key}" for key in [_first_of(task, "strings")] if key]
    if not _required(task):
        conditions += [f"{key} is not defined" for key, spec in task.fields.items() if spec.type == "string"]
    return " or ".join(conditions) or None


def stats(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None, as_json: AsJson = False
) -> None:
    """How many templates there are, of what kind, per task and in all."""
    from mengzi_mt.prompts.listing import template_summaries
    from mengzi_mt.tasks.listing import task_summaries

    tasks = {task["name"]: task for task in task_summaries()}
    for name in names or ():
        if name not in tasks:
            raise InputError(f"There is no task {name!r}", where="tasks", fix=nearest(name, tasks))
    lines: list[dict[str, Any]] = []
    for name, templates in template_summaries(names or list(tasks)).items():
        lines.append(
            {
                "task": name,
                "role": tasks[name]["role"],
                "category": tasks[name]["category"],
                "templates": len(templates),
                "original_task": sum(bool(t["original_task"]) for t in templates),
                "with_choices": sum(t["choices"] for t in templates),
                "choices_listed": sum(bool(t["choices_in_prompt"]) for t in templates),
                "for_evaluation": sum(bool(t["original_task"] and not t["skips_rows"]) for t in templates),
                "deprecated": sum(t["deprecated"] for t in templates),
            }
        )
    counted = ("templates", "original_task", "with_choices", "choices_listed", "for_evaluation", "deprecated")
    total = {key: sum(line[key] for line in lines) for key in counted}
    by_category = Counter[str]()
    for line in lines:
        by_category[line["category"]] += line["templates"]
    if as_json:
        whole = {"tasks": len(lines), **total, "fewest_of_a_task": min((line["templates"] for line in lines), default=0)}
        print_json({"tasks": lines, "categories": dict(by_category), "total": whole})
        return
    columns = ("task", "role", "category", *counted)
    rows = [tuple(line[key] for key in columns) for line in lines]
    title = f"{total['templates']} templates of {len(lines)} tasks"
    print_table(title, columns, [*rows, ("all", "", "", *total.values())], counted)
