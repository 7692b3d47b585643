"""Forty inputs, two for each downstream task, and what a model answers: what to look at before a model is released.

Run: ``python -m benchmarks.forty_outputs [MODEL]``. The inputs were written without knowing any answers, and are not picked.
"""

from __future__ import annotations

import sys
from typing import Any

from mengzi_mt import Mengzi

ABSTRACTS = (
    "针对传统图像去噪方法容易丢失边缘细节的问题，提出一种基于小波变换与卷积神经网络相结合的去噪算法。"
    "实验结果表明，该算法在峰值信噪比和结构相似度上均优于对比方法。",
    "通过田间试验研究了不同施肥量对水稻产量和氮素利用率的影响。结果表明，减施氮肥百分之二十并配施有机肥，产量不降低，氮素利用率明显提高。",
)
INPUTS: list[tuple[str, tuple[Any, ...]]] = [
    ("sentiment", ("房间干净，服务员很热情，下次还来。",)),
    ("sentiment", ("等了一个小时才上菜，味道也一般，不会再来了。",)),
    ("news_topic", ("央行宣布下调存款准备金率零点五个百分点",)),
    ("news_topic", ("国足客场一比零小胜，时隔八年再进十二强",)),
    ("medical_intent", ("孩子咳嗽了三天，吃什么药好？",)),
    ("medical_intent", ("血常规里白细胞偏高说明什么？",)),
    ("entities", ("王小明上周去了北京大学。",)),
    ("entities", ("昨天下午，华为公司总裁任正非在深圳接受了《南方周末》的采访。",)),
    ("similarity", ("怎么更换绑定的银行卡", "如何把绑定的银行卡换掉")),
    ("similarity", ("借款多久能到账", "怎么提前还款")),
    ("financial_relation", ("腾讯斥资三十亿元入股京东，成为其第一大股东。", "腾讯", "京东")),
    ("financial_relation", ("中国平安与招商银行今日签署全面战略合作协议。", "中国平安", "招商银行")),
    ("advertising_copy", ("类型#裙|颜色#红色|风格#复古|裙长#长裙|面料#棉麻",)),
    ("advertising_copy", ("类型#裤|版型#宽松|颜色#黑色|图案#条纹",)),
    ("comment_object", ("西湖的夜景真美，就是人太多了。",)),
    ("comment_object", ("海底捞的服务一如既往地好，孩子玩得很开心。",)),
    ("person_names", ("收件人张伟，电话一三八零零零零一二三四，地址杭州市西湖区文三路九十号。",)),
    ("person_names", ("会议由李芳主持，王强和赵敏作了发言。",)),
    ("company_names", ("阿里巴巴集团今日宣布，将与中国移动在云计算领域展开合作。",)),
    ("company_names", ("他毕业后先在联想工作，后来去了小米。",)),
    ("entailment", ("一个男孩在公园里踢足球。", "有人在户外运动。")),
    ("entailment", ("商店今天休息，门口挂着牌子。", "商店正在营业。")),
    ("answer", ("《红楼梦》是清代作家曹雪芹创作的长篇小说，成书于十八世纪中叶。", "《红楼梦》的作者是谁？")),
    ("answer", ("青海湖位于青海省东北部，是中国最大的内陆湖，面积四千五百多平方公里。", "中国最大的内陆湖是哪个？")),
    ("title", (ABSTRACTS[0],)),
    ("title", (ABSTRACTS[1],)),
    ("summary", (ABSTRACTS[0],)),
    ("summary", (ABSTRACTS[1],)),
    ("keywords", (ABSTRACTS[0],)),
    ("keywords", (ABSTRACTS[1],)),
    ("translation", ("I don't like coffee.", "en", "zh")),
    ("translation", ("She went to school by bus this morning.", "en", "zh")),
    ("translation", ("我昨天买了一本书。", "zh", "en")),
    ("translation", ("你叫什么名字？", "zh", "en")),
    ("translation", ("学而时习之，不亦说乎？", "classical", "modern")),
    ("translation", ("他年轻的时候就喜欢读书。", "modern", "classical")),
    ("classify", ("快递三天没到", ["物流", "发票", "售后"])),
    ("classify", ("怎么开发票", ["物流", "发票", "售后"])),
    ("classify", ("明天多云转晴，最高气温二十度", ["天气", "体育", "财经"])),
    ("classify", ("这款手机的电池只能用半天", ["屏幕", "续航", "价格", "外观"])),
]


def shown(result: Any) -> str:
    """A result in a cell."""
    values = result.to_dict()
    if "label" in values:
        return f"{values['label']} ({values['probability']:.2f})"
    if "entities" in values:
        return "；".join(f"{one['type']}：{one['text']}" for one in values["entities"]) or "—"
    if "keywords" in values:
        return "；".join(values["keywords"]) or "—"
    return values.get("text") or "—"


def main() -> None:
    """Ask, print a table in Markdown."""
    mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None, device="cpu", backend="torch")
    print("| task | input | answer |\n|---|---|---|")
    for name, arguments in INPUTS:
        asked = " / ".join("、".join(one) if isinstance(one, list) else one for one in arguments).replace("|", "\\|")
        print(f"| `{name}` | {asked} | {shown(getattr(mengzi, name)(*arguments))} |", flush=True)


if __name__ == "__main__":
    main()
