"""The page at ``/``: every task to be tried by hand, in Chinese. Style and script stand in ``page.css`` and ``page.js``."""

from __future__ import annotations

from pathlib import Path

from mengzi_mt.page import document, embedded_json, escape, policy
from mengzi_mt.sdk.serve_examples import PROMPTS
from mengzi_mt.sdk.serve_schemas import INFOS, MAX_CHARACTERS, MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_NEW_TOKENS

SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
HEADERS = {
    "Content-Security-Policy": policy(SCRIPT, connect=True) + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}

BODY = """
<header><p class="soft small">mengzi-mt · 模型 <span class="mono">{model}</span></p><h1>中文任务试用</h1></header>
<noscript><p class="caution">本页需要启用 JavaScript。</p></noscript>
<main>
<form id="form" novalidate>
  <div class="field" {locked}><label for="token">访问令牌</label>
    <input id="token" type="password" autocomplete="off" spellcheck="false" aria-describedby="token-note">
    <p id="token-note" class="soft small">本服务需要令牌。令牌只保存在当前标签页，关闭后即清除。</p></div>
  <div class="field"><label for="task">任务</label><select id="task"></select></div>
  <div class="field" role="group" aria-labelledby="examples-title"><span id="examples-title" class="name">示例</span>
    <div id="examples" class="examples"></div></div>
  <div id="inputs"></div>
  <details id="options"><summary>更多选项</summary><div class="inside">
    <div class="field" id="template-field"><label for="template">提示模板</label><select id="template"></select>
      <pre id="wording" class="soft small" tabindex="0" aria-label="模板原文"></pre></div>
    <div class="field" id="vote-field"><label for="vote">多个模板时</label><select id="vote">
      <option value="mean">取平均</option><option value="majority">少数服从多数</option></select></div>
    <div class="field" id="length-field"><label for="length">最多生成多少个词元</label>
      <input id="length" type="number" inputmode="numeric" min="1" max="{tokens}" value="128"></div>
  </div></details>
  <div class="go"><button id="run" type="submit">运行</button><button id="stop" type="button" hidden>停止</button>
    <span class="soft small keys"><kbd>Ctrl</kbd> + <kbd>Enter</kbd> 运行</span></div>
</form>
<section id="output" aria-labelledby="output-title"><h2 id="output-title">结果</h2>
  <p id="error" class="caution" role="alert" hidden></p>
  <div id="result"></div>
  <p id="status" class="soft small" role="status"></p></section>
</main>
<footer class="soft small">文本只由本服务的模型计算，不写入日志，也不发往别处。<br>
接口说明：<a href="openapi.json">openapi.json</a></footer>
"""


def page(model: str, locked: bool) -> str:
    """The page.

    Args:
        model: its name.
        locked: whether requests need a token.
    """
    data = {
        "tasks": [info.model_dump() for info in INFOS.values()],
        "prompts": PROMPTS,
        "maxCharacters": MAX_CHARACTERS,
        "maxLabels": MAX_LABELS,
        "maxLabelCharacters": MAX_LABEL_CHARACTERS,
        "maxTokens": MAX_NEW_TOKENS,
    }
    body = BODY.format(model=escape(model), locked="" if locked else "hidden", tokens=MAX_NEW_TOKENS)
    return document(f"mengzi-mt · {model}", STYLE, body + embedded_json("data", data), "zh-Hans", SCRIPT, connect=True)
