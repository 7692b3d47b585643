import pytest

from mengzi_mt import MengziZeroShot
from mengzi_mt.errors import InputError
from mengzi_mt.sdk.results import Entities, Entity
from mengzi_mt.sdk.zero_shot import TASK_TYPES

OLD_SCRIPT = """
from mengzi_zs import MengziZeroShot

mz = MengziZeroShot()
mz.load()
results = [
    mz.inference(task_type="entity_extraction", input_string="昨天张伟在百度公司见到了李娜"),
    mz.inference(task_type="text_similarity", input_string="怎么换卡", input_string2="如何换绑定的卡"),
    mz.inference(task_type="financial_relationship_extraction", input_string="海天集团收购蓝波科技", entity1="海天集团", entity2="蓝波科技"),
    mz.inference(task_type="ad_generation", input_string="类型-裤，版型-宽松"),
    mz.inference(task_type="medical_domain_intent_classifier", input_string="血糖高吃什么药"),
    mz.inference(task_type="sentiment_classifier", input_string="房间又小又吵，不会再来"),
    mz.inference(task_type="comment_object_extraction", input_string="西山公园的红叶很美"),
    mz.inference(task_type="news_classifier", input_string="国足客场取胜，出线在望"),
    mz.inference(task_type="name_extraction", input_string="我是张三，家住北京"),
    mz.inference("company_extraction", "百度公司发布了新产品"),
]
"""


def test_a_script_of_an_existing_user_runs_with_one_import_changed():
    names = {}
    exec(OLD_SCRIPT.replace("from mengzi_zs import", "from mengzi_mt import"), names)
    entities, same, relation, copy, intent, mood, target, topic, people, companies = names["results"]
    assert all(isinstance(one, str) for one in names["results"])
    assert (same in ("是", "不是"), mood, topic) == (True, "消极", "体育")
    assert intent in ("治疗方案", "注意事项", "病情诊断", "其他", "疾病表述")
    assert target and target in "西山公园的红叶很美"
    assert copy and relation
    assert all("：" in one for one in entities.split("，") if one)
    assert all(one in "我是张三，家住北京" for one in people.split("，"))
    assert all(one in "百度公司发布了新产品" for one in companies.split("，"))


def test_entities_are_written_in_the_old_words():
    write = TASK_TYPES["entity_extraction"][1]
    found = (Entity("人名", "张三", 0, 2), Entity("政府机构", "市局", 3, 5), Entity("人名", "张三", 7, 9))
    assert write(Entities(task="entities", templates=("t",), entities=found)) == "张三：姓名，市局：政府"


def test_what_it_refuses():
    with pytest.raises(InputError, match=r"load\(\) first"):
        try:
            MengziZeroShot().inference("news_classifier", "好")
        except InputError as error:
            raise InputError(error.paragraph()) from error
    mz = MengziZeroShot()
    mz.load()
    with pytest.raises(InputError, match="no task 'sentiment'"):
        mz.inference("sentiment", "好")
    with pytest.raises(InputError, match="'other' is missing"):
        mz.inference("text_similarity", "好")
    assert len(mz.inference("news_classifier", ["国足取胜", "股市大涨"])) == 2
