"""Template files from and for promptsource: what a foreign file holds, and which of its templates strict rendering takes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import modifies_known_mutable

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.prompts.promptsource import PromptsourceTemplate, lenient_environment
from mengzi_mt.prompts.template import LABEL_REFERENCE, Template
from mengzi_mt.prompts.template_set import TEMPLATES_FILE, TemplateSet, read_template_file
from mengzi_mt.yaml_io import StrictLoader, load_yaml

INSTALL = "pip install --no-deps --ignore-requires-python promptsource==0.2.3"
_KEPT_KEYS = {"id", "name", "jinja", "reference", "answer_choices", "answer_choices_key", "metadata"}
_LABEL_LIST = re.compile(r"labels(?:_\w+)?")


class _TagLoader(StrictLoader):
    """Reads a tagged mapping as a plain one."""


for _tag in ("!Template", "!TemplateMetadata"):
    _TagLoader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


@dataclass(frozen=True)
class ForeignFile:
    """The templates of a file from elsewhere; ``dropped`` are keys that the record has no place for, with their counts."""

    templates: TemplateSet
    dropped: Mapping[str, int]

    @property
    def dataset(self) -> str:
        """Dataset and subset as promptsource writes them: ``super_glue/boolq``."""
        return "/".join(filter(None, (self.templates.task, self.templates.subset)))

    def named(self, task: str) -> TemplateSet:
        """The templates as those of one of our tasks."""
        return TemplateSet(task, tuple(replace(template, task=task) for template in self.templates))


@dataclass(frozen=True)
class Verdict:
    """Who can render a template: ``strict`` (ours), ``compat`` (promptsource's way alone) or ``none``, and why not strict."""

    template: Template
    renders: str
    reasons: tuple[str, ...]
    names: frozenset[str]


def read_foreign_file(path: Path) -> ForeignFile:
    """Read a template file of promptsource's, old forms included.

    Raises:
        InputError: naming file, line or template.
    """
    templates = read_template_file(path)
    if not len(templates):
        raise InputError("The file holds no templates", where=str(path), fix="choose another")
    raw: dict[str, dict[str, Any]] = load_yaml(path, _TagLoader)["templates"]
    dropped: dict[str, int] = {}
    for entry in raw.values():
        for key in entry.keys() - _KEPT_KEYS:
            dropped[key] = dropped.get(key, 0) + 1
    return ForeignFile(templates, dropped)


def installed_file(dataset: str) -> Path:
    """The template file of one dataset, or dataset/subset, of the installed promptsource, which is not imported for that.

    Raises:
        InputError: promptsource is not installed, or has no such dataset.
    """
    found = importlib.util.find_spec("promptsource")
    folders = [Path(place) / "templates" for place in (found.submodule_search_locations or ())] if found else []
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise InputError("promptsource is not installed", where="--from promptsource", fix=f"run: {INSTALL}")
    known = {path.parent.relative_to(folder).as_posix() for path in folder.rglob(TEMPLATES_FILE)}
    if dataset not in known:
        subsets = [name for name in known if name.startswith(f"{dataset}/")]
        raise InputError(
            f"promptsource has no templates for {dataset!r}", where="--from promptsource", fix=nearest(dataset, subsets or known)
        )
    return folder / dataset / TEMPLATES_FILE


def joined(existing: TemplateSet, added: TemplateSet, where: str) -> TemplateSet:
    """The existing templates and after them the added ones.

    Raises:
        InputError: an id or a name that stands in both.
    """
    for what in ("id", "name"):
        twice = sorted({getattr(t, what) for t in existing} & {getattr(t, what) for t in added})
        if twice:
            raise InputError(
                f"The file already has a template with the {what} {twice[0]!r}"
                + (f" (and {len(twice) - 1} more of the added ones)" if len(twice) > 1 else ""),
                where=where,
                fix="rename it in one of the two files",
            )
    return TemplateSet(existing.task, (*existing.templates, *added.templates), existing.subset)


def judge(
    template: Template, fields: Collection[str] | None = None, label_sets: Mapping[str, tuple[str, ...]] | None = None
) -> Verdict:
    """Whether strict rendering takes a template, as far as that can be seen without rows.

    Args:
        template: as it was read, not bound to a task.
        fields: the task's fields; None where there is no task yet, and no name can be called unknown.
        label_sets: the task's label words.
    """
    sources = [source for source in (template.jinja, template.answer_choices) if source]
    try:
        trees = [lenient_environment().parse(source) for source in sources]
        PromptsourceTemplate(template).get_fixed_answer_choices_list()
        lenient_environment().compile(template.jinja)
    except (jinja2.TemplateSyntaxError, InputError) as error:
        return Verdict(template, "none", (f"it does not parse: {error}",), frozenset())
    names = frozenset(name for tree in trees for name in meta.find_undeclared_variables(tree)) - {"answer_choices"}
    reasons = [_changes(tree) for tree in trees] + [_label_words(template, names, label_sets or {})]
    try:
        _ = template.compiled
    except InputError as error:
        reasons.append(error.what)
    reasons += [f"it names {name!r}, which is no field of the task" for name in sorted(names - set(fields or names))]
    found = tuple(dict.fromkeys(filter(None, reasons)))
    return Verdict(template, "compat" if found else "strict", found, names)


def _changes(tree: nodes.Template) -> str:
    """What a template says in order to change a list or dict; the strict sandbox refuses it."""
    called = {call.node.attr for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Getattr)}
    mutable: tuple[Any, ...] = ([], {}, set())
    changing = sorted(name for name in called if any(modifies_known_mutable(value, name) for value in mutable))
    return f"it changes a list or dict ({', '.join('.' + name for name in changing)})" if changing else ""


def _label_words(template: Template, names: frozenset[str], label_sets: Mapping[str, tuple[str, ...]]) -> str:
    """What our own meaning of ``@labels`` and ``labels`` would make of a template that means something else."""
    choices = template.answer_choices or ""
    if choices.startswith(LABEL_REFERENCE) and choices.removeprefix(LABEL_REFERENCE) not in label_sets:
        return f"its answer_choices {choices!r} stand for label words here, and the task has none of that name"
    lists = sorted(name for name in names if _LABEL_LIST.fullmatch(name))
    return f"it names {lists[0]!r}, which stands for the task's label words here" if lists and label_sets else ""
