"""The downstream tasks: which task of the registry answers each, and what a caller gives to it.

Labels, entity types and wordings stand in the registry alone. A task's templates are those of its intended use that read nothing
but what the caller gives, in the order of their file; the first is the default, so none is chosen by looking at scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mengzi_mt.data.examples import bound_templates
from mengzi_mt.errors import InputError, nearest
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import load_templates
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.task import Task

Kind = Literal["label", "relation", "entities", "mentions", "span", "keywords", "text"]
"""What comes out. ``entities`` are of many types, ``mentions`` of the one named ``entity``; a ``span`` is one part of the text."""


@dataclass(frozen=True)
class DownstreamTask:
    """One downstream task.

    Attributes:
        name: the method of :class:`~mengzi_mt.sdk.mengzi.Mengzi`.
        title: in Chinese.
        kind: of what comes out.
        registry: name of the registry's task.
        inputs: what the caller gives, by the registry's field; the first is the text that spans are taken from.
        optional: inputs that may be left out.
        templates: names, where they are not the first that fit.
        entity: raw name of the registry's entity type that is wanted, or a word of one's own for a ``span``.
        own_labels: whether the caller gives the labels.
    """

    name: str
    title: str
    kind: Kind
    registry: str
    inputs: Mapping[str, str]
    optional: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    entity: str | None = None
    own_labels: bool = False

    @property
    def task(self) -> Task:
        """The registry's task."""
        return get_task(self.registry)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a classification, or the types of entities; none where the caller gives them or there are none."""
        if self.own_labels or self.kind not in ("label", "relation", "entities"):
            return ()
        return tuple((self.task.labels or {}).values())

    @property
    def no_repeat_ngram_size(self) -> int:
        """What an answer may not repeat, in tokens, unless the caller says otherwise: nothing bars what is copied from a text."""
        return NO_REPEAT if self.kind in ("text", "keywords") else 0

    def template_names(self) -> list[str]:
        """Templates that can be used, the default first."""
        return [template.name for template in self._fitting()]

    def choose(self, wanted: int | str | Sequence[str]) -> tuple[Template, ...]:
        """Templates: the first so many, or by name.

        Raises:
            InputError: an unknown name, a template that reads what the caller does not give, or a number below one.
        """
        where = f"task {self.name!r}, templates={wanted!r}"
        fitting = self._fitting()
        if isinstance(wanted, bool) or not isinstance(wanted, (int, str, list, tuple)) or wanted in (0, [], ()):
            raise InputError("No template is asked for", where=where, fix="give a number of templates, a name or a list of names")
        if isinstance(wanted, int):
            if not 0 < wanted <= len(fitting):
                raise InputError(f"The task has {len(fitting)} templates", where=where, fix=f"ask for 1 to {len(fitting)}")
            return tuple(fitting[:wanted])
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        known = {template.name: template for template in fitting}
        for name in names:
            if name not in known:
                what = "does not fit what this task is given" if name in self._all() else "is unknown"
                raise InputError(f"The template {name!r} {what}", where=where, fix=nearest(str(name), known))
        return tuple(known[name] for name in names)

    def _all(self) -> dict[str, Template]:
        templates = load_templates(self.registry) if self.own_labels else bound_templates(self.task)
        return {template.name: template for template in templates}

    def _fitting(self) -> list[Template]:
        found = self._all()
        if self.templates:
            return [self._prepared(found[name]) for name in self.templates]
        prepared = [self._prepared(template) for template in found.values() if template.metadata.original_task]
        return [template for template in prepared if self._fits(template)]

    def _prepared(self, template: Template) -> Template:
        """The template with the spans of the first input known; choices that the caller gives are a field of the row."""
        source = next(iter(self.inputs.values()))
        choices = f"{{{{ {OWN_LABELS} | join(' ||| ') }}}}" if self.own_labels else template.answer_choices
        return replace(template, answer_choices=choices, shrink={source: "tail"})

    def _fits(self, template: Template) -> bool:
        compiled, given = template.compiled, {*self.inputs.values(), *self.task.empty_fields}
        required = {field for name, field in self.inputs.items() if name not in self.optional}
        reads = compiled.input_names | compiled.choice_names
        if template.skip_if or template.metadata.extra.get("deprecated") or not required <= compiled.input_names or reads - given:
            return False
        if self.kind in ("label", "relation"):
            return len(compiled.fixed_choices or ()) == len(self.labels)
        return compiled.choices_part is None


NO_REPEAT = 3
"""Tokens in a row that come only once in a text that is written: a small model falls into repetition."""
OWN_LABELS = "labels_of_caller"
"""The field of a row that holds the labels that the caller gave."""

TASKS: dict[str, DownstreamTask] = {
    task.name: task
    for task in (
        DownstreamTask("sentiment", "情感分类", "label", "eprstmt", {"text": "sentence"}),
        DownstreamTask("news_topic", "新闻分类", "label", "tnews", {"text": "sentence"}),
        DownstreamTask("medical_intent", "医疗意图分类", "label", "kuake_qic", {"text": "query"}),
        DownstreamTask(
            "entities", "实体抽取", "entities", "cluener2020", {"text": "text"},
            templates=("all_grouped_one_line", "all_one_mention_per_line", "all_pairs", "all_type_per_line", "role_news_indexer",
                       "dialogue_two_annotators"),
        ),
        DownstreamTask("similarity", "语义相似度", "label", "lcqmc", {"text": "sentence1", "other": "sentence2"}),
        DownstreamTask(
            "financial_relation", "金融关系抽取", "relation", "finre", {"text": "sentence", "head": "head", "tail": "tail"}
        ),
        DownstreamTask("advertising_copy", "广告文案生成", "text", "cepsum", {"text": "source"}),
        DownstreamTask("comment_object", "评论对象抽取", "span", "cote_mfw", {"text": "text"}),
        DownstreamTask("person_names", "人名抽取", "mentions", "express_ner", {"text": "text"}, entity="P"),
        DownstreamTask("company_names", "公司名抽取", "mentions", "cluener_company", {"text": "text"}, entity="company"),
        DownstreamTask("entailment", "自然语言推理", "label", "ocnli", {"premise": "sentence1", "hypothesis": "sentence2"}),
        DownstreamTask("answer", "阅读理解", "span", "cmrc2018", {"text": "context", "question": "question"}),
        DownstreamTask("title", "拟标题", "text", "csl_title", {"text": "abstract"}),
        DownstreamTask("summary", "摘要", "text", "csl_title", {"text": "abstract"}, templates=("short_summary_question",)),
        DownstreamTask("keywords", "关键词", "keywords", "csl_keywords", {"text": "abstract", "title": "title"}, ("title",)),
        DownstreamTask("translation_en_zh", "英译中", "text", "translation_cmn", {"text": "english"}),
        DownstreamTask("translation_zh_en", "中译英", "text", "translation_cmn", {"text": "chinese"}),
        DownstreamTask("translation_classical_modern", "文言文译白话", "text", "classical_modern", {"text": "classical"}),
        DownstreamTask(
            "translation_modern_classical", "白话译文言文", "text", "classical_modern", {"text": "modern"},
            templates=("modern_to_classical", "how_ancients_said_it", "dialogue_script_writer"),
        ),
        DownstreamTask(
            "classify", "任意标签分类", "label", "tnews", {"text": "sentence"}, own_labels=True,
            templates=("topic_first_choices", "dialogue_about", "title_then_question", "tagging_role"),
        ),
    )
}  # fmt: skip
"""By name, in the order in which pages show them."""


def find_task(name: str) -> DownstreamTask:
    """A downstream task by name.

    Raises:
        InputError: an unknown name; names the near ones.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise InputError(f"There is no downstream task {name!r}", where="task", fix=nearest(str(name), TASKS))
    return TASKS[name]
