"""A task's templates as one YAML file in promptsource's format, read and written without loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.prompts.rendering import Cut
from mengzi_mt.prompts.template import LABEL_REFERENCE, Template, TemplateMetadata
from mengzi_mt.resources import registry_entry
from mengzi_mt.yaml_io import StrictLoader, load_yaml

TEMPLATES_FILE = "templates.yaml"
_OWN_KEYS = {"original_task", "choices_in_prompt", "metrics", "languages"}


class _Tagged(dict[str, Any]):
    """The mapping under a ``!Template`` or ``!TemplateMetadata`` tag, and the line where it begins."""

    line: int | None = None


class _TemplateLoader(StrictLoader):
    """The strict loader that also knows promptsource's two tags, and no other."""


def _construct_tagged(loader: Any, node: yaml.MappingNode) -> _Tagged:
    tagged = _Tagged(loader.construct_mapping(node, deep=True))
    tagged.line = node.start_mark.line + 1
    return tagged


_TemplateLoader.add_constructor("!Template", _construct_tagged)
_TemplateLoader.add_constructor("!TemplateMetadata", _construct_tagged)


@dataclass(frozen=True)
class TemplateSet:
    """The templates of one task, by name, in the order of their file."""

    task: str
    templates: tuple[Template, ...]
    subset: str | None = None

    def __iter__(self) -> Iterator[Template]:
        return iter(self.templates)

    def __len__(self) -> int:
        return len(self.templates)

    def __getitem__(self, name: str) -> Template:
        for template in self.templates:
            if name in (template.name, template.id):
                return template
        raise InputError(
            f"The task {self.task!r} has no template {name!r}",
            where=f"prompts/{self.task}/{TEMPLATES_FILE}",
            fix=nearest(name, [template.name for template in self.templates]),
        )

    def content_hash(self) -> str:
        """SHA-256 (first 16 hex digits) over everything that changes what the templates render."""
        content = [(t.id, t.jinja, t.answer_choices, sorted(t.shrink.items()), t.skip_if) for t in self.templates]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def load_templates(
    task: str,
    label_sets: Mapping[str, tuple[str, ...]] | None = None,
    shrink: Mapping[str, Cut] | None = None,
    root: Path | None = None,
) -> TemplateSet:
    """The templates of one task; with ``label_sets``, bound to the task's label words.

    Raises:
        InputError: naming file, line or template.
    """
    path = (root / task if root else registry_entry("prompts", task)) / TEMPLATES_FILE
    if not path.is_file():
        raise InputError(f"The task {task!r} has no templates", where=str(path), fix="write them, or choose another task")
    loaded = read_template_file(path)
    if label_sets is None:
        return loaded
    bound = []
    for template in loaded:
        try:
            bound.append(template.bound_to(label_sets, shrink))
        except KeyError as error:
            raise InputError(
                f"answer_choices names the label words {LABEL_REFERENCE}{error.args[0]}, which the task does not have",
                where=f"{path}, template {template.name!r}",
                fix=nearest(str(error.args[0]), label_sets),
            ) from error
    return TemplateSet(loaded.task, tuple(bound), loaded.subset)


def read_template_file(path: Path) -> TemplateSet:
    """Read one ``templates.yaml`` without binding it to a task."""
    raw = load_yaml(path, _TemplateLoader)
    if not isinstance(raw, dict) or not isinstance(raw.get("templates"), dict):
        raise InputError("The file has no mapping `templates`", where=str(path), fix="write `templates:` with one entry a template")
    task = str(raw.get("dataset", path.parent.name))
    templates = tuple(_template(path, task, str(key), value) for key, value in raw["templates"].items())
    names = [template.name for template in templates]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two templates are called {name!r}", where=str(path), fix="give each its own name")
    return TemplateSet(task, templates, raw.get("subset"))


def _template(path: Path, task: str, key: str, raw: Any) -> Template:
    where = f"{path}, template {key}"
    if not isinstance(raw, _Tagged):
        raise InputError("A template needs the tag !Template", where=where, fix="write `<id>: !Template`")
    for needed in ("name", "jinja"):
        if not isinstance(raw.get(needed), str) or not raw[needed].strip():
            raise InputError(f"The template has no {needed!r}", where=where, fix="add it")
    if str(raw.get("id") or key) != key:
        raise InputError(f"The template's id {raw.get('id')!r} differs from its key", where=where, fix="make the two equal")
    metadata = raw.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError("The template's metadata is no mapping", where=where, fix="write `metadata: !TemplateMetadata`")
    return Template(
        id=key,
        name=raw["name"],
        jinja=raw["jinja"],
        task=task,
        answer_choices=_answer_choices(raw, where),
        reference=raw.get("reference") or "",
        line=raw.line,
        metadata=TemplateMetadata(
            original_task=metadata.get("original_task"),
            choices_in_prompt=metadata.get("choices_in_prompt"),
            metrics=tuple(metadata.get("metrics") or ()),
            languages=tuple(metadata.get("languages") or ()),
            extra={name: value for name, value in metadata.items() if name not in _OWN_KEYS},
        ),
    )


def _answer_choices(raw: Mapping[str, Any], where: str) -> str | None:
    """The expression; old files have it as a list, or under ``answer_choices_key`` (promptsource, autumn 2021)."""
    choices = raw.get("answer_choices") or raw.get("answer_choices_key") or None
    if isinstance(choices, list):
        choices = " ||| ".join(map(str, choices))
    if not isinstance(choices, str | None):
        raise InputError(f"answer_choices is {choices!r}, no text", where=where, fix="quote it")
    return choices


class _TemplateDumper(yaml.SafeDumper):
    """Writes the two tags, Chinese as it is, and multi-line templates as block text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    block = "\n" in text and not any(line.endswith((" ", "\t")) for line in text.split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


class _TemplateEntry(dict[str, Any]):
    pass


class _MetadataEntry(dict[str, Any]):
    pass


_TemplateDumper.add_representer(str, _represent_text)
_TemplateDumper.add_representer(_TemplateEntry, lambda d, v: d.represent_mapping("!Template", v))
_TemplateDumper.add_representer(_MetadataEntry, lambda d, v: d.represent_mapping("!TemplateMetadata", v))


def dump_templates(templates: TemplateSet) -> str:
    """The YAML text of a template set, which promptsource reads too (bind the templates first to write choices out)."""
    entries: dict[str, Any] = {}
    for template in templates:
        metadata = _MetadataEntry(
            choices_in_prompt=template.metadata.choices_in_prompt,
            languages=list(template.metadata.languages),
            metrics=list(template.metadata.metrics),
            original_task=template.metadata.original_task,
            **template.metadata.extra,
        )
        entries[template.id] = _TemplateEntry(
            answer_choices=template.answer_choices,
            id=template.id,
            jinja=template.jinja,
            metadata=metadata,
            name=template.name,
            reference=template.reference,
        )
    document: dict[str, Any] = {"dataset": templates.task}
    if templates.subset is not None:
        document["subset"] = templates.subset
    document["templates"] = entries
    return yaml.dump(document, Dumper=_TemplateDumper, allow_unicode=True, sort_keys=False, width=10_000)
