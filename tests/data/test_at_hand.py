import pytest

from mengzi_mt.data.at_hand import for_each, splits_at_hand
from mengzi_mt.errors import InputError
from mengzi_mt.tasks.registry import get_task

TASKS = [get_task("finre"), get_task("lcqmc")]


@pytest.fixture
def source(write_root):
    return write_root(lcqmc={"test.txt": [["甲", "乙", 0]]})


def test_tasks_without_files_are_named(source):
    results, left = for_each(TASKS, source, lambda task: splits_at_hand(task, source), strict=False)
    assert results == [["test"]]
    assert left[0]["task"] == "finre" and "nothing for the task 'finre'" in left[0]["reason"]


def test_strictly_they_are_refused_before_any_work(source):
    done = []
    with pytest.raises(InputError, match="nothing for the task 'finre'"):
        for_each(TASKS[::-1], source, done.append, strict=True)
    assert not done


def test_a_folder_without_a_complete_split(source, write_root):
    (source.root / "finre").mkdir()
    with pytest.raises(InputError, match="No split of the task 'finre' is at hand"):
        splits_at_hand(TASKS[0], source)
    assert splits_at_hand(TASKS[1], source) == ["test"]


def test_other_errors_of_one_task_leave_the_rest(write_root):
    source = write_root(lcqmc={"test.txt": [["甲", "乙", 7]]})

    def read(task):
        from mengzi_mt.tasks.rows import load_rows

        return load_rows(task, "test", source)

    results, left = for_each(TASKS[1:], source, read, strict=False)
    assert not results and "label '7' is unknown" in left[0]["reason"]
