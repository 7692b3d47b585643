import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.readers import read_records
from mengzi_mt.tasks.task import ReaderSpec

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture
def read(tmp_path):
    def read(text, format, encoding="utf-8", **options):
        path = tmp_path / "raw.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return list(read_records(path, ReaderSpec(format=format, encoding=encoding, **options)))

    return read


def records(located):
    return [record for _, record in located]


def test_jsonl_skips_blank_lines_and_keeps_line_numbers(read):
    assert read('\n{"a": 1}\r\n   \n{"a": 2}', "jsonl") == [("line 2", {"a": 1}), ("line 4", {"a": 2})]


def test_jsonl_line_separators_inside_a_string_end_no_line(read):
    text = "一\u2028二\u2029三\x85四\x0b五".replace("\x0b", "\\u000b")
    assert records(read(f'{{"a": "{text}"}}\n', "jsonl")) == [{"a": "一\u2028二\u2029三\x85四\x0b五"}]


@pytest.mark.parametrize("format", ["jsonl", "json", "csv", "tsv", "squad"])
def test_byte_order_mark_is_dropped(read, format):
    text = {"jsonl": '{"a": "1"}', "json": '[{"a": "1"}]', "csv": "a\n1\n", "tsv": "a\n1\n", "squad": '{"data": []}'}[format]
    assert records(read("\ufeff" + text, format)) == ([] if format == "squad" else [{"a": "1"}])


@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv"])
def test_empty_file_has_no_records(read, format):
    assert read("", format) == []


def test_json_array_may_lie_under_a_path(read):
    assert read('{"x": {"y": [{"a": 1}]}}', "json", record_path="x.y") == [("record 1", {"a": 1})]


def test_csv_reads_quotes_line_breaks_and_blank_lines_and_names_the_first_line(read):
    located = read('label,review\r\n1,"a,""b""\r\nc"\r\n\r\n0,d\r\n', "csv")
    assert located == [("line 2", {"label": "1", "review": 'a,"b"\r\nc'}), ("line 5", {"label": "0", "review": "d"})]


def test_tsv_takes_quotes_as_characters(read):
    assert records(read('"a\t1\r\n\r\nb"\t2\n', "tsv", header=("text", "label"))) == [
        {"text": '"a', "label": "1"},
        {"text": 'b"', "label": "2"},
    ]


def test_squad_is_flattened_and_answers_may_be_absent(read):
    document = {
        "data": [
            {
                "title": "T",
                "paragraphs": [
                    {
                        "context": "c",
                        "qas": [{"id": "q1", "question": "?", "answers": [{"text": "c", "answer_start": 0}]}, {"question": "!"}],
                    }
                ],
            }
        ]
    }
    assert read(json.dumps(document), "squad") == [
        ("question 1", {"id": "q1", "title": "T", "context": "c", "question": "?", "answers": [{"text": "c", "answer_start": 0}]}),
        ("question 2", {"id": "2", "title": "T", "context": "c", "question": "!"}),
    ]


@pytest.mark.parametrize(
    ("format", "text", "options", "place", "said"),
    [
        ("jsonl", '{"a": 1}\n{"a": \n', {}, ", line 2", "no JSON object"),
        ("jsonl", '\n\n["a"]\n', {}, ", line 3", "a list, not an object"),
        ("jsonl", '{"a": 1}\n{"a": ' + "1" * 5000 + "}", {}, ", line 2", "cannot be read"),
        ("jsonl", "{}\n" + "[" * 100_000, {}, ", line 2", "cannot be read"),
        ("json", '[{"a": 1},\n{"a" 2}]', {}, ", line 2, column 6", "no JSON document"),
        ("json", '{"a": 1}', {}, "(top level)", "no JSON array"),
        ("json", '{"a": 1}', {"record_path": "a.b"}, "a.b", "no JSON array"),
        ("json", '[{"a": 1}, 2]', {}, ", record 2", "no object"),
        ("csv", "a,b\n1,2\n3\n", {}, ", line 3", "1 columns, expected 2 (a, b)"),
        ("csv", 'a,b\n"1\n2"\n', {}, ", line 2", "1 columns"),
        ("csv", 'a,b\n"1,2\n', {}, ", line 2", "no CSV"),
        ("csv", "a,a\n1,2\n", {}, ", line 1", "Two columns are called 'a'"),
        ("csv", "1,2\n", {"header": False}, "reader.header", "needs its column names"),
        ("tsv", "a\tb\n\n1\t2\t3\n", {}, ", line 3", "3 columns, expected 2"),
        ("squad", "[]", {}, "raw.txt", "no `data` array"),
        ("squad", '{"data": [1]}', {}, "raw.txt", "`paragraphs`"),
        ("squad", '{"data": [{"paragraphs": [{"context": "c", "qas": ["x"]}]}]}', {}, ", question 1", "no 'question'"),
        ("squad", '{"data": [{"paragraphs": [{"qas": [{"question": "x"}]}]}]}', {}, ", question 1", "no 'context'"),
    ],
)
def test_bad_record_names_file_and_place(read, format, text, options, place, said):
    with pytest.raises(InputError) as caught:
        read(text, format, **options)
    assert said in caught.value.what
    assert caught.value.where.endswith(place)


def test_wrong_encoding_names_the_line_and_proposes_gb18030(read):
    with pytest.raises(InputError) as caught:
        read(b'{"a": "x"}\n' + '{"a": "中文"}'.encode("gb18030"), "jsonl")
    assert caught.value.where.endswith("line 2")
    assert "gb18030" in caught.value.fix


def test_declared_encoding_is_used(read):
    assert records(read('{"a": "中文"}', "jsonl", encoding="gb18030")) == [{"a": "中文"}]


def test_missing_file_and_folder_are_input_errors(tmp_path):
    for path, said in ((tmp_path / "none.json", "does not exist"), (tmp_path, "cannot be read")):
        with pytest.raises(InputError, match=said):
            list(read_records(path, ReaderSpec(format="jsonl")))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(TEXT, TEXT, min_size=1), max_size=5))
def test_any_json_lines_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "raw.json"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8", newline="")
    assert records(read_records(path, ReaderSpec(format="jsonl"))) == rows
