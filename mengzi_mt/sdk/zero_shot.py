"""``MengziZeroShot``: a stand-in for the class of Langboat's mengzi-zero-shot 0.2.1, so that its users change one import alone.

The calls, the ten ``task_type`` names and the form of the answers are that SDK's (its README; ``mengzi_zs/inference.py``): plain
texts, labels in its words. The prompts and the model are ours. Beyond it,
``input_string`` may be a list, and then so is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.sdk.methods import Many

ENTITY_WORDS = {
    "address": "地址", "book": "书名", "company": "公司", "game": "游戏", "government": "政府", "movie": "电影", "name": "姓名",
    "organization": "组织", "position": "职位", "scene": "景点",
}  # fmt: skip
"""That SDK's words for CLUENER's types."""
WORDINGS = {"sentiment": "labels.tone", "similarity": "labels.yes_no"}
"""The registry's wording of a task's labels that is that SDK's; of other tasks it is what the data calls them."""


def _label(result: Any) -> str:
    task = TASKS[result.task].task
    index = list(result.probabilities).index(result.label)
    wording = WORDINGS.get(result.task)
    return task.label_sets()[wording][index] if wording else (task.labels or {})[task.raw_label(index)]


def _raw_label(result: Any) -> str:
    task = TASKS[result.task].task
    return task.raw_label(list(result.probabilities).index(result.label))


def _text(result: Any) -> str:
    return str(result.text)


def _typed_entities(result: Any) -> str:
    words = {word: ENTITY_WORDS[raw] for raw, word in (TASKS[result.task].task.labels or {}).items()}
    return "，".join(dict.fromkeys(f"{entity.text}：{words[entity.type]}" for entity in result.entities))


def _mentions(result: Any) -> str:
    return "，".join(dict.fromkeys(entity.text for entity in result.entities))


TASK_TYPES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "sentiment_classifier": ("sentiment", _label),
    "news_classifier": ("news_topic", _label),
    "medical_domain_intent_classifier": ("medical_intent", _raw_label),
    "entity_extraction": ("entities", _typed_entities),
    "text_similarity": ("similarity", _label),
    "financial_relationship_extraction": ("financial_relation", _raw_label),
    "ad_generation": ("advertising_copy", _text),
    "comment_object_extraction": ("comment_object", _text),
    "name_extraction": ("person_names", _mentions),
    "company_extraction": ("company_names", _mentions),
}
"""That SDK's names: our task, and how its result is written."""


class MengziZeroShot:
    """The old class: ``load()``, then ``inference(task_type=…, input_string=…)``."""

    mengzi: Mengzi | None = None

    def load(self, model_name: str | None = None, **options: Any) -> None:
        """Load a model.

        Args:
            model_name: a folder or a hub name; by default the shipped model.
            **options: of :meth:`~mengzi_mt.sdk.mengzi.Mengzi.load` (``device``, ``dtype`` …).
        """
        self.mengzi = Mengzi.load(model_name, **options)

    def inference(
        self,
        task_type: str,
        input_string: str | Many,
        input_string2: str | Many | None = None,
        entity1: str | None = None,
        entity2: str | None = None,
    ) -> Any:
        """The answer as a text (a list of them for a list); empty where nothing was found.

        Args:
            task_type: one of :data:`TASK_TYPES`.
            input_string: the text.
            input_string2: of ``text_similarity``, the other text.
            entity1: of ``financial_relationship_extraction``, whose relation is asked for.
            entity2: likewise, to whom.

        Raises:
            InputError: an unknown task, a missing input, or no model loaded.
        """
        if self.mengzi is None:
            raise InputError("No model is loaded", where="MengziZeroShot", fix="call load() first")
        if task_type not in TASK_TYPES:
            raise InputError(f"There is no task {task_type!r}", where="task_type", fix=nearest(str(task_type), TASK_TYPES))
        name, write = TASK_TYPES[task_type]
        texts = input_string if isinstance(input_string, (list, tuple)) else [input_string]
        others = input_string2 if isinstance(input_string2, (list, tuple)) else [input_string2] * len(texts)
        wanted = TASKS[name].inputs
        rows = [
            {key: value for key, value in {"text": text, "other": other, "head": entity1, "tail": entity2}.items() if key in wanted}
            for text, other in zip(texts, others, strict=True)
        ]
        answers = [write(result) for result in self.mengzi.predict(name, rows)]
        return answers if isinstance(input_string, (list, tuple)) else answers[0]
