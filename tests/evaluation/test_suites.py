import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.suites import load_suite
from mengzi_mt.resources import resource_dir
from mengzi_mt.tasks.registry import get_task

SHIPPED = sorted(path.stem for path in resource_dir("suites").glob("*.yaml"))
MINIMAL = "name: own\ntitle: {zh: 自, en: own}\ntasks: [tnews]\nsplit: test\n"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_suite_loads_and_its_tasks_exist(name):
    suite = load_suite(name)
    assert suite.name == name
    assert [get_task(task).name for task in suite.tasks] == list(suite.tasks)
    assert all(set(published.scores) <= set(suite.tasks) for published in suite.published)


def test_zeroclue_is_the_nine_zero_shot_tasks():
    tasks = [get_task(name) for name in load_suite("zeroclue").tasks]
    assert len(tasks) == 9
    assert {task.role for task in tasks} == {"zero_shot"}
    assert all(task.submission for task in tasks)


@pytest.mark.parametrize("published", [p for p in load_suite("zeroclue").published if len(p.scores) == 9], ids=lambda p: p.model)
def test_published_averages_agree_with_their_scores(published):
    assert sum(published.scores.values()) / 9 == pytest.approx(published.average, abs=0.1)


def test_a_suite_of_ones_own_is_read_from_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    suite = load_suite(str(path))
    assert (suite.tasks, suite.split, suite.normalisation, suite.published) == (("tnews",), "test", "sum", ())


def test_an_unknown_suite_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'zeroclue'"):
        load_suite("zeroclu")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (MINIMAL + "nonsense: 1\n", "nonsense"),
        (MINIMAL.replace("[tnews]", "[]"), "tasks"),
        (MINIMAL + "normalisation: length\n", "normalisation"),
        (MINIMAL.replace("split: test\n", ""), "split"),
    ],
)
def test_an_invalid_suite_names_file_and_key(tmp_path, text, key):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_suite(str(path))
    assert caught.value.where == f"{path}, key {key}"
