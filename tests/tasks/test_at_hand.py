from mengzi_mt.tasks.at_hand import source_at_hand
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import load_rows


def write(root, name, text):
    path = root / "lcqmc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_every_file_is_read_once_and_nothing_is_cut_off(tmp_path):
    write(tmp_path, "test.txt", "".join(f"甲{i}\t乙{i}\t1\n" for i in range(200)))
    source, splits = source_at_hand(get_task("lcqmc"), tmp_path)
    assert splits == ["test files"]  # the shipped map names the same file as its training file
    assert len(load_rows(get_task("lcqmc"), "test files", source)) == 200


def test_files_of_a_shipped_map_count_too(tmp_path):
    path = tmp_path / "cluener2020"
    path.mkdir()
    assert source_at_hand(get_task("cluener2020"), tmp_path)[1] == []
    (path / "train.json").write_text('{"text": "甲", "label": {}}\n', encoding="utf-8")
    source, splits = source_at_hand(get_task("cluener2020"), tmp_path)
    assert [len(load_rows(get_task("cluener2020"), split, source)) for split in splits] == [1]
