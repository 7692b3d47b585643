import json
from pathlib import Path

import pytest

TEXT = "上个月在网上订的那台白色洗衣机为什么到现在还没有送到我家里来"


@pytest.fixture
def root(tmp_path):
    """A data folder where a test text of bustm is the seventh training row of lcqmc."""
    folder = tmp_path / "data"
    (folder / "fewclue" / "bustm").mkdir(parents=True)
    (folder / "lcqmc").mkdir()
    row = {"sentence1": TEXT, "sentence2": "洗衣机呢", "id": 0}
    (folder / "fewclue" / "bustm" / "test.json").write_text(json.dumps(row), encoding="utf-8")
    lines = [f"第{n}种花怎么浇水\t第{n}种花浇水\t{n % 2}" for n in range(20)]
    lines[6] = f"{TEXT}？\t催一下\t1"
    (folder / "lcqmc" / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def overlap(command, root, *more):
    return command("data", "overlap", "--tasks", "lcqmc", "--against", "bustm", "--data-dir", root, *more)


def test_overlap_as_a_table(command, root):
    result = overlap(command, root)
    assert result.code == 0
    assert "lcqmc" in result.out and "bustm" in result.out and "1 of 20" in result.out
    assert "[1/1] lcqmc" in result.err


def test_overlap_as_json_and_as_a_file(command, root, tmp_path):
    shown = json.loads(overlap(command, root, "--json", "--output", tmp_path / "out" / "report.json").out)
    assert shown["summary"][0]["texts"] == {"all": 1, "equal": 1, "contained": 0, "near": 0}
    assert shown["settings"] == {"min_han": 8, "ngram": 8, "share": 0.6, "data": "files", "data_map": None}
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["hits"] == [{"training": "lcqmc", "row": "train.txt:7", "text": 0, "kind": "equal", "share": 1.0}]
    assert report["texts"][0]["places"] == [{"task": "bustm", "split": "test", "row": "test.json:1", "field": "sentence1"}]
    assert set(report) - set(shown) == {"texts", "hits"}


def test_overlap_with_a_corpus(command, root, tmp_path):
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": f"前文。{TEXT}。后文"}), encoding="utf-8")
    lines = json.loads(overlap(command, root, "--corpus", "c.jsonl", "--json").out)["summary"]
    assert [(line["training"], line["texts"]["contained"]) for line in lines] == [("lcqmc", 0), ("c.jsonl", 1)]


def test_view_of_an_overlap_is_what_training_leaves_out(command, root):
    from mengzi_mt.data.view import RowFilter, load_view
    from mengzi_mt.tasks.registry import get_task
    from mengzi_mt.tasks.rows import DataSource

    result = overlap(command, root, "--write-view", "view.yaml")
    assert "view.yaml: 1 rows of 1 tasks to be left out" in result.err
    view = load_view(Path("view.yaml"))
    assert view.tasks["lcqmc"].exclude == {"train.txt:7"} and set(view.tasks["lcqmc"].files) == {"train.txt"}
    rows = RowFilter(view, DataSource("files", root))
    ids = {row.row_id for split in ("train", "validation") for row in rows.load_rows(get_task("lcqmc"), split)}
    assert len(ids) == 19 and "train.txt:7" not in ids


def test_tasks_without_files_are_named(command, root):
    result = command("data", "overlap", "--against", "bustm", "--data-dir", root)
    assert result.code == 0 and "not compared: finre" in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "lcqm"], "Did you mean 'lcqmc'"),
        (["--tasks", "bustm"], "has the role zero_shot"),
        (["--against", "bustm", "--tasks", "finre"], "nothing for the task 'finre'"),
        (["--against", "lcqmc"], "has the role train"),
        (["--against", "tnews"], "nothing for the task 'tnews'"),
        (["--against", "bustm", "--ngram", "12"], "--ngram"),
        (["--against", "bustm", "--share", "2"], "--share"),
        (["--against", "bustm", "--tasks", "lcqmc", "--corpus", "none.jsonl"], "does not exist"),
    ],
)
def test_overlap_refuses(command, root, arguments, said):
    assert said in command("data", "overlap", "--data-dir", root, *arguments).refused()


def test_stats_as_a_table(command, root):
    result = command("data", "stats", "lcqmc", "--data-dir", root)
    assert result.code == 0
    assert "data files" in result.out and "lcqmc" in result.out and "train" in result.out


def test_stats_of_the_sample_as_json_and_page(command, tmp_path, tokenizer_dir):
    result = command("data", "stats", "lcqmc", "bustm", "--tokenizer", tokenizer_dir, "--html", tmp_path / "p.html", "--json")
    stats = json.loads(result.out)
    assert [task["task"] for task in stats["tasks"]] == ["lcqmc", "bustm"]
    assert stats["settings"]["data"] == "sample"
    assert "不是真实数据" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_stats_refuses(command, root):
    assert "Did you mean 'lcqmc'" in command("data", "stats", "lcqm").refused()
    assert "nothing for the task 'finre'" in command("data", "stats", "finre", "--data-dir", root).refused()
    assert "No tokenizer can be loaded" in command("data", "stats", "lcqmc", "--tokenizer", "none/at-all").refused()


def test_lengths_proposes_rows_for_a_recipe(command, tokenizer_dir, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "{name: try, data: {source: sample}, model: {shape: micro, tokenizer: train}, training: {steps: 1, batch: 32},"
        " mixture: {tasks: [lcqmc, finre]}, lengths: {max_input: 256, max_target: 32, rows: [[256, 32]]}}",
        encoding="utf-8",
    )
    arguments = ("data", "lengths", path, "--examples", "128", "--most", "3")
    assert "give one with --tokenizer" in command(*arguments).refused()
    lines = json.loads(command(*arguments, "--tokenizer", tokenizer_dir, "--json").out)
    assert lines[0]["rows"] == [[256, 32]]
    assert [len(line["rows"]) for line in lines[1:]] == [1, 2, 3]
    assert lines[0]["both"] < lines[-1]["both"] <= 1
    shown = command(*arguments, "--tokenizer", tokenizer_dir, "mixture.tasks=[lcqmc]").out
    assert "steps of 32" in shown and f"{[[256, 32]]}" in shown
    assert "do not hold an input of 256" in command(*arguments, "--tokenizer", tokenizer_dir, "--encoder", "128").refused()
