from pathlib import Path

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.data_map import load_data_map
from mengzi_mt.tasks.registry import get_task


def load(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_data_map(path)


def test_map_gives_files_and_official_splits(tmp_path):
    data_map = load(tmp_path, "tasks: {lcqmc: {train: {files: [test.txt], official_split: test}, validation: {files: [a, b]}}}")
    assert data_map.splits("lcqmc") == {"train": ["test.txt"], "validation": ["a", "b"]}
    assert data_map.official_split("lcqmc", "train") == ["test"]
    assert data_map.official_split("lcqmc", "validation") == ["validation"]
    assert data_map.splits("cmnli") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: [a]", "mapping"),
        ("tasks: {a: null}", "key tasks.a"),
        ("tasks: {a: {train: [x]}}", "key tasks.a.train"),
        ("tasks: {a: {train: {files: []}}}", "needs a list of files"),
        ("tasks: {a: {train: {files: [1]}}}", "needs a list of files"),
        ("tasks: {a: {train: {files: [x], official: test}}}", "Did you mean 'official_split'"),
        ("task: {}", "Unknown key 'task'"),
    ],
)
def test_wrong_map_names_file_and_key(tmp_path, text, said):
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert "mine.yaml" in caught.value.where


def test_shipped_map_is_found_by_name_and_names_known_tasks():
    data_map = load_data_map(Path("public-extracts"))
    assert data_map.name == "public-extracts"
    assert all(get_task(name).role == "train" for name in data_map.tasks)


def test_missing_map_is_an_input_error():
    with pytest.raises(InputError, match="does not exist"):
        load_data_map(Path("no-such-map.yaml"))
