"""What an export changes: its scores and greedy answers beside those of the float32 checkpoint, on a few built-in prompts.

The prompts are short and long, with rare characters (spelled in bytes) and line breaks, and choices that share beginnings, so that
vocabulary, end-of-sequence and relative positions of a runtime show if they are wrong. They are no measure of quality.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mengzi_mt.data.examples import TextExample
from mengzi_mt.errors import RunError
from mengzi_mt.evaluation.loading import Scorers

LARGEST_FLOAT32 = 1e-3
"""Largest difference of a log-probability at which a float32 export counts as equal."""

_LONG = "去年冬天，河边的老茶馆重新开了张。掌柜说，他要把祖父留下的手艺一样一样找回来，先从一碗热茶开始。" * 4

RANKED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("这家店的面条又香又筋道，老板也热情，下次还会再来。这条评论是正面的还是负面的？", ("正面", "负面")),
    ("快递等了八天，打开一看杯子碎了，客服还不理人。\n情感：", ("积极", "消极", "中性")),
    ("主队昨晚在加时赛以三比二取胜。这条新闻属于哪一类？", ("体育", "财经", "科技", "科学", "国际新闻", "国内新闻")),
    ("“他刚从北京回来”能推出“他去过北京”吗？", ("能", "不能", "不一定")),
    ("问题一：手机怎么贴膜？问题二：如何给手机贴膜？它们的意思相同吗？", ("相同", "不同")),
    (f"{_LONG}这段文字主要写什么？", ("一家茶馆", "一家饭馆", "一场比赛", "一次旅行")),
    ("“龘”和“𠮷”都是生僻字，emoji 😀 不是。这句话说的是：", ("文字", "𠮷祥", "😀")),
    ("答", ("是", "否")),
)
OPEN: tuple[str, ...] = (
    "为下面的文章写一个标题：本市今天开通了第五条地铁线，全长三十二公里，市民凭身份证可以免费试乘三天。",
    "小明有三个苹果，又买了两个，现在有几个？",
    "找出句子里的地名：上个月我们先去了杭州，再坐火车到黄山。",
    "上联：春风又绿江南岸。下联：",
    f"{_LONG}\n请用一句话概括。",
    "把这句话翻译成英文：今天天气很好。",
)
NEW_TOKENS = 24


def check_examples() -> tuple[list[TextExample], list[TextExample]]:
    """The prompts with choices, and those without."""
    ranked = [
        TextExample(text, "", choices, (), 1.0, "export check", "ranked", str(place))
        for place, (text, choices) in enumerate(RANKED)
    ]
    asked = [TextExample(text, "", None, (), 1.0, "export check", "open", str(place)) for place, text in enumerate(OPEN)]
    return ranked, asked


def compare(plain: Scorers, exported: Scorers) -> dict[str, Any]:
    """What differs between the float32 model and its export, for ``export.json``."""
    ranked, asked = check_examples()
    scores = [[list(one.log_probabilities) for one in way.scorer.score(ranked)] for way in (plain, exported)]
    texts = [[one.text for one in way.generator.generate(asked)] for way in (plain, exported)]
    differences = [abs(a - b) for one, other in zip(*scores, strict=True) for a, b in zip(one, other, strict=True)]
    best = [one.index(max(one)) == other.index(max(other)) for one, other in zip(*scores, strict=True)]
    return {
        "against": "the checkpoint in float32",
        "log_probabilities": len(differences),
        "largest_difference": max(differences),
        "mean_difference": sum(differences) / len(differences),
        "prompts": len(ranked),
        "same_best_choice": sum(best),
        "open_prompts": len(asked),
        "same_greedy_answers": sum(a == b for a, b in zip(*texts, strict=True)),
        "new_tokens": NEW_TOKENS,
    }


def refuse_wrong(check: Mapping[str, Any], precision: str) -> None:
    """Raise where a float32 export is no equal of its checkpoint.

    Raises:
        RunError: it is not.
    """
    same = check["same_greedy_answers"] == check["open_prompts"]
    if precision == "float32" and (not check["largest_difference"] <= LARGEST_FLOAT32 or not same):
        raise RunError(
            f"The float32 export is not the checkpoint: log-probabilities differ by up to {check['largest_difference']:.3g}, "
            f"{check['same_greedy_answers']} of {check['open_prompts']} greedy answers are the same",
            fix="nothing was written; report it with the model's configuration and the runtime's version",
        )
