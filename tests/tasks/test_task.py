import pytest
import yaml

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.task import load_task

RAW = {
    "name": "toy",
    "version": 1,
    "title": {"zh": "玩具", "en": "Toy"},
    "category": "sentiment",
    "role": "train",
    "licence": {"name": "none", "source": "here"},
    "source": {"path": "toy", "splits": {"train": ["train.json"]}},
    "reader": {"format": "jsonl"},
    "fields": {"text": {"type": "string", "shrink": True}, "label": {"type": "label"}, "id": {"type": "integer", "optional": True}},
    "labels": {0: "差", 1: "好"},
    "label_words": {"review": ["差评", "好评"]},
    "metrics": ["accuracy"],
    "group_by": ["text"],
}


def load(tmp_path, folder="toy", **changes):
    path = tmp_path / folder / "task.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({**RAW, **changes}, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return load_task(path)


def test_task_knows_its_label_gold_and_shrinkable_fields(tmp_path):
    task = load(tmp_path)
    assert (task.label_field, task.gold_fields, task.shrink_fields) == ("label", {"label"}, {"text": "tail"})


def test_numeric_raw_labels_are_text_and_keep_their_order(tmp_path):
    task = load(tmp_path)
    assert task.label_sets() == {"labels": ("差", "好"), "labels.review": ("差评", "好评")}
    assert [task.raw_label(i) for i in (0, 1)] == ["0", "1"]


def test_boolean_raw_labels_are_written_as_json_writes_them(tmp_path):
    assert list(load(tmp_path, labels={True: "是", False: "否"}).labels) == ["true", "false"]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"labels": None, "label_words": {}}, "(whole file)", "needs `labels`"),
        ({"label_words": {"review": ["差评"]}}, "(whole file)", "1 words for 2 labels"),
        ({"labels": {0: "好", 1: "好"}}, "(whole file)", "two labels the same words: 好"),
        ({"group_by": ["txt"]}, "(whole file)", "'txt', which is no field"),
        ({"submission": {"file": "f", "id": "no"}}, "(whole file)", "submission.id"),
        ({"reader": {"format": "xml"}}, "reader.format", "jsonl"),
        ({"reader": {"format": "csv", "encoding": "utf-9"}}, "reader.encoding", "'utf-9' is unknown"),
        ({"reader": {"format": "csv", "delimiter": ";;"}}, "reader.delimiter", "1 character"),
        ({"fields": {"text": {"type": "text"}}}, "fields.text.type", "string"),
        ({"lables": {}}, "lables", "not permitted"),
        ({"version": 0}, "version", "greater than or equal to 1"),
        ({"name": "Toy"}, "name", "pattern"),
    ],
)
def test_invalid_task_names_file_and_key(tmp_path, changes, key, said):
    with pytest.raises(InputError) as caught:
        load(tmp_path, **changes)
    assert caught.value.where.endswith(f"task.yaml, key {key}")
    assert said in caught.value.what


def test_name_and_folder_must_agree(tmp_path):
    with pytest.raises(InputError, match="lies in the folder 'other'"):
        load(tmp_path, folder="other")
