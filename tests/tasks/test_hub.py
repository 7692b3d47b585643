import json

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, available_splits, load_rows
from mengzi_mt.tasks.task import Hub


@pytest.fixture
def hub_task(tmp_path, monkeypatch):
    """lcqmc with a local folder in the hub's layout as its hub dataset."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "lcqmc_hub"
    folder.mkdir()
    for name, count in (("train", 3), ("validation", 2)):
        rows = [{"sentence1": f"问题{i}", "sentence2": "别的问题", "label": i % 2} for i in range(count)]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    task = get_task("lcqmc")
    hub = Hub(id=str(folder), splits={"train": "train", "validation": "validation"})
    return task.model_copy(update={"source": task.source.model_copy(update={"hub": hub})})


def test_hub_dataset_loads_from_a_local_folder(hub_task):
    source = DataSource("hub")
    assert available_splits(hub_task, source) == ["train", "validation"]
    rows = load_rows(hub_task, "train", source)
    assert [row.values["label"] for row in rows] == [0, 1, 0]
    assert rows.rows[0].values["sentence1"] == "问题0"
    assert rows.provenance["source"] == "hub"


def test_unknown_split_is_an_input_error(hub_task):
    with pytest.raises(InputError, match="gives no split 'validaton'") as caught:
        load_rows(hub_task, "validaton", DataSource("hub"))
    assert "Did you mean 'validation'" in caught.value.fix


def test_unreachable_dataset_is_an_input_error(hub_task):
    gone = hub_task.source.model_copy(update={"hub": Hub(id="nobody/nothing-at-all")})
    with pytest.raises(InputError, match="cannot be loaded"):
        load_rows(hub_task.model_copy(update={"source": gone}), "train", DataSource("hub"))


def test_task_without_hub_dataset_says_so(hub_task):
    none = hub_task.model_copy(update={"source": hub_task.source.model_copy(update={"hub": "unknown"})})
    assert available_splits(none, DataSource("hub")) == []
    with pytest.raises(InputError, match="names no hub dataset"):
        load_rows(none, "train", DataSource("hub"))
