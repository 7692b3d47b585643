import pytest

from mengzi_mt.tasks.fields import BadRecord, convert_record
from mengzi_mt.tasks.task import Task


def task(labels=None, **fields):
    return Task.model_validate(
        {
            "name": "toy",
            "version": 1,
            "title": {"zh": "", "en": ""},
            "category": "nli",
            "role": "train",
            "licence": {"name": "", "source": ""},
            "source": {"path": "toy", "splits": {}},
            "reader": {"format": "jsonl"},
            "fields": {key: {"type": value} if isinstance(value, str) else value for key, value in fields.items()},
            "labels": labels,
            "metrics": ["accuracy"],
        }
    )


LABELS = {"entailment": "蕴含", "neutral": "中立"}


def values(a_task, **record):
    return convert_record(a_task, record).values


@pytest.mark.parametrize(
    ("type", "raw", "value"),
    [
        ("string", "\ufeff 甲 ", "甲"),
        ("string", " \t甲\n", "甲"),
        ("string", 3, "3"),
        ("integer", "7", 7),
        ("integer", 7.0, 7),
        ("number", "1.5", 1.5),
        ("boolean", "False", False),
        ("boolean", 1, True),
        ("strings", [" a ", "b"], ["a", "b"]),
        ("index", "0", 0),
        ("label", " neutral ", 1),
        ("object", {"a": 1}, {"a": 1}),
    ],
)
def test_value_is_converted(type, raw, value):
    assert values(task(LABELS, x=type), x=raw) == {"x": value}


@pytest.mark.parametrize(
    ("type", "raw", "said"),
    [
        ("string", ["a"], "expected text, found a list"),
        ("string", True, "expected text"),
        ("integer", "x", "expected an integer"),
        ("integer", 1.5, "expected an integer"),
        ("integer", float("inf"), "expected an integer"),
        ("integer", True, "expected an integer"),
        ("number", "x", "expected a number"),
        ("boolean", "maybe", "expected true or false"),
        ("strings", "a", "expected a list of texts"),
        ("strings", [1], "expected a list of texts"),
        ("index", -1, "expected an index from 0"),
        ("entities", [], "expected an object"),
        ("entities", {"person": {}}, "'person' is unknown"),
        ("entities", {"neutral": {"a": [3]}}, "the places of 'a'"),
        ("entities", {"neutral": {"a": [["x", "y"]]}}, "the places of 'a'"),
        ("answers", [], "at least one answer"),
        ("answers", [{"text": " "}], "an answer without text"),
        ("answers", [{"text": "a", "answer_start": "x"}], "expected an integer"),
    ],
)
def test_wrong_type_names_the_field(type, raw, said):
    with pytest.raises(BadRecord, match="field 'x'") as caught:
        values(task(LABELS, x=type), x=raw)
    assert said in caught.value.problem


def test_unknown_label_names_the_nearest():
    with pytest.raises(BadRecord) as caught:
        values(task(LABELS, label="label"), label="entailement")
    assert "'entailement' is unknown" in caught.value.problem
    assert caught.value.fix == "Did you mean 'entailment'?"


def test_raw_numbers_and_booleans_match_labels_by_their_text():
    assert values(task({100: "a", 101: "b"}, label="label"), label=101) == {"label": 1}
    assert values(task({True: "a", False: "b"}, label="label"), label=False) == {"label": 1}


def test_missing_field_names_field_and_column():
    with pytest.raises(BadRecord, match=r"field 'text': the record has no 'a.b'"):
        values(task(text={"type": "string", "from": "a.b"}), a={"c": 1})


def test_dotted_source_reaches_into_the_record():
    assert values(task(text={"type": "string", "from": "a.b"}), a={"b": "x"}) == {"text": "x"}


@pytest.mark.parametrize("record", [{}, {"x": None, "label": None}])
def test_absent_optional_and_gold_fields_are_left_out(record):
    assert values(task(LABELS, x={"type": "string", "optional": True}, label="label"), **record) == {}


def test_entities_get_exclusive_ends_chinese_types_and_text_order():
    raw = {"neutral": {"丙": [[4, 4]]}, "entailment": {"甲乙": [[0, 1], [6, 7]]}}
    assert values(task(LABELS, e="entities"), e=raw)["e"] == [
        {"text": "甲乙", "type": "蕴含", "start": 0, "end": 2},
        {"text": "丙", "type": "中立", "start": 4, "end": 5},
        {"text": "甲乙", "type": "蕴含", "start": 6, "end": 8},
    ]


@pytest.mark.parametrize(
    ("answer", "start", "repaired"),
    [
        ({"text": "乙", "answer_start": 1}, 1, 0),
        ({"text": "乙", "answer_start": 2}, 1, 1),
        ({"text": "乙", "answer_start": 6}, 5, 1),
        ({"text": "乙"}, 1, 1),
        ({"text": "丁", "answer_start": 0}, -1, 1),
    ],
)
def test_wrong_answer_offsets_are_repaired_by_search_and_counted(answer, start, repaired):
    converted = convert_record(task(context="string", a="answers"), {"context": "甲乙丙丙丙乙", "a": [answer]})
    assert (converted.values["a"][0]["start"], converted.repaired) == (start, repaired)
