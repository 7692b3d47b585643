"""The page of ``mengzi-mt data stats``: one HTML file in Chinese that opens offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mengzi_mt.data.stats import BIN_EDGES
from mengzi_mt.page import chinese, count, document, escape

LABELS_SHOWN = 20
SPLITS_SHOWN = 4
CATEGORIES = {
    "sentiment": "情感", "topic": "主题分类", "sentence_pair": "句对匹配", "nli": "自然语言推理", "reading": "阅读理解",
    "ner": "命名实体", "relation": "关系抽取", "intent": "意图识别", "generation": "生成", "keyword": "关键词",
    "cloze": "完形填空", "coreference": "指代消解",
}  # fmt: skip
_LICENCES = {"none stated": "未声明", "unknown": "未知"}
ROLES = {"train": "训练", "zero_shot": "零样本评测"}
_SPARE = "词元 p99"
"""Left out on narrow screens, where nine cells fill three rows."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 360, 132, 8, 18, 20
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"

FIGURES = """
svg .train, .swatch.train { fill: rgb(var(--accent)); background: rgb(var(--accent)); }
svg .zero_shot, .swatch.zero_shot { fill: var(--majority); background: var(--majority); }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; vertical-align: -.05em; }
.key { font-size: .85rem; color: var(--soft); margin: .6rem 0 .3rem; }
.key span + span { margin-left: 1.2rem; }
table.rows td { padding: .08rem .5rem; }
table.rows td:first-child { max-width: none; width: 1%; white-space: nowrap; }
table.rows .title { white-space: nowrap; }
table.rows td.bar { width: 100%; }
table.rows svg { height: 1.05rem; }
table.rows svg .axis, svg.histogram .axis { vector-effect: non-scaling-stroke; }
.ticks { position: relative; height: 1.1em; font-weight: 400; }
.ticks span { position: absolute; transform: translateX(-50%); }
.ticks span:first-child { transform: none; }
svg.histogram { width: 100%; max-width: 30rem; height: auto; }
svg.histogram text { font: 10px sans-serif; fill: var(--soft); }
svg.histogram rect { fill: rgb(var(--accent) / .75); }
svg.histogram .quantile { stroke: var(--majority); stroke-dasharray: 3 2; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 2.5rem; }
table.wide td.name .soft { display: inline; }
@media (max-width: 56rem) {
  .pair { grid-template-columns: minmax(0, 1fr); }
  table.rows .title { display: none; }
  table.rows { font-size: .8rem; }
}
"""


def write_page(stats: Mapping[str, Any], path: Path) -> None:
    """Write the statistics (schema ``mengzi-mt/stats/1``) as one self-contained HTML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate in a label becomes a character reference: it must not cost the whole page.
    path.write_text(page(stats), encoding="utf-8", errors="xmlcharrefreplace")


def page(stats: Mapping[str, Any]) -> str:
    """The page as HTML."""
    tasks = stats["tasks"]
    body = [_banner(stats), _headline(stats), _rows_figure(tasks), _summary(tasks), *map(_task_section, tasks), _provenance(stats)]
    return document("数据统计", FIGURES, "\n".join(part for part in body if part), "zh-Hans")


def _banner(stats: Mapping[str, Any]) -> str:
    if stats["settings"]["data"] != "sample":
        return ""
    return (
        '<div class="banner" role="note"><strong>这里统计的是随附样例，不是真实数据</strong>'
        "样例是为本项目手写的少量行，只用于演示与测试；行数、标签分布与长度都不代表原数据集。</div>"
    )


def _headline(stats: Mapping[str, Any]) -> str:
    tasks = stats["tasks"]
    facts = [
        ("行数", sum(task["rows"] for task in tasks), ' class="lead"'),
        ("任务", len(tasks), ""),
        ("训练任务", sum(task["role"] == "train" for task in tasks), ""),
        ("零样本评测任务", sum(task["role"] == "zero_shot" for task in tasks), ""),
        ("字符", sum(task["characters"]["sum"] for task in tasks), ""),
        ("词元", sum(task["tokens"]["sum"] for task in tasks), ""),
        ("跳过与损坏的记录", sum(task["skipped"] + task["bad"] for task in tasks), ""),
    ]
    cells = "".join(f"<div{mark}><dt>{name}</dt><dd>{count(value)}</dd></div>" for name, value, mark in facts)
    missing = "".join(
        f'<li><span class="mono">{escape(left["task"])}</span>：<span lang="en">{escape(left["reason"])}</span></li>'
        for left in stats["not_read"]
    )
    caution = (
        f'<div class="caution"><strong>{len(stats["not_read"])} 个任务没有读到</strong><ul>{missing}</ul></div>' if missing else ""
    )
    return (
        f'<header><p class="soft small">数据统计 · {escape(stats["created"])}</p><h1>任务与数据一览</h1>'
        '<p class="soft small">长度按每行的文本字段计算，不含指令与答案；词元数由 '
        f'<span class="mono">{escape(stats["settings"]["tokenizer"])}</span> 的分词器得出。</p>'
        f'<dl class="facts">{cells}</dl>{caution}</header>'
    )


def _axis(tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of the rows' axis as powers of ten: the whole power below the fewest rows, and a little above the most."""
    counts = [task["rows"] for task in tasks if task["rows"]] or [1]
    return float(math.floor(math.log10(min(counts)))), math.log10(max(counts)) + 0.05


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent < 5 else "10" + _SUPERSCRIPTS[exponent]


def _rows_figure(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Rows of every task as bars on a logarithmic axis, the longest first."""
    low, high = _axis(tasks)

    def x(power: float) -> float:
        return 100 * max(power - low, 0.0) / (high - low)

    powers = range(int(low), math.floor(high) + 1)
    lines = "".join(f'<line class="axis" x1="{x(power):.2f}" x2="{x(power):.2f}" y1="0" y2="10"/>' for power in powers)
    rows = []
    for task in sorted(tasks, key=lambda task: -task["rows"]):
        width = x(math.log10(task["rows"])) if task["rows"] else 0.0
        rows.append(
            f'<tr><td><a href="#{escape(task["task"])}">{escape(task["task"])}</a></td><td class="title soft">{_title(task)}</td>'
            f'<td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{lines}'
            f'<rect class="{escape(task["role"])}" x="0" y="2" width="{width:.2f}" height="6"/></svg></td>'
            f'<td class="n">{count(task["rows"])}</td></tr>'
        )
    ticks = "".join(f'<span style="left:{x(power):.2f}%">{_power(power)}</span>' for power in powers)
    key = "".join(f'<span><i class="swatch {role}"></i>{word}</span>' for role, word in ROLES.items())
    return (
        f'<section><h2>各任务的行数</h2><p class="key">{key}<span>横轴为对数刻度；各划分相加，FewCLUE '
        "的小样本划分互有重复</span></p>"
        '<table class="bars rows"><thead><tr><th></th><th class="title"></th>'
        f'<th><div class="ticks">{ticks}</div></th><th></th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _title(task: Mapping[str, Any]) -> str:
    return chinese(task["title"]["zh"])


def _main_balance(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next(iter(task["labels"].values()), None)


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _summary(tasks: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for task in tasks:
        balance = _main_balance(task) or {}
        rows.append(
            f'<tr><td class="name"><a href="#{escape(task["task"])}">{escape(task["task"])}</a> '
            f'<span class="soft">{_title(task)}</span></td>'
            f'<td data-label="类别">{escape(CATEGORIES.get(task["category"], task["category"]))}</td>'
            f'<td data-label="用途">{ROLES.get(task["role"], "")}</td>'
            f'<td class="n" data-label="行数">{count(task["rows"])}</td>'
            f'<td class="n" data-label="跳过">{count(task["skipped"] + task["bad"])}</td>'
            f'<td class="n" data-label="标签数">{count(len(balance["counts"])) if balance else "—"}</td>'
            f'<td class="n" data-label="最多标签占比">{_share(balance.get("majority"))}</td>'
            f'<td class="n" data-label="词元 p50">{count(task["tokens"]["p50"])}</td>'
            f'<td class="n" data-label="词元 p95">{count(task["tokens"]["p95"])}</td></tr>'
        )
    heads = ("类别", "用途"), ("行数", "跳过", "标签数", "最多标签占比", "词元 p50", "词元 p95")
    head = "".join(f"<th>{name}</th>" for name in heads[0]) + "".join(f'<th class="n">{name}</th>' for name in heads[1])
    return (
        '<section><h2>总表</h2><table class="wide">'
        f"<thead><tr><th>任务</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def _task_section(task: Mapping[str, Any]) -> str:
    licence = task["licence"]
    restricted = {True: "仅限研究", False: "", "unknown": "使用范围不明"}.get(licence["research_only"], "")
    stated = _LICENCES.get(licence["name"], licence["name"])
    warning = f' <span class="pill warn">{restricted}</span>' if restricted else ""
    balances = "".join(_label_bars(key, balance) for key, balance in task["labels"].items())
    labels = (
        f"<div>{balances}</div>"
        if balances
        else '<div><h4>标签</h4><p class="soft small">没有标签：答案是自由文本，或本划分不含答案。</p></div>'
    )
    return (
        f'<section class="task" id="{escape(task["task"])}"><h2>{escape(task["task"])} {_title(task)}</h2>'
        f'<p><span class="pill">{escape(CATEGORIES.get(task["category"], task["category"]))}</span> '
        f'<span class="pill">{ROLES.get(task["role"], "")}</span> '
        f'<span class="pill">许可：{escape(stated)}</span>{warning}</p>{_split_table(task)}'
        f'<div class="pair">{labels}<div><h4>长度（词元，对数刻度）</h4>{_histogram(task["tokens"])}</div></div></section>'
    )


def _split_table(task: Mapping[str, Any]) -> str:
    rows = []
    splits = task["splits"].items()
    if len(splits) > SPLITS_SHOWN:
        splits = sorted(splits, key=lambda item: -item[1]["rows"])
    for name, split in splits:
        balance = _main_balance(split) or {}
        tokens, characters = split["tokens"], split["characters"]
        cells = [
            ("行数", count(split["rows"])), ("组", count(split["groups"])), ("跳过", _records(split)),
            ("最多标签占比", _share(balance.get("majority"))), ("字符 p50", count(characters["p50"])),
            ("字符 p95", count(characters["p95"])), ("词元 p50", count(tokens["p50"])), ("词元 p95", count(tokens["p95"])),
            ("词元 p99", count(tokens["p99"])), ("词元最多", count(tokens["max"])),
        ]  # fmt: skip
        row = "".join(
            f'<td class="n{" spare" if head == _SPARE else ""}" data-label="{head}">{value}</td>' for head, value in cells
        )
        rows.append(f'<tr><td class="name"><span class="mono">{escape(name)}</span>{_origin(name, split)}</td>{row}</tr>')
    head = "".join(f'<th class="n">{name}</th>' for name, _ in cells)
    table = f'<table class="wide"><thead><tr><th>划分</th>{head}</tr></thead><tbody>{{}}</tbody></table>'
    shown, folded = rows[:SPLITS_SHOWN], rows[SPLITS_SHOWN:]
    more = (
        f'<details class="more"><summary>另外 {len(folded)} 个较小的划分</summary>{table.format("".join(folded))}</details>'
        if folded
        else ""
    )
    return table.format("".join(shown)) + more


def _origin(name: str, split: Mapping[str, Any]) -> str:
    """What a split really is, where its name does not say so."""
    official = "、".join(escape(item) for item in split["official"])
    if split["cut"]:
        return f' <span class="soft small">按哈希从官方 {official} 切出</span>'
    return "" if split["official"] == [name] else f' <span class="soft small">实为官方 {official}</span>'


def _records(split: Mapping[str, Any]) -> str:
    return "—" if split["skipped"] is None else count(split["skipped"] + split["bad"])


def _label_bars(key: str, balance: Mapping[str, Any]) -> str:
    """Counts of each label as bars; long sets are sorted, and the rarer ones folded away."""
    counts = balance["counts"]
    total, largest = sum(counts.values()), max(counts.values())
    items = list(counts.items()) if len(counts) <= LABELS_SHOWN else sorted(counts.items(), key=lambda item: -item[1])
    rows = [
        f'<tr><td lang="zh-Hans">{escape(word)}</td><td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect class="train" x="0" y="2" width="{100 * number / largest:.1f}" height="6"/></svg></td>'
        f'<td class="n">{count(number)}</td><td class="n soft">{number / total:.1%}</td></tr>'
        for word, number in items
    ]
    table = '<table class="bars"><tbody>{}</tbody></table>'
    folded = rows[LABELS_SHOWN:]
    more = (
        f'<details class="more"><summary>另外 {len(folded)} 个较少的标签</summary>{table.format("".join(folded))}</details>'
        if folded
        else ""
    )
    return (
        f'<h4><span class="mono">{escape(key)}</span>：{len(counts)} 个标签，最多者占 {balance["majority"]:.1%}，'
        f"均匀度 {balance['evenness']:.2f}</h4>{table.format(''.join(rows[:LABELS_SHOWN]))}{more}"
    )


def _histogram(lengths: Mapping[str, Any]) -> str:
    """Bars over :data:`BIN_EDGES` with the median and the 95% quantile; the axis is the same for every task."""
    bins, tallest = lengths["bins"], max(lengths["bins"]) or 1
    width, height = _WIDTH - 2 * _LEFT, _HEIGHT - _TOP - _BOTTOM
    end = math.log10(BIN_EDGES[-1])

    def x(value: float) -> float:
        return _LEFT + width * min(math.log10(max(value, 1.0)) / end, 1.0)

    bars = "".join(
        f'<rect x="{x(low) + 0.5:.1f}" y="{_TOP + height * (1 - number / tallest):.1f}" width="{x(high) - x(low) - 1:.1f}" '
        f'height="{height * number / tallest:.1f}"/>'
        for low, high, number in zip(BIN_EDGES, BIN_EDGES[1:], bins, strict=False)
        if number
    )
    base = _TOP + height
    axis = f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{base}" y2="{base}"/>'
    for step in range(round(end) + 1):
        anchor = "start" if step == 0 else "end" if step == round(end) else "middle"
        axis += f'<text x="{x(10**step):.1f}" y="{_HEIGHT - 5}" text-anchor="{anchor}">{_power(step)}</text>'
    marks = ""
    for name, anchor, shift in (("p50", "end", -3), ("p95", "start", 3)):
        place = x(lengths[name])
        marks += (
            f'<line class="quantile" x1="{place:.1f}" x2="{place:.1f}" y1="4" y2="{base}"/>'
            f'<text x="{place + shift:.1f}" y="12" text-anchor="{anchor}">{name} {count(lengths[name])}</text>'
        )
    said = f"p50 {count(lengths['p50'])}，p95 {count(lengths['p95'])}，p99 {count(lengths['p99'])}，最多 {count(lengths['max'])}"
    return f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{said}</title>{bars}{axis}{marks}</svg>'


def _provenance(stats: Mapping[str, Any]) -> str:
    kinds = {"sample": "随附样例", "files": "数据文件", "hub": "hub"}
    settings = stats["settings"]
    facts = {
        "数据来源": kinds.get(settings["data"], settings["data"]), "数据映射": settings["data_map"],
        "分词器": settings["tokenizer"], "生成时间": stats["created"], "用时": f"{stats['seconds']} 秒", "格式": stats["schema"],
    }  # fmt: skip
    items = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f'<section class="task"><h2>由来</h2><dl class="plain">{items}</dl></section>'
