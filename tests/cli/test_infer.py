import csv
import json

import pytest
from typer.testing import CliRunner

from mengzi_mt.cli.main import app
from mengzi_mt.errors import InputError
from mengzi_mt.sdk.tables import already_written, read_lines

ROWS = '﻿id,评论\r\n1,"房间干净，\n很满意"\r\n2,"又吵,又脏"\r\n3,说""一般""\r\n\r\n4,"他说""好"""\r\n'


@pytest.fixture
def infer(tmp_path, monkeypatch):
    monkeypatch.setattr("mengzi_mt.cli.infer.CHUNK", 1)

    def run(*arguments, stdin=None):
        return CliRunner().invoke(app, ["infer", "-", "--device", "cpu", *map(str, arguments)], input=stdin)

    return run


def test_a_text(infer):
    done = infer("--task", "answer", "桥由茅以升设计。", "--also", "question=谁设计的？")
    assert json.loads(done.stdout)["text"] in "桥由茅以升设计。"


def test_the_tasks_are_listed(infer):
    assert "financial_relation" in infer().stdout


@pytest.mark.parametrize("cut", [0, 20, 60, 95, 100, 130])
def test_an_interrupted_csv_goes_on_behind_complete_rows(infer, tmp_path, cut):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(ROWS.encode())
    command = ("--task", "sentiment", "--input", source, "--output", output, "--column", "text=评论", "--batch-size", 2)
    assert infer(*command).exit_code == 0
    whole = output.read_bytes()
    found = list(csv.DictReader(whole.decode().splitlines(keepends=True)))
    assert [row["id"] for row in found] == ["1", "2", "3", "4"]
    assert found[0]["评论"] == "房间干净，\n很满意" and found[0]["sentiment"] == "正面"
    output.write_bytes(whole[:cut])
    assert infer(*command).exit_code == 0
    assert output.read_bytes() == whole


def test_an_interrupted_jsonl_goes_on_and_a_strange_output_is_refused(infer, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ['{"text": "很好", "n": 1}', '{"text": "\\ud800差", "n": 2}', '{"text": "一\u2028般", "n": 3}']
    source.write_text("\n".join(lines), encoding="utf-8")
    command = ("--task", "sentiment", "--input", source, "--output", output)
    assert infer(*command).exit_code == 0
    whole = output.read_bytes()
    assert [json.loads(line)["n"] for line in whole.decode().split("\n")[:-1]] == [1, 2, 3]
    output.write_bytes(whole[:-30])
    assert infer(*command).exit_code == 0
    assert output.read_bytes() == whole
    other = infer("--task", "news_topic", "--input", source, "--output", output)
    assert isinstance(other.exception, InputError) and "do not belong" in other.exception.what
    assert infer("--task", "news_topic", "--input", source, "--output", output, "--fresh").exit_code == 0


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (("--labels", "好,坏"), 'labels ["好评", "差评"], now ["好", "坏"]'),
        (("--template", "2"), "templates 1, now 2"),
        (("--dtype", "bfloat16"), 'dtype by default, now "bfloat16"'),
        (("--max-input", "64"), "max_input 512, now 64"),
    ],
)
def test_an_output_goes_on_with_the_settings_it_was_begun_with(infer, tmp_path, others, told):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("很好\n很差\n", encoding="utf-8")
    command = {"--task": "classify", "--input": source, "--output": output, "--labels": "好评,差评"}

    def run(options):
        return infer(*(part for pair in options.items() for part in pair))

    assert run(command).exit_code == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2 + 3])
    changed = {**command, others[0]: others[1]}
    refused = run(changed)
    assert isinstance(refused.exception, InputError) and refused.exception.what.endswith(told)
    assert output.read_bytes() == whole[: len(whole) // 2 + 3]
    assert run(command).exit_code == 0 and output.read_bytes().count(b"\n") == 2
    assert infer(*(part for pair in changed.items() for part in pair), "--fresh").exit_code == 0
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text(encoding="utf-8"))["task"] == "classify"


def test_an_output_does_not_go_on_with_another_model(infer, tmp_path, monkeypatch):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("很好\n", encoding="utf-8")
    command = ("--task", "sentiment", "--input", source, "--output", output)
    assert infer(*command).exit_code == 0
    settings = tmp_path / "out.jsonl.settings.json"
    begun = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**begun, "model": "moved since"}), encoding="utf-8")
    assert infer(*command).exit_code == 0
    settings.write_text(json.dumps({**begun, "model": "another", "weights": "0" * 16}), encoding="utf-8")
    refused = infer(*command)
    assert isinstance(refused.exception, InputError) and 'model "another", now "-"; weights' in refused.exception.what
    settings.write_text("[]", encoding="utf-8")
    assert "do not read" in infer(*command).exception.what
    settings.unlink()  # an output of an earlier version
    assert infer(*command).exit_code == 0


def test_standard_input_to_standard_output_with_labels(infer):
    done = infer("--task", "classify", "--labels", "物流，退款", stdin="快递没到\n\n我要退钱\n")
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["text"] for one in found] == ["快递没到", "我要退钱"]
    assert list(found[0]["classify"]["probabilities"]) == ["物流", "退款"]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('{"text": "好"}\n{"text": 5}\n', "line 2", "Expected a text"),
        ('{"text": "好"}\nnone\n', "line 2", "no JSON"),
        ('{"text": "好"}\n\n{"texts": "好"}\n', "line 3", "no column 'text'"),
        ('{"text": ""}\n', "line 1", "empty"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(infer, tmp_path, content, where, what):
    source = tmp_path / "in.jsonl"
    source.write_text(content, encoding="utf-8")
    done = infer("--task", "sentiment", "--input", source, "--output", tmp_path / "out.jsonl")
    assert isinstance(done.exception, InputError)
    assert done.exception.where == f"{source}, {where}" and what in done.exception.what


def test_bad_rows_can_be_skipped(infer, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": ""}\n{"text": "很好"}\n', encoding="utf-8")
    done = infer("--task", "sentiment", "--input", source, "--output", output, "--skip-bad")
    assert "line 1" in done.stderr
    first, second = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert first["sentiment"] is None and second["sentiment"]["label"]


def test_csv_rows_that_do_not_read(tmp_path):
    for content, where in (("a,b\n1\n", "line 2"), ('a\n"x\n', "line 2"), ("a,a\n", "line 1")):
        path = tmp_path / "in.csv"
        path.write_text(content, encoding="utf-8")
        with path.open("rb") as file, pytest.raises(InputError) as error:
            list(read_lines(file, "in.csv", "csv"))
        assert error.value.where == f"in.csv, {where}"


def test_an_output_without_a_complete_row_is_empty(tmp_path):
    path = tmp_path / "out.csv"
    for content in ("", "a,b", "a,b\n", 'a,b\n"1\n'):
        path.write_text(content, encoding="utf-8")
        assert already_written(path, "csv").rows == 0
