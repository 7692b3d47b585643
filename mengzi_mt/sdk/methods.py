"""One method for each downstream task. A text in gives a result out, a list of texts a list of results.

Where a task takes several texts, one of them may be a single text and another a list: it then goes with every item of the list.
Options are those of :meth:`mengzi_mt.sdk.mengzi.Mengzi.predict`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

from mengzi_mt.errors import InputError, nearest
from mengzi_mt.evaluation.selection import Rule
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.results import Classification, Entities, Keywords, Relation, Span, Text

Many = list[str] | tuple[str, ...]
"""Several texts."""


class Options(TypedDict, total=False):
    """Options of every task."""

    templates: int | str | Sequence[str]
    vote: Rule
    progress: bool | None


class Writing(Options, total=False):
    """Options of tasks whose answers are generated."""

    max_new_tokens: int | None
    beams: int
    no_repeat_ngram_size: int | None


class Methods(ABC):
    """The downstream tasks by name."""

    @abstractmethod
    def _answer(self, task: str, options: Mapping[str, Any], **arguments: Any) -> Any:
        """A result, or a list of them where an argument is a list."""

    @overload
    def sentiment(self, text: str, **options: Unpack[Options]) -> Classification: ...
    @overload
    def sentiment(self, text: Many, **options: Unpack[Options]) -> list[Classification]: ...
    def sentiment(self, text: str | Many, **options: Unpack[Options]) -> Classification | list[Classification]:
        """Whether a review is positive or negative."""
        return self._answer("sentiment", options, text=text)

    @overload
    def news_topic(self, text: str, **options: Unpack[Options]) -> Classification: ...
    @overload
    def news_topic(self, text: Many, **options: Unpack[Options]) -> list[Classification]: ...
    def news_topic(self, text: str | Many, **options: Unpack[Options]) -> Classification | list[Classification]:
        """The channel that a headline belongs to."""
        return self._answer("news_topic", options, text=text)

    @overload
    def medical_intent(self, text: str, **options: Unpack[Options]) -> Classification: ...
    @overload
    def medical_intent(self, text: Many, **options: Unpack[Options]) -> list[Classification]: ...
    def medical_intent(self, text: str | Many, **options: Unpack[Options]) -> Classification | list[Classification]:
        """What a medical question wants to know."""
        return self._answer("medical_intent", options, text=text)

    @overload
    def entities(self, text: str, **options: Unpack[Writing]) -> Entities: ...
    @overload
    def entities(self, text: Many, **options: Unpack[Writing]) -> list[Entities]: ...
    def entities(self, text: str | Many, **options: Unpack[Writing]) -> Entities | list[Entities]:
        """People, places, companies and other entities, with their types and places in the text."""
        return self._answer("entities", options, text=text)

    @overload
    def similarity(self, text: str, other: str, **options: Unpack[Options]) -> Classification: ...
    @overload
    def similarity(
        self, text: str | Many, other: str | Many, **options: Unpack[Options]
    ) -> Classification | list[Classification]: ...
    def similarity(self, text: str | Many, other: str | Many, **options: Unpack[Options]) -> Classification | list[Classification]:
        """Whether two questions mean the same; ``probabilities`` rank several against one."""
        return self._answer("similarity", options, text=text, other=other)

    @overload
    def financial_relation(self, text: str, head: str, tail: str, **options: Unpack[Options]) -> Relation: ...
    @overload
    def financial_relation(
        self, text: str | Many, head: str | Many, tail: str | Many, **options: Unpack[Options]
    ) -> Relation | list[Relation]: ...
    def financial_relation(
        self, text: str | Many, head: str | Many, tail: str | Many, **options: Unpack[Options]
    ) -> Relation | list[Relation]:
        """What one company of a financial text is to another one."""
        return self._answer("financial_relation", options, text=text, head=head, tail=tail)

    @overload
    def advertising_copy(self, text: str, **options: Unpack[Writing]) -> Text: ...
    @overload
    def advertising_copy(self, text: Many, **options: Unpack[Writing]) -> list[Text]: ...
    def advertising_copy(self, text: str | Many, **options: Unpack[Writing]) -> Text | list[Text]:
        """Advertising copy for a product, from its properties (类型-裤，版型-宽松 …)."""
        return self._answer("advertising_copy", options, text=text)

    @overload
    def comment_object(self, text: str, **options: Unpack[Writing]) -> Span: ...
    @overload
    def comment_object(self, text: Many, **options: Unpack[Writing]) -> list[Span]: ...
    def comment_object(self, text: str | Many, **options: Unpack[Writing]) -> Span | list[Span]:
        """What a review is about."""
        return self._answer("comment_object", options, text=text)

    @overload
    def person_names(self, text: str, **options: Unpack[Writing]) -> Entities: ...
    @overload
    def person_names(self, text: Many, **options: Unpack[Writing]) -> list[Entities]: ...
    def person_names(self, text: str | Many, **options: Unpack[Writing]) -> Entities | list[Entities]:
        """The names of people."""
        return self._answer("person_names", options, text=text)

    @overload
    def company_names(self, text: str, **options: Unpack[Writing]) -> Entities: ...
    @overload
    def company_names(self, text: Many, **options: Unpack[Writing]) -> list[Entities]: ...
    def company_names(self, text: str | Many, **options: Unpack[Writing]) -> Entities | list[Entities]:
        """The names of companies."""
        return self._answer("company_names", options, text=text)

    @overload
    def entailment(self, premise: str, hypothesis: str, **options: Unpack[Options]) -> Classification: ...
    @overload
    def entailment(
        self, premise: str | Many, hypothesis: str | Many, **options: Unpack[Options]
    ) -> Classification | list[Classification]: ...
    def entailment(
        self, premise: str | Many, hypothesis: str | Many, **options: Unpack[Options]
    ) -> Classification | list[Classification]:
        """Whether a premise entails a hypothesis, contradicts it, or neither."""
        return self._answer("entailment", options, premise=premise, hypothesis=hypothesis)

    @overload
    def answer(self, text: str, question: str, **options: Unpack[Writing]) -> Span: ...
    @overload
    def answer(self, text: str | Many, question: str | Many, **options: Unpack[Writing]) -> Span | list[Span]: ...
    def answer(self, text: str | Many, question: str | Many, **options: Unpack[Writing]) -> Span | list[Span]:
        """The part of a text that answers a question."""
        return self._answer("answer", options, text=text, question=question)

    @overload
    def title(self, text: str, **options: Unpack[Writing]) -> Text: ...
    @overload
    def title(self, text: Many, **options: Unpack[Writing]) -> list[Text]: ...
    def title(self, text: str | Many, **options: Unpack[Writing]) -> Text | list[Text]:
        """A title for an abstract."""
        return self._answer("title", options, text=text)

    @overload
    def summary(self, text: str, **options: Unpack[Writing]) -> Text: ...
    @overload
    def summary(self, text: Many, **options: Unpack[Writing]) -> list[Text]: ...
    def summary(self, text: str | Many, **options: Unpack[Writing]) -> Text | list[Text]:
        """What a text is about, in one phrase."""
        return self._answer("summary", options, text=text)

    @overload
    def keywords(self, text: str, title: str | None = None, **options: Unpack[Writing]) -> Keywords: ...
    @overload
    def keywords(self, text: Many, title: Many | None = None, **options: Unpack[Writing]) -> list[Keywords]: ...
    def keywords(self, text: str | Many, title: str | Many | None = None, **options: Unpack[Writing]) -> Keywords | list[Keywords]:
        """Keywords of an abstract; its title, if there is one, helps."""
        return self._answer("keywords", options, text=text, title=title)

    @overload
    def translation(self, text: str, source: str = "en", target: str = "zh", **options: Unpack[Writing]) -> Text: ...
    @overload
    def translation(self, text: Many, source: str = "en", target: str = "zh", **options: Unpack[Writing]) -> list[Text]: ...
    def translation(
        self, text: str | Many, source: str = "en", target: str = "zh", **options: Unpack[Writing]
    ) -> Text | list[Text]:
        """A translation: ``en`` to ``zh`` or back, ``classical`` to ``modern`` Chinese or back."""
        name = f"translation_{source}_{target}"
        if name not in TASKS:
            known = [task.removeprefix("translation_") for task in TASKS if task.startswith("translation_")]
            pair = f"{source}_{target}"
            raise InputError(
                f"There is no translation from {source!r} to {target!r}", where="translation", fix=nearest(pair, known)
            )
        return self._answer(name, options, text=text)

    @overload
    def classify(
        self, text: str, labels: Sequence[str], prompt: str | None = None, **options: Unpack[Options]
    ) -> Classification: ...
    @overload
    def classify(
        self, text: Many, labels: Sequence[str], prompt: str | None = None, **options: Unpack[Options]
    ) -> list[Classification]: ...
    def classify(
        self, text: str | Many, labels: Sequence[str], prompt: str | None = None, **options: Unpack[Options]
    ) -> Classification | list[Classification]:
        """Which of any labels fits a text.

        Args:
            text: one, or several.
            labels: at least two.
            prompt: own words instead of the registry's: ``“{{ text }}”是在说{{ answer_choices | join('还是') }}？``.
            **options: see :meth:`~mengzi_mt.sdk.mengzi.Mengzi.predict`.
        """
        return self._answer("classify", {**options, "labels": labels, "prompt": prompt}, text=text)
