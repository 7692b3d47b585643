"""Chinese for those who try a task: the names of its inputs, and inputs to begin with.

The examples were written for this project; the page offers them and the API's document shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Example = Mapping[str, str]

TITLES = {
    "text": "文本", "other": "第二句", "head": "主体", "tail": "客体", "premise": "前提", "hypothesis": "假设", "question": "问题",
    "title": "标题",
}  # fmt: skip
"""Of inputs."""

OWN_TITLES = {
    ("sentiment", "text"): "评论",
    ("news_topic", "text"): "新闻标题",
    ("medical_intent", "text"): "就医提问",
    ("similarity", "text"): "第一句",
    ("financial_relation", "text"): "财经文本",
    ("advertising_copy", "text"): "商品属性",
    ("comment_object", "text"): "评论",
    ("person_names", "text"): "快递单或其他文本",
    ("answer", "text"): "文章",
    ("title", "text"): "正文或摘要",
    ("summary", "text"): "正文",
    ("keywords", "text"): "摘要",
    ("translation_en_zh", "text"): "英文",
    ("translation_zh_en", "text"): "中文",
    ("translation_classical_modern", "text"): "文言文",
    ("translation_modern_classical", "text"): "白话文",
}
"""Of a task's inputs, where they are called otherwise."""


def title_of(task: str, name: str) -> str:
    """What an input is called."""
    return OWN_TITLES.get((task, name), TITLES[name])


EXAMPLES: Mapping[str, Sequence[Example]] = {
    "sentiment": (
        {"text": "房间干净，前台也热情，下次来还住这里。"},
        {"text": "等了一个小时才上菜，味道还很一般。"},
    ),
    "news_topic": (
        {"text": "女排姑娘三比零轻取对手，提前一轮出线"},
        {"text": "新能源车企三季度交付量再创新高"},
    ),
    "medical_intent": (
        {"text": "晚上总是睡不着，怎么调理比较好"},
        {"text": "做一次胃镜大概要多少钱"},
    ),
    "entities": (
        {"text": "昨天下午，南山大学的周明远教授在上海图书馆介绍了他的新书《纸上山河》。"},
        {"text": "云帆科技总经理李静宜表示，公司将在成都设立研发中心。"},
    ),
    "similarity": (
        {"text": "花呗怎么提前还款", "other": "花呗可以提前还吗"},
        {"text": "高铁上能带充电宝吗", "other": "飞机上能带充电宝吗"},
    ),
    "financial_relation": (
        {"text": "公告显示，江北农商行拟以现金方式收购绿源小贷六成股权。", "head": "江北农商行", "tail": "绿源小贷"},
        {"text": "谷满仓粮油起诉食味坊连锁，要求其偿还拖欠两年的货款。", "head": "谷满仓粮油", "tail": "食味坊连锁"},
    ),
    "advertising_copy": (
        {"text": "类型：裙，材质：棉麻，颜色：米白色，风格：文艺，裙长：长裙"},
        {"text": "类型：裤，材质：牛仔布，颜色：浅蓝色，裤型：直筒裤，裤腰型：高腰"},
    ),
    "comment_object": (
        {"text": "从山脚爬到观音岩用了两个小时，山顶的风景值得。"},
        {"text": "桃溪古镇晚上的灯光很漂亮，就是停车不太方便。"},
    ),
    "person_names": (
        {"text": "陈晓岚13000000000浙江省杭州市余杭区桂花巷131号"},
        {"text": "四川省成都市武侯区望江路272号1栋 陆知遥收"},
    ),
    "company_names": (
        {"text": "云帆科技与蓝湾重工签署协议，共同开发海上风电设备。"},
        {"text": "受原料涨价影响，禾丰食品宣布上调三款产品的售价。"},
    ),
    "entailment": (
        {"premise": "我跟他认识二十年了，头一回见他掉眼泪", "hypothesis": "我以前没见过他哭"},
        {"premise": "会议改到了周五下午", "hypothesis": "会议已经取消了"},
    ),
    "answer": (
        {
            "text": "石门水库坐落在沅平市西北，1971年冬天动工，1976年春主体工程完成，大坝最高处五十四米。",
            "question": "石门水库是哪一年动工的？",
        },
        {"text": "顾砚秋生于扬州，七岁随伯父学画，二十八岁时赴日本考察。", "question": "顾砚秋在哪里出生？"},
    ),
    "title": (
        {
            "text": "在线学习平台的习题数量庞大，学生很难找到适合自己的题目。本文构建了中学物理知识图谱，"
            "根据答题记录估计学生对各知识点的掌握程度，并沿图谱路径推荐习题。"
        },
    ),
    "summary": (
        {
            "text": "多标签文本分类任务中，标签之间存在共现和层次关系。本文利用标签的共现频率构造图结构，"
            "通过图卷积网络学习标签表示，对低频标签的改进尤为明显。"
        },
    ),
    "keywords": (
        {
            "text": "以废旧轮胎胶粉为改性剂，制备了不同掺量的橡胶沥青混合料，并进行了车辙、低温弯曲和冻融劈裂试验。",
            "title": "胶粉掺量对橡胶沥青混合料路用性能的影响",
        },
        {"text": "利用溶胶凝胶法制备了铈掺杂的二氧化钛薄膜，考察了它在可见光下对罗丹明B的降解能力。"},
    ),
    "translation_en_zh": ({"text": "She plays the cello in a small orchestra."}, {"text": "The train leaves at nine tomorrow."}),
    "translation_zh_en": ({"text": "这两把钥匙都开不了这把锁。"}, {"text": "他每天早上六点起床。"}),
    "translation_classical_modern": (
        {"text": "沈翁性俭，冬不炉，夏不扇，人问其故，笑而不答。"},
        {"text": "令至县三月，狱无滞囚，民甚安之。"},
    ),
    "translation_modern_classical": (
        {"text": "他家里很穷，却喜欢读书，常常借着月光读到半夜。"},
        {"text": "百姓听说县令要走，都来送他。"},
    ),
    "classify": (
        {"text": "周末去哪里看红叶最好？"},
        {"text": "手机充电时发烫是怎么回事？"},
    ),
}

LABELS = ("旅游", "数码", "美食", "健康")
"""Labels to try ``classify`` with."""

PROMPTS = (
    "为一家社区书店写一句广告语：",
    "“今天的面条煮得正好，汤也鲜。”这条评价是好评还是差评？",
)
"""Free prompts."""
