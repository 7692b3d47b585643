"""``Mengzi``: the downstream tasks in one line.

    from mengzi_mt import Mengzi
    mengzi = Mengzi.load()
    mengzi.sentiment("房间干净，下次还来").label

A text in gives a result out, a list of texts a list of results, batched by tokens. See docs/sdk.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mengzi_mt.data.examples import TextExample, bound_templates, render_example
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generated
from mengzi_mt.evaluation.loading import Scorers
from mengzi_mt.evaluation.normalisation import ChoiceScores
from mengzi_mt.evaluation.selection import RULES, Rule
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.trees import Span as Cuttable
from mengzi_mt.sdk.alignment import AlignedText
from mengzi_mt.sdk.answers import constraint_of, frame_of, mentions, words
from mengzi_mt.sdk.catalogue import OWN_LABELS, TASKS, DownstreamTask, find_task
from mengzi_mt.sdk.fitting import fit
from mengzi_mt.sdk.inputs import check_labels, check_rows, check_text, kind_of, rows_of
from mengzi_mt.sdk.loading import SHIPPED, load
from mengzi_mt.sdk.methods import Many, Methods
from mengzi_mt.sdk.progress import progress_bar
from mengzi_mt.sdk.results import Candidate, Classification, Entities, Keywords, Relation, Result, Span, Text
from mengzi_mt.sdk.voting import vote_of_choices, vote_of_mentions, vote_of_texts
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import Row

if TYPE_CHECKING:
    import torch

NEUTRAL_SHARE = 0.5
"""Share of a label's score without a text that is taken from its score: better than none and than all of it on held-in rows with
labels drawn anew (``docs/sdk.md``)."""
FRAME_TOKENS = 4
"""Room left for the special tokens that a tokenizer puts around an input."""

Fitted = tuple[TextExample, int]
"""An example, and how many characters of its texts were left out."""


class Mengzi(Methods):
    """A model, and the downstream tasks that it answers. Made by :meth:`load`.

    Attributes:
        name: of the model, as it was given.
        scorers: what ranks choices and what generates.
    """

    def __init__(self, scorers: Scorers, name: str) -> None:
        self.scorers = scorers
        self.name = name
        self._encoder = scorers.scorer.convention.encoder
        self._limit = scorers.scorer.max_input - FRAME_TOKENS
        self._templates = lru_cache(maxsize=256)(lambda task, wanted: TASKS[task].choose(wanted))

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str | torch.dtype | None = None,
        backend: str | None = None,
        max_input: int = 512,
        batch_size: int = 64,
    ) -> Mengzi:
        """A model made ready.

        Args:
            model: a checkpoint's folder, an exported folder or a hub name; by default the shipped model, `mengzi-mt-mini`.
            device: ``auto``, ``cpu``, ``cuda`` …
            dtype: ``float32`` or ``bfloat16``, by default the first on a CPU and the second elsewhere; ``int8``, which is also
                the default of ``ctranslate2`` and ``onnx``; ``int8_float32`` of ``ctranslate2``.
            backend: ``torch``, ``ctranslate2`` or ``onnx``; by default what the folder is for. A checkpoint is converted once, on
                a CPU, and kept in the cache folder (:func:`mengzi_mt.sdk.conversion.converted`).
            max_input: tokens of an input at most; longer texts are cut, and results say by how much.
            batch_size: texts that are computed at once at most; changes no result.

        Raises:
            InputError: nothing loadable there, an export for something else, or an argument out of its range.
        """
        scorers = load(model, device=device, dtype=dtype, backend=backend, max_input=max_input, batch_size=batch_size)
        return cls(scorers, str(model) if model is not None else SHIPPED)

    @staticmethod
    def tasks() -> tuple[DownstreamTask, ...]:
        """Every downstream task."""
        return tuple(TASKS.values())

    def predict(
        self,
        task: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        labels: Sequence[str] | None = None,
        prompt: str | None = None,
        templates: int | str | Sequence[str] = 1,
        vote: Rule = "mean",
        max_new_tokens: int | None = None,
        beams: int = 1,
        no_repeat_ngram_size: int | None = None,
        progress: bool | None = None,
    ) -> list[Result]:
        """Any downstream task on many rows; the methods of the tasks' names come here.

        Args:
            task: its name (:meth:`tasks`).
            rows: of each the task's inputs by name.
            labels: of ``classify``.
            prompt: of ``classify``: own words instead of a template, in Jinja, with ``{{ text }}`` and, if wanted,
                ``{{ answer_choices | join('、') }}``. Never take it from strangers.
            templates: how many templates to ask (the first so many), or the name of one, or several names.
            vote: how several templates decide: ``mean`` by the mean log-probability, ``majority`` by their answers.
            max_new_tokens: of a generated answer; by default 128.
            beams: of generation; 1 is greedy.
            no_repeat_ngram_size: no so many tokens in a row come twice in a generated answer; 0 lets them. By default 3 where
                titles, summaries, keywords, translations and the like are written, and 0 where an answer copies from the text.
            progress: whether to show a bar on standard error; by default on a terminal.

        Returns:
            A result for each row, in order.

        Raises:
            InputError: names row and input, or the argument that is wrong.
        """
        found = find_task(task)
        checked = check_rows(found, rows)
        if vote not in RULES:
            raise InputError(f"Unknown vote {vote!r}", where=f"task {task!r}", fix=f"use {' or '.join(RULES)}")
        own = self._own_labels(found, labels)
        chosen = self._chosen(found, templates) if prompt is None else (_template_of(found, prompt),)
        if not checked:
            return []
        fitted = [[self._example(found, template, row, place, own) for place, row in enumerate(checked)] for template in chosen]
        with progress_bar(task, len(checked) * len(chosen), progress) as advance:
            if found.kind in ("label", "relation"):
                scores = [self.scorers.scorer.score([one for one, _ in part], advance) for part in fitted]
                if own:
                    scores = [self._without_bias(found, one, own, part) for one, part in zip(chosen, scores, strict=True)]
                return [
                    self._classification(found, chosen, row, [part[place] for part in scores], _left_out(fitted, place), vote, own)
                    for place, row in enumerate(checked)
                ]
            barred = found.no_repeat_ngram_size if no_repeat_ngram_size is None else no_repeat_ngram_size
            generator = self._generator(max_new_tokens, beams, (), barred)
            free = not getattr(generator, "takes_constraints", False)
            answers = [
                generator.generate([one for one, _ in part], advance, None if free else constraint_of(found, template))
                for template, part in zip(chosen, fitted, strict=True)
            ]
        return [
            self._written(found, chosen, row, [part[place] for part in answers], _left_out(fitted, place))
            for place, row in enumerate(checked)
        ]

    def apply(
        self,
        task: str,
        fields: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        template: str | None = None,
        *,
        max_new_tokens: int | None = None,
        beams: int = 1,
        no_repeat_ngram_size: int = 0,
        progress: bool | None = None,
    ) -> Any:
        """Any template of the registry: a classification where it has choices, else a text.

        Args:
            task: of the registry.
            fields: the row that the template reads, or a list of rows.
            template: its name; by default the task's first.
            max_new_tokens: see :meth:`predict`.
            beams: see :meth:`predict`.
            no_repeat_ngram_size: see :meth:`predict`; by default anything may be repeated.
            progress: see :meth:`predict`.

        Raises:
            InputError: an unknown task or template, or a row that lacks a field.
        """
        registry = get_task(task)
        known = bound_templates(registry)
        chosen = known[template] if template is not None else known.templates[0]
        rows = [fields] if isinstance(fields, Mapping) else list(fields)
        fitted = []
        for place, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputError(f"Expected a row's fields by name, found {kind_of(row)}", where=f"{task}, row {place}")
            texts = {name: value for name, value in row.items() if isinstance(value, str)}

            def render(cut: Mapping[str, str], row: Mapping[str, Any] = row, place: int = place) -> TextExample:
                return render_example(registry, chosen, Row(str(place), {**row, **cut}), with_target=False)

            fitted.append(fit(texts, render, self._encoder, self._limit))
        generator = self._generator(max_new_tokens, beams, (), no_repeat_ngram_size)
        results = self._answered(fitted, task, (chosen.name,), generator, progress)
        return results[0] if isinstance(fields, Mapping) else results

    def generate(
        self,
        prompt: str | Many,
        *,
        max_new_tokens: int | None = None,
        beams: int = 1,
        stop: Sequence[str] = (),
        no_repeat_ngram_size: int = 0,
        progress: bool | None = None,
    ) -> Any:
        """The answer to a free prompt, :class:`Text`, or to each of a list.

        Args:
            prompt: as it is; too long a one is cut at its end.
            max_new_tokens: see :meth:`predict`.
            beams: see :meth:`predict`.
            stop: texts that end an answer; they are no part of it.
            no_repeat_ngram_size: see :meth:`predict`; by default anything may be repeated.
            progress: see :meth:`predict`.
        """
        rows, many = rows_of({"prompt": prompt})
        fitted = [self._free(row["prompt"], None, f"generate, prompt {place}") for place, row in enumerate(rows)]
        generator = self._generator(max_new_tokens, beams, stop, no_repeat_ngram_size)
        results = self._answered(fitted, "generate", (), generator, progress)
        return results if many else results[0]

    def choose(self, prompt: str | Many, choices: Sequence[str], *, progress: bool | None = None) -> Any:
        """Which of some answers fits a free prompt best, :class:`Classification`, or of each of a list of prompts."""
        rows, many = rows_of({"prompt": prompt})
        checked = check_labels(choices, "choose")
        fitted = [self._free(row["prompt"], checked, f"choose, prompt {place}") for place, row in enumerate(rows)]
        results = self._answered(fitted, "choose", (), None, progress)
        return results if many else results[0]

    def stream(
        self, prompt: str, *, max_new_tokens: int | None = None, stop: Sequence[str] = (), no_repeat_ngram_size: int = 0
    ) -> Iterator[str]:
        """The answer to a free prompt in pieces, as soon as they are known; no piece ends inside of a character.

        Args:
            prompt: as it is; too long a one is cut at its end.
            max_new_tokens: see :meth:`predict`.
            stop: texts that end the answer; they are no part of it.
            no_repeat_ngram_size: see :meth:`predict`; by default anything may be repeated.
        """
        example, _ = self._free(prompt, None, "stream")
        return self._stream(example, self._generator(max_new_tokens, 1, stop, no_repeat_ngram_size))

    def stream_task(
        self,
        task: str,
        *,
        template: str | None = None,
        max_new_tokens: int | None = None,
        no_repeat_ngram_size: int | None = None,
        **inputs: str,
    ) -> Iterator[str]:
        """What the model writes for one row of a task of generation (advertising copy, titles, translation …), in pieces."""
        found = find_task(task)
        if found.kind != "text":
            raise InputError(f"The task {task!r} generates no free text", where="stream_task", fix="call its method")
        row = check_rows(found, [inputs])[0]
        example, _ = self._example(found, self._chosen(found, template or 1)[0], row, 0, None)
        barred = found.no_repeat_ngram_size if no_repeat_ngram_size is None else no_repeat_ngram_size
        return self._stream(example, self._generator(max_new_tokens, 1, (), barred))

    def _stream(self, example: TextExample, generator: Any) -> Iterator[str]:
        if hasattr(generator, "stream"):
            yield from generator.stream(example)
        elif text := generator.generate([example])[0].text:
            yield text

    def _answer(self, task: str, options: Mapping[str, Any], **arguments: Any) -> Any:
        given = {name: value for name, value in arguments.items() if value is not None}
        rows, many = rows_of(given)
        results = self.predict(task, rows, **options)
        return results if many else results[0]

    def _chosen(self, task: DownstreamTask, wanted: Any) -> tuple[Template, ...]:
        return self._templates(task.name, tuple(wanted) if isinstance(wanted, list) else wanted)

    def _own_labels(self, task: DownstreamTask, labels: Any) -> tuple[str, ...] | None:
        if not task.own_labels:
            if labels is not None:
                raise InputError(
                    f"The task {task.name!r} has its own labels", where="labels", fix="use classify for labels of your own"
                )
            return None
        return check_labels(labels, f"task {task.name!r}, labels")

    def _example(
        self, task: DownstreamTask, template: Template, row: Mapping[str, str], place: int, labels: tuple[str, ...] | None
    ) -> Fitted:
        registry = task.task
        own: dict[str, Any] = {OWN_LABELS: list(labels)} if labels else {}

        def render(texts: Mapping[str, str]) -> TextExample:
            fields = {task.inputs[name]: text.strip() for name, text in texts.items()}
            return render_example(registry, template, Row(str(place), {**fields, **own, **texts}), with_target=False)

        return fit({**dict.fromkeys(task.optional, ""), **row}, render, self._encoder, self._limit)

    def _without_bias(
        self, task: DownstreamTask, template: Template, labels: tuple[str, ...], scores: Sequence[ChoiceScores]
    ) -> list[ChoiceScores]:
        """Scores less a share of those of the same prompt without a text: words that the model has never answered with differ in
        length and in how common they are. All of it is ``pmi`` of :mod:`mengzi_mt.evaluation.normalisation`."""
        example, _ = self._example(task, template, dict.fromkeys(task.inputs, ""), 0, labels)
        [neutral] = self.scorers.scorer.score([example])
        shares = [NEUTRAL_SHARE * score for score in neutral.log_probabilities]
        return [
            replace(one, log_probabilities=tuple(a - b for a, b in zip(one.log_probabilities, shares, strict=True)))
            for one in scores
        ]

    def _free(self, prompt: Any, choices: tuple[str, ...] | None, where: str) -> Fitted:
        text = check_text(prompt, where)

        def render(texts: Mapping[str, str]) -> TextExample:
            whole = texts["prompt"]
            return TextExample(whole, "", choices, (Cuttable(0, len(whole)),), 1.0, "prompt", "free", where)

        return fit({"prompt": text}, render, self._encoder, self._limit)

    def _answered(
        self,
        fitted: Sequence[Fitted],
        task: str,
        templates: tuple[str, ...],
        generator: Any,
        progress: bool | None,
    ) -> list[Result]:
        """Examples with choices are ranked, the others answered freely by the generator."""
        ranked = [place for place, (example, _) in enumerate(fitted) if example.choices]
        open_ones = [place for place, (example, _) in enumerate(fitted) if not example.choices]
        results: dict[int, Result] = {}
        with progress_bar(task, len(fitted), progress) as advance:
            if ranked:
                scores = self.scorers.scorer.score([fitted[place][0] for place in ranked], advance)
                for place, score in zip(ranked, scores, strict=True):
                    best, shares = vote_of_choices([score], "mean")
                    choices = fitted[place][0].choices or ()
                    results[place] = Classification(
                        task=task, templates=templates, cut=fitted[place][1] + score.cut, label=choices[best],
                        probability=shares[best], probabilities=dict(zip(choices, shares, strict=True)),
                    )  # fmt: skip
            if open_ones:
                answers = generator.generate([fitted[place][0] for place in open_ones], advance)
                for place, answer in zip(open_ones, answers, strict=True):
                    results[place] = _text(task, templates, [answer], fitted[place][1], [answer.text])
        return [results[place] for place in range(len(fitted))]

    def _generator(self, max_new_tokens: int | None, beams: int, stop: Sequence[str], no_repeat_ngram_size: int) -> Any:
        return self.scorers.generator.adjusted(
            max_new_tokens=max_new_tokens, beams=beams, stop=tuple(stop), no_repeat_ngram_size=no_repeat_ngram_size
        )

    def _aligned(self, text: str) -> AlignedText:
        pieces = getattr(self.scorers.generator, "pieces", None)
        return AlignedText(text, pieces.normalise if pieces else lambda part: part)

    def _classification(
        self,
        task: DownstreamTask,
        templates: Sequence[Template],
        row: Mapping[str, str],
        scores: Sequence[ChoiceScores],
        cut: int,
        vote: Rule,
        own: tuple[str, ...] | None,
    ) -> Result:
        best, shares = vote_of_choices(scores, vote)
        labels = own or task.labels
        values: dict[str, Any] = {
            "task": task.name, "templates": tuple(one.name for one in templates), "cut": cut + max(one.cut for one in scores),
            "label": labels[best], "probability": shares[best], "probabilities": dict(zip(labels, shares, strict=True)),
        }  # fmt: skip
        if task.kind == "relation":
            return Relation(**values, head=row["head"], tail=row["tail"])
        return Classification(**values)

    def _written(
        self, task: DownstreamTask, templates: Sequence[Template], row: Mapping[str, str], answers: Sequence[Generated], cut: int
    ) -> Result:
        """The result of generated answers, one of each template."""
        names = tuple(one.name for one in templates)
        frames = [frame_of(task, template) for template in templates] if task.kind != "entities" else []
        source = row[next(iter(task.inputs))]
        cut += max(answer.cut for answer in answers)
        if task.kind in ("entities", "mentions"):
            named = vote_of_mentions([mentions(task, answer.text) for answer in answers])
            placed, unplaced = self._aligned(source).entities(named)
            written = tuple(answer.text for answer in answers)
            return Entities(
                task=task.name, templates=names, cut=cut, entities=tuple(placed), unplaced=tuple(unplaced), answer=written
            )
        texts = [frame.inside(answer.text) for frame, answer in zip(frames, answers, strict=True)]
        if task.kind == "text":
            return _text(task.name, names, answers, cut, texts)
        best = vote_of_texts(answers)
        if task.kind == "keywords":
            found = words(frames[best], answers[best].text)
            return Keywords(task=task.name, templates=names, cut=cut, keywords=found, answer=answers[best].text)
        places = self._aligned(source).places(texts[best])
        start, end = places[0] if places else (None, None)
        return Span(
            task=task.name, templates=names, cut=cut, text=source[start:end] if places else texts[best], start=start, end=end,
            places=tuple(places), log_probability=answers[best].log_probability,
        )  # fmt: skip


def _left_out(fitted: Sequence[Sequence[Fitted]], place: int) -> int:
    """Characters that were left out of a row, by the template that left out most."""
    return max(part[place][1] for part in fitted)


def _text(task: str, templates: tuple[str, ...], answers: Sequence[Generated], cut: int, texts: Sequence[str]) -> Text:
    best = vote_of_texts(answers)
    others = [Candidate(text, answer.log_probability) for text, answer in zip(texts, answers, strict=True)]
    candidates = [others[best], *(one for place, one in enumerate(others) if place != best)]
    if len(answers) == 1:
        candidates += [Candidate(text, log_p) for text, log_p in answers[0].candidates[1:]]
    return Text(
        task=task, templates=templates, cut=cut, text=texts[best], log_probability=answers[best].log_probability,
        finished=answers[best].finished, candidates=tuple(candidates),
    )  # fmt: skip


def _template_of(task: DownstreamTask, prompt: str) -> Template:
    """A template of the caller's own words.

    Raises:
        InputError: no prompt of a classification, or one that does not read the text.
    """
    where = f"task {task.name!r}, prompt"
    if not task.own_labels:
        raise InputError("Only classify takes a prompt", where=where, fix="use classify, generate or choose")
    source = next(iter(task.inputs))
    template = Template(
        "prompt", "prompt", f"{prompt}|||", answer_choices=f"{{{{ {OWN_LABELS} | join(' ||| ') }}}}", shrink={source: "tail"}
    )
    if source not in template.compiled.input_names:
        raise InputError(f"The prompt does not show the text: {prompt!r}", where=where, fix=f"write {{{{ {source} }}}} in it")
    return template
