import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.suites import load_suite
from mengzi_mt.sdk.answers import Frame, constraint_of, frame_of, listed_form, mentions, words
from mengzi_mt.sdk.catalogue import TASKS, find_task
from mengzi_mt.sdk.methods import Methods


def test_the_ten_tasks_of_the_suite_are_there():
    assert {task.registry for task in TASKS.values()} >= set(load_suite("mengzi-sdk").tasks)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_has_templates_that_read_its_inputs_alone(task):
    names = task.template_names()
    assert names
    for template in task.choose(names):
        values = {**task.task.empty_fields, **dict.fromkeys(task.inputs.values(), "某某"), "labels_of_caller": ["甲", "乙"]}
        rendered = template.render(values, with_target=False)
        assert "某某" in rendered.inputs
        assert bool(rendered.choices) == (task.kind in ("label", "relation"))
        assert rendered.shrinkable


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_has_a_method(task):
    assert hasattr(Methods, task.name) or task.name.startswith("translation_")


def test_the_labels_are_those_of_the_registry():
    assert TASKS["sentiment"].labels == ("正面", "负面")
    assert len(TASKS["news_topic"].labels) == 15
    assert TASKS["classify"].labels == ()
    assert TASKS["advertising_copy"].labels == ()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (0, "No template"), (99, "has 12 templates"), ("nothing", "is unknown"), ("write_review", "does not fit"),
        (True, "No template"), ([], "No template"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_used_are_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        TASKS["sentiment"].choose(wanted)


def test_an_unknown_task_names_the_near_ones():
    with pytest.raises(InputError) as error:
        find_task("sentimnet")
    assert "'sentiment'" in error.value.paragraph()
    with pytest.raises(InputError):
        find_task(None)


def frame(task, template):
    return frame_of(TASKS[task], TASKS[task].choose(template)[0])


def test_how_a_template_writes_its_answer_is_read_off_the_template():
    assert frame("comment_object", "quoted_answer_format") == Frame("“", "”")
    assert frame("person_names", "names_instruction") == Frame(between="，", nothing="无")
    assert frame("company_names", "line_by_line").between == "\n"
    assert frame("translation_zh_en", "zh_en_chat_named_format").inside("EN: Hello.") == "Hello."
    assert frame("title", "named_format_book_marks").inside("《甲》") == "甲"


def test_words_of_a_list():
    assert words(frame("keywords", "keywords_from_title_and_abstract"), "公园;绿地；公园; 心理") == ("公园", "绿地", "心理")


def test_mentions_of_answers():
    assert mentions(TASKS["person_names"], "张三,李四") == [("姓名", "张三"), ("姓名", "李四")]
    assert mentions(TASKS["person_names"], "姓名:张三;电话:110") == [("姓名", "张三")]
    assert mentions(TASKS["company_names"], "无") == []
    assert mentions(TASKS["entities"], "人名:张三;地名:北京,上海") == [("人名", "张三"), ("地名", "北京"), ("地名", "上海")]


def test_entities_are_constrained_where_they_stand_under_headings():
    task = TASKS["entities"]
    by_name = {template.name: listed_form(task, template) for template in task.choose(task.template_names())}
    grouped = by_name["all_grouped_one_line"]
    assert (grouped.headings[0], grouped.later[:2], grouped.nothing) == ("人名：", ("，", "；人名："), "无")
    assert by_name["role_news_indexer"].later[1] == "【人名】"
    assert by_name["all_pairs"] is None and by_name["dialogue_two_annotators"] is None
    assert constraint_of(TASKS["title"], TASKS["title"].choose(1)[0]) is None
