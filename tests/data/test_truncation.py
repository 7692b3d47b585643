"""What is too long is cut in the passage only: instruction, question and choices survive on the tasks with long texts."""

import pytest

from mengzi_mt.data.examples import bound_templates, render_example, select_templates, usable
from mengzi_mt.data.tokens import Encoder, fit_inputs
from mengzi_mt.tasks.at_hand import source_at_hand
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, Row, available_splits, load_rows

LONG = ["iflytek", "csldcp", "csl", "cmrc2018", "drcd", "c3"]


def by_character(text):
    return [ord(character) for character in text]


def fixed_parts(example):
    """What stands outside the spans that may be cut, in order."""
    parts, last = [], 0
    for start, end, _ in example.shrinkable:
        parts.append(example.inputs[last:start])
        last = end
    return [*parts, example.inputs[last:]]


def stretched(task, row, times=40):
    """The row with its long texts repeated."""
    return Row(row.row_id, {k: v * times if k in task.shrink_fields and isinstance(v, str) else v for k, v in row.values.items()})


def assert_only_passages_are_cut(example, limit):
    fixed = fixed_parts(example)
    ids, kept = fit_inputs(example, by_character, limit, eos=0)
    assert kept == "".join(map(chr, ids[:-1]))
    assert len(kept) < len(example.inputs)
    assert len(ids) <= max(limit, len("".join(fixed)) + 1)
    place = 0
    for part in fixed:  # every fixed part stands in what is left, in order, at its whole length
        found = kept.find(part, place)
        assert found >= 0, (example.template, part)
        place = found + len(part)
    assert kept.endswith(fixed[-1])
    assert kept.startswith(fixed[0])
    for choice in example.choices or ():
        assert (choice in kept) or choice not in "".join(fixed)


@pytest.mark.parametrize("name", LONG)
def test_stretched_sample_rows_keep_question_and_choices(name):
    task, source = get_task(name), DataSource("sample")
    rows = [row for split in available_splits(task, source) for row in load_rows(task, split, source)][:6]
    tested = 0
    for template in select_templates(task, None):
        if not template.compiled.input_names & set(task.shrink_fields):
            continue  # a side use that writes the passage instead of reading it
        for row in rows:
            if usable(template, row):
                example = render_example(task, template, stretched(task, row))
                assert example.shrinkable, f"{template.place} shows a passage that may not be cut"
                length = sum(map(len, fixed_parts(example)))
                assert_only_passages_are_cut(example, length + 150)
                tested += 1
    assert tested >= 30


@pytest.mark.parametrize("name", LONG)
def test_long_real_rows_keep_question_and_choices(name, data_root, tokenizer):
    task = get_task(name)
    source, splits = source_at_hand(task, data_root)
    rows = sorted(load_rows(task, splits[0], source), key=lambda row: -len(str(row.values)))[:5]
    encoder, limit = Encoder(tokenizer), 256
    for template in bound_templates(task):
        if not template.metadata.original_task or template.skip_if:
            continue
        for row in rows:
            example = render_example(task, template, row)
            ids, cut = encoder.inputs(example, limit)
            needed = len(encoder("".join(fixed_parts(example)))) + 1
            assert len(ids) <= max(limit, needed + 8)
            if len(encoder(example.inputs)) + 1 <= limit:
                assert cut == 0
                continue
            text = "".join(tokenizer.decode(ids, skip_special_tokens=True).split())
            for part in (fixed_parts(example)[0], fixed_parts(example)[-1]):
                whole = "".join(tokenizer.decode(encoder(part), skip_special_tokens=True).split())
                assert whole in text, (template.name, part)


def test_heads_and_middles_are_cut_where_the_field_says():
    from mengzi_mt.data.examples import TextExample
    from mengzi_mt.prompts.rendering import Span

    def cut(where):
        example = TextExample("问" + "0123456789" + "答", "", None, (Span(1, 11, where),), 1.0, "t", "t", "r")
        return fit_inputs(example, by_character, 8, eos=0)[1]

    assert [cut(where) for where in ("tail", "head", "middle")] == ["问01234答", "问56789答", "问01289答"]
