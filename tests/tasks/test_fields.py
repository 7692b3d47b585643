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
        ("entities", "a", "expected an object of entity types or a list of spans"),
        ("entities", [{"type": "neutral"}], "a span needs `type` and `text`"),
        ("entities", [{"type": "person", "text": "a"}], "'person' is unknown"),
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


def test_listed_spans_without_places_are_found_in_the_text():
    spans = [{"type": "neutral", "text": "丙"}, {"type": "entailment", "text": "甲", "start": 0, "end": 1}]
    converted = convert_record(task(LABELS, text="string", e="entities"), {"text": "甲乙丙", "e": spans})
    assert [(span["text"], span["start"], span["end"]) for span in converted.values["e"]] == [("甲", 0, 1), ("丙", 2, 3)]
    assert converted.repaired == 1


def test_mention_that_the_text_lacks_is_an_error():
    with pytest.raises(BadRecord, match="the mention '丁' does not stand in the text"):
        values(task(LABELS, text="string", e="entities"), text="甲乙丙", e=[{"type": "neutral", "text": "丁"}])


def test_hub_style_answers_read_as_squads():
    raw = {"text": ["乙", "丙"], "answer_start": [1, 2]}
    assert values(task(context="string", a="answers"), context="甲乙丙", a=raw)["a"] == [
        {"text": "乙", "start": 1},
        {"text": "丙", "start": 2},
    ]


def test_first_path_at_hand_is_taken():
    spec = {"type": "string", "from": ["x.y", "z"]}
    assert values(task(a=spec), z="乙") == {"a": "乙"}
    assert values(task(a=spec), x={"y": "甲"}, z="乙") == {"a": "甲"}
    with pytest.raises(BadRecord, match=r"no 'x\.y or z'"):
        values(task(a=spec), w=1)


def test_nan_and_null_count_as_absent():
    spec = {"type": "label", "optional": True}
    assert values(task(LABELS, a=spec), a=float("nan")) == values(task(LABELS, a=spec), a=None) == {}


@pytest.mark.parametrize(
    ("options", "raw", "text"),
    [
        ({"join": ""}, ["甲", "乙"], "甲乙"),
        ({"join": "\n", "item": "t"}, [{"t": "甲"}, {"t": " 乙 "}], "甲\n乙"),
        ({"join": "\n", "prefix": ["问：", "答："]}, ["一", "二", "三"], "问：一\n答：二\n问：三"),
        ({"join": "\n"}, [], ""),
        ({"remove_spaces": True}, "生完 小孩 ， iPhone 14 Pro 发布", "生完小孩，iPhone 14 Pro发布"),
        ({"remove_spaces": True}, "风 弦 未 拨 ", "风弦未拨"),
        ({"pattern": "@(.*)$"}, "糖尿病@多饮\n多尿", "多饮\n多尿"),
    ],
)
def test_texts_are_joined_cleaned_and_cut_out(options, raw, text):
    assert values(task(a={"type": "string", **options}), a=raw) == {"a": text}


def test_pattern_that_finds_nothing_is_an_error_unless_optional():
    assert values(task(a={"type": "string", "pattern": "(x)", "optional": True}), a="甲") == {}
    with pytest.raises(BadRecord, match="finds nothing in '甲'"):
        values(task(a={"type": "string", "pattern": "(x)"}), a="甲")


def test_text_is_split_into_a_list():
    assert values(task(a={"type": "strings", "split": "_"}), a="甲_乙 _") == {"a": ["甲", "乙"]}


def test_field_needs_a_label_set_that_there_is():
    with pytest.raises(ValueError, match="`more_labels` does not have"):
        task(LABELS, a={"type": "label", "labels": "domain"})


def test_objects_are_reduced_to_their_items():
    spec = {"type": "objects", "items": {"s": "subject", "o": "object.@value", "n": "note?"}}
    raw = [{"subject": " 甲 ", "object": {"@value": "乙"}, "more": 1}, {"subject": "丙", "object": {"@value": "丁"}, "note": "x"}]
    assert values(task(a=spec), a=raw)["a"] == [{"s": "甲", "o": "乙"}, {"s": "丙", "o": "丁", "n": "x"}]
    with pytest.raises(BadRecord, match=r"has no 'object\.@value'"):
        values(task(a=spec), a=[{"subject": "甲"}])
    with pytest.raises(BadRecord, match="expected a list of objects"):
        values(task(a=spec), a=["甲"])


def test_index_beyond_its_list_is_an_error():
    spec = task(options="strings", answer={"type": "index", "of": "options"})
    assert values(spec, options=["甲", "乙"], answer=1)["answer"] == 1
    with pytest.raises(BadRecord, match="the index 2 points beyond the 2 of 'options'"):
        values(spec, options=["甲", "乙"], answer=2)
