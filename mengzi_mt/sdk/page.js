
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const form = at("form"), task = at("task"), inputs = at("inputs"), template = at("template"), result = at("result");
const FREE = "generate", FIRST = "first:", BY_NAME = "name:";
let running = null;

const GROUPS = [
  ["分类", ["sentiment", "news_topic", "medical_intent", "classify"]],
  ["句子对与关系", ["similarity", "entailment", "financial_relation"]],
  ["抽取", ["entities", "person_names", "company_names", "comment_object", "keywords", "answer"]],
  ["生成", ["advertising_copy", "title", "summary", FREE]],
  ["翻译", ["translation_en_zh", "translation_zh_en", "translation_classical_modern", "translation_modern_classical"]],
];
const ERRORS = {
  malformed_json: "请求不是合法的 JSON。",
  bad_request: "服务器没能读懂这个请求。",
  unauthorized: "令牌缺失或不正确，请检查“访问令牌”。",
  not_found: "没有这个地址，页面可能已经过期，请刷新。",
  request_timeout: "上传太慢，服务器没有等到完整的请求。",
  body_too_large: "内容太大，请缩短文本后再试。",
  invalid_input: "输入不符合要求。",
  queue_full: "服务器正忙，请稍后再试。",
  internal: "服务器内部出错，请稍后再试；若反复出现，请把编号告诉管理员。",
  too_many_connections: "连接太多，请稍后再试。",
  shutting_down: "服务器正在关闭，不再接受新请求。",
  worker_died: "模型已停止工作，服务器即将退出。",
  deadline: "等待超时，请求已取消。可以缩短文本或稍后再试。",
};

const free = {
  name: FREE, title: "自由提问", kind: "text", streams: true, own_labels: false, labels: [], templates: [],
  inputs: [{ name: "prompt", title: "提示语", required: true }],
  examples: data.prompts.map((prompt) => ({ rows: [{ prompt }] })),
};
const tasks = new Map([...data.tasks, free].map((one) => [one.name, one]));
const chosen = () => tasks.get(task.value);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function option(value, text) {
  const made = element("option", "", text);
  made.value = value;
  return made;
}

const percent = (share) => (100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 2 : 1) + "%";

// Offsets count characters as the server does, not UTF-16 units.
const characters = (text) => Array.from(text);

function listTasks() {
  const listed = new Set();
  for (const [title, names] of GROUPS) {
    const group = element("optgroup");
    group.label = title;
    for (const name of names.filter((one) => tasks.has(one))) {
      group.append(option(name, tasks.get(name).title));
      listed.add(name);
    }
    task.append(group);
  }
  for (const [name, one] of tasks) if (!listed.has(name)) task.append(option(name, one.title));
}

function field(name, title, rows, note) {
  const around = element("div", "field"), label = element("label", "", title), box = element("textarea", rows < 3 ? "short" : "");
  const count = element("span", "count"), wrong = element("p", "wrong");
  box.id = "input-" + name;
  box.name = name;
  box.rows = rows;
  box.setAttribute("aria-describedby", "wrong-" + name + (note ? " note-" + name : ""));
  label.htmlFor = box.id;
  wrong.id = "wrong-" + name;
  wrong.hidden = true;
  label.append(count);
  around.append(label, box);
  if (note) {
    const noted = element("p", "soft small", note);
    noted.id = "note-" + name;
    around.append(noted);
  }
  around.append(wrong);
  box.addEventListener("input", () => { counted(box); complain(box, ""); });
  inputs.append(around);
  return box;
}

function counted(box) {
  const size = characters(box.value).length;
  box.closest(".field").querySelector(".count").textContent = size ? size + " 字" : "";
}

function complain(box, text) {
  const wrong = at("wrong-" + box.name);
  wrong.textContent = text;
  wrong.hidden = !text;
  box.setAttribute("aria-invalid", text ? "true" : "false");
}

function taskChanged() {
  const one = chosen();
  if (running) running.abort();
  inputs.replaceChildren();
  for (const input of one.inputs) {
    const long = input.name === "text" || input.name === "prompt";
    field(input.name, input.title + (input.required ? "" : "（可不填）"), long ? 5 : 2);
  }
  if (one.own_labels) field("labels", "标签", 2, "用顿号、逗号或换行分隔，至少两个。");
  at("examples").replaceChildren(...one.examples.map((example) => {
    const texts = Object.values(example.rows[0]), button = element("button", "", texts[0]);
    button.type = "button";
    button.addEventListener("click", () => fill(example));
    return button;
  }));
  template.replaceChildren(...templateOptions(one));
  at("template-field").hidden = !one.templates.length;
  at("length-field").hidden = ["label", "relation"].includes(one.kind);
  templateChanged();
  say("选一个示例，或填入自己的文本，然后点“运行”。");
  fail("");
  result.replaceChildren();
  try { history.replaceState(null, "", "#" + one.name); } catch { /* a page without an address */ }
}

function templateOptions(one) {
  const several = [3, 5, one.templates.length].filter((n, place, all) => n > 1 && n <= one.templates.length && all.indexOf(n) === place);
  return [
    ...one.templates.map((each, place) => option(BY_NAME + each.name, each.name + (place ? "" : "（默认）"))),
    ...several.map((n) => option(FIRST + n, "前 " + n + " 个模板共同决定")),
  ];
}

function templateChanged() {
  const several = template.value.startsWith(FIRST);
  const found = chosen().templates.find((each) => BY_NAME + each.name === template.value);
  at("wording").textContent = found ? found.wording.split("|||")[0].trim() : "";
  at("wording").hidden = !found;
  at("vote-field").hidden = !several || !["label", "relation"].includes(chosen().kind);
}

function fill(example) {
  for (const box of inputs.querySelectorAll("textarea")) {
    box.value = box.name === "labels" ? example.labels.join("、") : example.rows[0][box.name] || "";
    counted(box);
    complain(box, "");
  }
  at("run").focus();
}

// What the form says, checked in the user's language; null where something is wrong.
function read() {
  const one = chosen(), row = {}, body = one.name === FREE ? {} : { task: one.name, rows: [row] };
  const wrong = [];
  for (const input of one.inputs) {
    const box = at("input-" + input.name), text = box.value.trim();
    let fault = "";
    if (!text && input.required) fault = "请填写“" + input.title + "”。";
    if (characters(text).length > data.maxCharacters) fault = "最多 " + data.maxCharacters.toLocaleString("zh") + " 字。";
    complain(box, fault);
    if (fault) wrong.push(box);
    if (text) row[input.name] = box.value;
  }
  if (one.own_labels) {
    const box = at("input-labels"), labels = box.value.split(/[、，,;；\n]+/).map((label) => label.trim()).filter(Boolean);
    const twice = labels.find((label, place) => labels.indexOf(label) !== place);
    const long = labels.find((label) => characters(label).length > data.maxLabelCharacters);
    const fault = labels.length < 2 ? "至少要有两个标签。" : twice ? "标签“" + twice + "”重复了。"
      : labels.length > data.maxLabels ? "最多 " + data.maxLabels + " 个标签。"
      : long ? "单个标签最多 " + data.maxLabelCharacters + " 字。" : "";
    complain(box, fault);
    if (fault) wrong.push(box);
    body.labels = labels;
  }
  if (one.name === FREE) body.prompts = [row.prompt];
  if (one.templates.length) {
    body.templates = template.value.startsWith(FIRST) ? Number(template.value.slice(FIRST.length)) : template.value.slice(BY_NAME.length);
    if (!at("vote-field").hidden) body.vote = at("vote").value;
  }
  if (!at("length-field").hidden) {
    body.max_new_tokens = Math.min(data.maxTokens, Math.max(1, Math.round(Number(at("length").value)) || 128));
    at("length").value = body.max_new_tokens;
  }
  if (one.streams) body.stream = true;
  if (wrong.length) { wrong[0].focus(); return null; }
  return body;
}

function say(text) { at("status").textContent = text; at("status").hidden = !text; }

function fail(text) { at("error").textContent = text; at("error").hidden = !text; }

function busy(on) {
  at("run").disabled = on;
  at("stop").hidden = !on;
  at("output").setAttribute("aria-busy", String(on));
}

async function refusal(response) {
  let detail = null;
  try { detail = (await response.json()).error; } catch { /* not ours: a proxy's page */ }
  return described(detail, response.status, response.headers.get("Retry-After"));
}

function described(detail, status, wait) {
  const known = detail && ERRORS[detail.code];
  let text = known || "请求没有成功（状态 " + status + "）。";
  if (wait) text = text.replace("请稍后再试", "请在 " + wait + " 秒后再试");
  return detail && ["invalid_input", "internal"].includes(detail.code) ? text + "（" + detail.message + "）" : text;
}

async function run(event) {
  if (event) event.preventDefault();
  if (running) return;
  const one = chosen(), body = read();
  if (!body) return;
  running = new AbortController();
  const mine = running, began = performance.now();
  busy(true);
  fail("");
  result.replaceChildren();
  say("正在计算…");
  if (matchMedia("(max-width: 56rem)").matches) at("output").scrollIntoView({ block: "start" });
  try {
    const headers = { "Content-Type": "application/json" };
    if (at("token").value) headers.Authorization = "Bearer " + at("token").value.trim();
    const address = one.name === FREE ? "v1/generate" : "v1/predict";
    const response = await fetch(address, { method: "POST", headers, body: JSON.stringify(body), signal: mine.signal });
    if (!response.ok) { fail(await refusal(response)); say(""); return; }
    if (body.stream) await follow(response);
    else show(one, body.rows[0], (await response.json()).results[0]);
    if (at("error").hidden) say("用时 " + ((performance.now() - began) / 1000).toFixed(2) + " 秒");
  } catch (error) {
    if (error.name === "AbortError") say("已停止。");
    else { fail("连不上服务器，请确认服务仍在运行。"); say(""); }
  } finally {
    for (const written of result.querySelectorAll(".busy")) written.classList.remove("busy");
    running = null;
    busy(false);
  }
}

async function follow(response) {
  const written = element("p", "written busy"), reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  result.append(written);
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const [, name, text] = part.match(/^event: (\w+)\ndata: (.*)$/s), message = JSON.parse(text);
      if (name === "piece") written.append(message.text);
      if (name === "error") { fail(described(message.error)); say(""); }
    }
  }
  if (!written.textContent && at("error").hidden) written.replaceWith(element("p", "soft", "模型没有写出内容。"));
}

function show(one, row, found) {
  const text = row[one.inputs[0].name];
  if (found.probabilities) showShares(found);
  else if (found.entities) showEntities(one, text, found);
  else if (found.keywords) showWords(found);
  else showSpan(text, found);
  const notes = [];
  if (found.cut) notes.push("文本过长，末尾有 " + found.cut + " 字没有交给模型。");
  notes.push("所用模板：" + found.templates.join("、"));
  result.append(element("p", "notes", notes.join(" ")));
}

function showShares(found) {
  const verdict = element("p", "verdict", found.label);
  verdict.append(element("small", "", percent(found.probability)));
  result.append(verdict);
  if (found.head !== undefined) result.append(element("p", "triple", found.head + " → " + found.label + " → " + found.tail));
  const all = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]), list = bars(all.slice(0, 10), found.label);
  result.append(list);
  if (all.length > 10) {
    const more = element("details", "more");
    more.append(element("summary", "", "其余 " + (all.length - 10) + " 个标签"), bars(all.slice(10), found.label));
    result.append(more);
  }
}

function bars(shares, best) {
  const list = element("ul", "shares");
  for (const [label, share] of shares) {
    const item = element("li", label === best ? "best" : ""), bar = element("div", "bar"), filled = element("div");
    filled.style.width = 100 * share + "%";
    bar.append(filled);
    bar.setAttribute("aria-hidden", "true");
    item.append(element("span", "", label), bar, element("span", "n", percent(share)));
    list.append(item);
  }
  return list;
}

function marked(text, places) {
  const all = characters(text), made = element("p", "reading");
  let from = 0;
  for (const place of [...places].sort((a, b) => a.start - b.start || b.end - a.end)) {
    if (place.start < from) continue;  // inside of one that is marked: the table has it
    const mark = element("mark", "", all.slice(place.start, place.end).join(""));
    mark.style.setProperty("--hue", place.hue);
    if (place.type) mark.append(element("small", "", place.type));
    made.append(all.slice(from, place.start).join(""), mark);
    from = place.end;
  }
  made.append(all.slice(from).join(""));
  return made;
}

function showEntities(one, text, found) {
  const kinds = one.labels.length ? one.labels : [...new Set(found.entities.map((entity) => entity.type))];
  const hue = (type) => Math.round((360 * Math.max(0, kinds.indexOf(type))) / Math.max(1, kinds.length) + 205) % 360;
  result.append(marked(text, found.entities.map((entity) => ({ ...entity, hue: hue(entity.type) }))));
  if (!found.entities.length) result.append(element("p", "soft", "没有找到。"));
  else {
    const table = element("table", "found"), head = element("tr"), body = element("tbody"), top = element("thead");
    for (const title of ["类型", "内容", "位置"]) { const cell = element("th", "", title); cell.scope = "col"; head.append(cell); }
    for (const entity of found.entities) {
      const line = element("tr");
      line.append(element("td", "", entity.type), element("td", "", entity.text), element("td", "n", entity.start + "–" + entity.end));
      body.append(line);
    }
    top.append(head);
    table.append(top, body);
    result.append(table);
  }
  if (found.unplaced.length) {
    const words = found.unplaced.map(([type, word]) => word + "（" + type + "）").join("、");
    result.append(element("p", "notes", "模型还写了原文中没有的：" + words));
  }
}

function showSpan(text, found) {
  result.append(element("p", "verdict", found.text || "（空）"));
  result.append(marked(text, found.places.map(([start, end]) => ({ start, end, hue: 205 }))));
  if (!found.places.length) result.append(element("p", "notes", "这个答案在原文中找不到原样的文字。"));
}

function showWords(found) {
  const list = element("ul", "words");
  for (const word of found.keywords) list.append(element("li", "", word));
  result.append(found.keywords.length ? list : element("p", "soft", "没有找到关键词。"));
}

listTasks();
if (tasks.has(location.hash.slice(1))) task.value = location.hash.slice(1);
taskChanged();
task.addEventListener("change", taskChanged);
template.addEventListener("change", templateChanged);
form.addEventListener("submit", run);
at("stop").addEventListener("click", () => running && running.abort());
addEventListener("hashchange", () => {
  const name = location.hash.slice(1);
  if (tasks.has(name) && name !== task.value) { task.value = name; taskChanged(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
  if (event.key === "Escape" && running) running.abort();
});
try {
  at("token").value = sessionStorage.getItem("token") || "";
  at("token").addEventListener("change", () => sessionStorage.setItem("token", at("token").value));
} catch { /* the browser keeps nothing */ }
