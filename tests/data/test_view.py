from pathlib import Path

import pytest

from mengzi_mt.data.view import RowFilter, TaskView, file_hashes, load_view, write_view
from mengzi_mt.errors import InputError
from mengzi_mt.resources import resource_dir
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.yaml_io import load_mapping

HEAD = "schema: mengzi-mt/view/1\n"
LCQMC = get_task("lcqmc")


@pytest.fixture
def source(write_root):
    return write_root(
        lcqmc={
            "train.txt": [[f"第{n}问", f"第{n}答", n % 2] for n in range(200)],
            "test.txt": [["测试问", "测试答", 0]],
        }
    )


@pytest.fixture
def view_of(tmp_path, source):
    """Writes and reads the view of lcqmc: ``view_of("train.txt:1", …, files=…, version=…)``."""

    def make(*row_ids, **about):
        files = about.get("files", file_hashes(LCQMC, source, ["train.txt", "test.txt"]))
        path = tmp_path / "view.yaml"
        write_view(path, {"lcqmc": TaskView(frozenset(row_ids), files, about.get("version", LCQMC.version))}, {"created": "now"})
        return load_view(path)

    return make


def test_listed_rows_are_left_out_and_counted(view_of, source):
    before = {split: {row.row_id for row in RowFilter(None, source).load_rows(LCQMC, split)} for split in ("train", "validation")}
    listed = {
        sorted(before["train"])[0],
        sorted(before["train"])[1],
        sorted(before["validation"])[0],
        "test.txt:1",
        "train.txt:999",
    }
    rows = RowFilter(view_of(*listed), source)
    for split in before:
        assert {row.row_id for row in rows.load_rows(LCQMC, split)} == before[split] - listed
    account = rows.account(LCQMC)
    assert account["listed"] == 5 and account["left_out"] == {"train": 2, "validation": 1}
    assert (account["in_other_files"], account["not_found"], account["first_not_found"]) == (1, 1, ["train.txt:999"])
    assert "lists 1 rows of 'lcqmc' that are not there (first: train.txt:999)" in rows.warning(LCQMC)


def test_rows_of_the_other_side_of_a_cut_are_not_missed(view_of, source):
    validation = [row.row_id for row in RowFilter(None, source).load_rows(LCQMC, "validation")]
    rows = RowFilter(view_of(*validation), source)
    rows.load_rows(LCQMC, "train")
    assert rows.account(LCQMC)["not_found"] == 0 and rows.warning(LCQMC) is None


def test_limit_counts_what_is_left(view_of, source):
    first = [row.row_id for row in RowFilter(None, source).load_rows(LCQMC, "train", 5)]
    left = RowFilter(view_of(*first[:2]), source).load_rows(LCQMC, "train", 3)
    assert [row.row_id for row in left][:3] == first[2:5]


def test_without_a_view_every_row_passes(source):
    rows = RowFilter(None, source)
    assert len(rows.load_rows(LCQMC, "train")) + len(rows.load_rows(LCQMC, "validation")) == 200
    assert rows.account(LCQMC) is None and rows.warning(LCQMC) is None


def test_a_task_that_the_view_does_not_name_is_warned_of(view_of, write_root):
    source = write_root(finre={"train.txt": [["甲", "乙", "unknown", "甲与乙"]]})
    rows = RowFilter(view_of("train.txt:1"), source)
    assert rows.account(get_task("finre"))["listed"] is None
    assert "says nothing of the task 'finre'" in rows.warning(get_task("finre"))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"files": {"test.txt": "0"}}, "without looking at train.txt"),
        ({"files": {"train.txt": "0" * 16}}, "another train.txt than the one at hand"),
        ({"version": 99}, "version 99 of the task 'lcqmc'"),
    ],
)
def test_a_view_of_other_files_is_refused(view_of, source, about, said):
    with pytest.raises(InputError, match=said) as caught:
        RowFilter(view_of("train.txt:1", **about), source).load_rows(LCQMC, "train")
    assert "view.yaml, key tasks.lcqmc" in caught.value.where and "--write-view" in caught.value.fix


def test_a_view_written_by_hand_needs_no_hashes(tmp_path, source):
    path = tmp_path / "hand.yaml"
    path.write_text(HEAD + "tasks: {lcqmc: {exclude: ['train.txt:1']}}", encoding="utf-8")
    rows = RowFilter(load_view(path), source)
    assert "train.txt:1" not in {row.row_id for split in ("train", "validation") for row in rows.load_rows(LCQMC, split)}


def test_the_bundled_sample_has_hashes_too(tmp_path):
    source = DataSource("sample")
    hashes = file_hashes(LCQMC, source, ["sample.jsonl"])
    write_view(tmp_path / "v.yaml", {"lcqmc": TaskView(frozenset({"sample.jsonl:1"}), hashes, LCQMC.version)}, {})
    rows = RowFilter(load_view(tmp_path / "v.yaml"), source)
    rows.load_rows(LCQMC, "train")
    assert sum(rows.account(LCQMC)["left_out"].values()) == 1


def test_siblings_of_a_file_count_into_its_hash(write_root):
    couplets = get_task("couplets")
    file = couplets.source.splits["train"][0]
    sibling = couplets.reader.for_file(file).siblings[0]
    source = write_root()
    folder = source.root / couplets.source.path
    (folder / file).parent.mkdir(parents=True)
    for name in (file, str((folder / file).parent / sibling)):
        (folder / name).write_text("一 行\n", encoding="utf-8")
    before = file_hashes(couplets, source, [file])
    ((folder / file).parent / sibling).write_text("另 一 行\n", encoding="utf-8")
    assert file_hashes(couplets, source, [file]) != before


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ("tasks: {}", "has the schema None", "key schema"),
        (HEAD + "rows: {}", "Unknown key 'rows'", "v.yaml"),
        (HEAD, "needs the key `tasks`", "v.yaml"),
        (HEAD + "tasks: {lcqmcc: {exclude: []}}", "There is no task 'lcqmcc'", "key tasks.lcqmcc"),
        (HEAD + "tasks: {lcqmc: []}", "needs the key `exclude`", "key tasks.lcqmc"),
        (HEAD + "tasks: {lcqmc: {exclude: [], files: x}}", "must be a mapping", "key tasks.lcqmc.files"),
        (HEAD + "tasks: {lcqmc: {exclude: [], rows: 3}}", "Unknown key 'rows'", "key tasks.lcqmc"),
        (HEAD + "tasks: {lcqmc: {exclude: [12]}}", "12 is no row id", "key tasks.lcqmc.exclude"),
        (HEAD + "tasks: {lcqmc: {exclude: [train.txt]}}", "'train.txt' is no row id", "key tasks.lcqmc.exclude"),
    ],
)
def test_a_view_that_does_not_read(tmp_path, text, said, where):
    path = tmp_path / "v.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_view(path)
    assert said in caught.value.what and where in caught.value.where and caught.value.fix


def test_the_shipped_view_has_looked_at_every_task_of_the_release():
    view, recipe = load_view(Path("zeroclue")), load_mapping(resource_dir("recipes") / "release-mini.yaml")
    assert set(recipe["mixture"]["tasks"]) <= set(view.tasks) and recipe["data"]["exclude"] == "zeroclue"
    assert all(task.files for task in view.tasks.values()) and sum(len(task.exclude) for task in view.tasks.values()) > 100
    zero_shot = set(load_mapping(resource_dir("suites") / "zeroclue.yaml")["tasks"])
    assert not zero_shot & set(recipe["mixture"]["tasks"]) and set(load_mapping(view.path)["evaluation"]) == zero_shot


def test_the_shipped_views_files_are_those_at_hand(data_root):
    source = DataSource("files", data_root, load_data_map(Path("public-extracts")))
    rows = RowFilter(load_view(Path("zeroclue")), source)
    for name in ("lcqmc", "ocemotion", "c3"):
        task = get_task(name)
        rows.load_rows(task, "train")  # refused where the files are others, or the task has another version
        account = rows.account(task)
        assert sum(account["left_out"].values()) > 0 and not account["not_found"]


def test_a_view_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="The view does not exist") as caught:
        load_view(tmp_path / "none.yaml")
    assert "data.exclude" in caught.value.where
