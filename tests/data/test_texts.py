from mengzi_mt.data.texts import every_text, han, text_fields, text_keys
from mengzi_mt.tasks.registry import all_tasks, get_task


def test_han_keeps_han_characters_alone():
    assert han("ＡＢ Ⅳ 今天，天 气\n真好！iPhone12 ㈱〇々𠀀") == "今天天气真好株〇𠀀"
    assert han("\ud83d😀 ascii") == ""


def test_compatibility_ideographs_become_the_usual_ones():
    assert han("\uf900\u2f00") == "豈一"


def test_text_fields_are_those_before_the_answer():
    csl = get_task("csl")
    row = {"abst": "摘要", "keyword": ["词一", "词二"], "label": 0, "id": 3}
    assert text_fields(text_keys(csl), row) == {"abst": "摘要", "keyword": "词一\n词二"}
    assert text_fields(text_keys(csl), {"abst": ""}) == {}


def test_a_text_read_from_where_the_answer_stands_is_no_text_field():
    assert text_keys(get_task("csldcp")) == ("content",)


def test_every_task_has_text_fields():
    assert all(text_keys(task) for task in all_tasks())


def test_every_text_walks_lists_and_objects():
    values = {"a": "甲", "n": 3, "list": ["乙", "丙"], "answers": [{"text": "丁", "start": 0}], "one": ["戊"]}
    assert list(every_text(values)) == ["甲", "乙\n丙", "丁", "戊"]
