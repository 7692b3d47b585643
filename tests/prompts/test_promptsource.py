import copy
import random
import time

import pytest
import yaml

from benchmarks import promptsource_parity, render_speed
from mengzi_mt.errors import InputError
from mengzi_mt.prompts import promptsource
from mengzi_mt.prompts.exchange import joined, judge, read_foreign_file
from mengzi_mt.prompts.promptsource import PROTECTOR, TRUNCATED_LENGTH, PromptsourceTemplate
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import TemplateSet, dump_templates, read_template_file
from mengzi_mt.tasks.registry import get_task

LONG = "今天 " + "长" * 2_400


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("promptsource.templates", reason="promptsource 0.2.3 is not installed (docs/promptsource.md)")
    return promptsource_parity.import_reference()


def compat(jinja, choices=None, **options):
    return PromptsourceTemplate(Template("1", "t", jinja, "toy", choices), **options)


def apply(jinja, row=None, choices=None, truncate=False, **options):
    return compat(jinja, choices, **options).apply(row or {}, truncate=truncate)


@pytest.mark.parametrize(
    ("jinja", "row", "parts"),
    [
        ("{{ a }} ||| {{ b }}", {"a": " 甲 ", "b": 1}, ["甲", "1"]),
        ("{{ missing }}x{{ a.missing }}|||y", {"a": {}}, ["x", "y"]),
        ("{% if a %}{{ a }}|||1{% endif %}", {"a": ""}, [""]),
        ("{% if a %}{{ a }}|||1{% else %}|||2{% endif %}", {"a": ""}, ["", "2"]),
        ("a|||b|||c", {}, ["a", "b", "c"]),
        ("no separator", {}, ["no separator"]),
        ("{{ a }}|||{{ b[0] }}", {"a": "p|||q", "b": ["r|||s"]}, ["p|||q", "r", "s"]),
        ("{% for x, y in zip(a, b) %}{{ x }}{{ y }}{% endfor %}|||z", {"a": "甲乙", "b": [1, 2]}, ["甲1乙2", "z"]),
        ("{% set l = [] %}{{ l.append(a) }}{{ l | join }}|||z", {"a": "甲"}, ["None甲", "z"]),
        ("{{ a | most_frequent }} {{ [] | most_frequent }}|||z", {"a": [1, 2, 2]}, ["[2] None", "z"]),
        ("{{ a | highlight }}|||z", {"a": "甲"}, ["<span style='color: #F08080'>甲</span>", "z"]),
        ("{{ [] | random }}|||z", {}, ["", "z"]),
    ],
)
def test_parts_are_those_of_promptsource(jinja, row, parts):
    assert apply(jinja, row) == parts


def test_truncation_is_a_replacement_in_the_templates_text():
    assert apply("{{ a }}|||{{ b }}", {"a": LONG, "b": "x" * 3_000}, truncate=True) == [
        "今天...",
        "x" * (TRUNCATED_LENGTH - 3) + "...",
    ]
    assert apply("{{ a }}|||x", {"a": LONG}) == [LONG, "x"]
    stringified = "{{ {'k': {'n': 1}}['k']['n'] + 1 }}|||x"
    assert apply(stringified) == ["2", "x"]
    assert apply(stringified, truncate=True) == ["11", "x"]


def test_protection_can_be_switched_off():
    assert apply("{{ a }}|||b", {"a": "p|||q"}, protect_separators=False) == ["p", "q", "b"]
    assert apply("{{ a | length }}|||b", {"a": "|||"}) == [str(len(PROTECTOR)), "b"]


def test_choices_are_rendered_for_each_row_and_visible_to_the_template():
    template = compat("{{ answer_choices | join('、') }}|||{{ answer_choices[label] }}", "{{ a }} ||| 否|||{{ c[0] }}")
    row = {"a": "p|||q", "c": ["r|||s"], "label": 0}
    assert template.get_answer_choices_list(row) == ["p|||q", "否", "r", "s"]
    assert template.apply(row) == ["p", "q、否、r、s", "p", "q"]  # what stands in choices is protected no longer
    assert template.get_fixed_answer_choices_list() is None


@pytest.mark.parametrize(
    ("choices", "fixed"),
    [(None, None), (" 是 ||| 否", ["是", "否"]), ("{{ ['a', 'b'] | join('|||') }}", ["a", "b"]), ("{{ a }}|||b", None)],
)
def test_fixed_choices(choices, fixed):
    template = compat("x|||y", choices)
    assert template.get_fixed_answer_choices_list() == fixed
    assert fixed is None or template.get_answer_choices_list({"a": 1}) == fixed


def test_a_changed_list_of_choices_is_not_kept():
    template = compat("{{ answer_choices.append('c') }}{{ answer_choices | length }}|||x", "a ||| b")
    assert [template.apply({})[0] for _ in range(2)] == ["None3", "None3"]


def test_a_template_changes_lists_of_its_own_copy_of_the_row():
    row = {"a": [1], "b": {"c": {"d": [2]}}}
    before = copy.deepcopy(row)
    jinja = "{{ a.append(9) }}{{ b.update({'z': 1}) }}{{ b.c.d.pop() }}{{ a }}{{ b.z }}|||x"
    assert apply(jinja, row) == ["NoneNone2[1, 9]1", "x"]
    assert row == before


def test_a_field_called_answer_choices_is_refused():
    with pytest.raises(InputError, match="answer_choices") as caught:
        apply("x|||y", {"answer_choices": 1})
    assert "template 't'" in caught.value.where
    assert compat("x|||y", "{{ answer_choices }}").get_answer_choices_list({"answer_choices": 1}) == ["1"]


def test_choice_draws_by_seed_and_template_or_globally():
    template = compat("{{ range(1000) | list | choice }} {{ range(1000) | list | random }}|||x")
    drawn = [template.apply({}, seed=str(i))[0] for i in range(9)]
    assert drawn == [template.apply({}, seed=str(i))[0] for i in range(9)]
    assert len(set(drawn)) > 5
    strict = Template("1", "t", "{{ range(1000) | list | choice }}|||x")
    assert [drawing.split()[0] for drawing in drawn] == [strict.render({}, seed=str(i)).inputs for i in range(9)]
    other = compat(template.template.jinja, global_random=True)
    random.seed(3)
    first = other.apply({})
    random.seed(3)
    assert [other.apply({}), other.apply({}) == first] == [first, False]


def test_a_template_is_compiled_once(monkeypatch):
    template = compat("{{ a }}甲乙丙|||{{ answer_choices[0] }}", "{{ a }}丁 ||| 戊")
    assert template.apply({"a": 1}) == ["1甲乙丙", "1丁"]
    monkeypatch.setattr(promptsource, "lenient_environment", None)
    assert template.apply({"a": 2}) == ["2甲乙丙", "2丁"]


@pytest.mark.parametrize(
    ("jinja", "said"),
    [
        ("{{ a |||x", "does not parse"),
        ("{% if a %}|||x", "does not parse"),
        ("{{ a | nope }}|||x", "nope"),
        ("{{ a.b.c }}|||x", "has no attribute"),
        ("{{ 1 // 0 }}|||x", "fails on this row"),
        ("{% include 'x' %}|||x", "fails on this row"),
        ("{% for i in range(25) %}" * 25 + "{% endfor %}" * 25 + "|||x", "does not parse"),
        ("{{ ''.__class__.__mro__ }}|||x", "'__class__'"),
        ("{{ ''.__class__ }}|||x", "'__class__'"),
        ("{{ a.append.__self__ }}|||x", "'__self__'"),
        ("{{ '{0.__class__}'.format(a) }}|||x", "unsafe"),
    ],
)
def test_bad_template_is_an_input_error_that_names_it(jinja, said):
    with pytest.raises(InputError) as caught:
        apply(jinja, {"a": []})
    assert said in caught.value.what
    assert "template 't'" in caught.value.where


CHAIN = "".join(f"{{% set l{i} = [] %}}{{% set m{i} = [] %}}" for i in range(40)) + "".join(
    f"{{{{ {n}{i + 1}.append({n}{i}) }}}}{{{{ {n}{i + 1}.append({n}{i}) }}}}" for n in "lm" for i in reversed(range(39))
)


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ 'a' * 10**9 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set s = 'aaaaaaaa' %}" + "{% set s = s ~ s %}" * 40,
        "{% set l = ['x'] %}{% for i in l %}{{ l.append(i) }}{% endfor %}",
        "{% set l = ['x'] %}{% for i in range(60) %}{{ l.extend(l) }}{% endfor %}",
        "{% set l = ['x'] %}{% for i in range(60) %}{{ l.append([l[-1], l[-1]]) }}{% endfor %}{{ (l ~ '') | length }}",
        "{% set l = [] %}{{ l.append(l) }}{{ l.append(l) }}{{ l == [l] }}{{ l | string | length }}{{ l.sort() }}",
        CHAIN + "{{ (l39 ~ '') | length }}",
        CHAIN + "{{ l39 == m39 }}",
        CHAIN + "{{ l39 is eq m39 }}",
        CHAIN + "{{ [m39, l39].index(l39) }}",
        CHAIN + "{{ l39 }}",
        CHAIN + "{{ '%s' % l39 }}",
    ],
)
def test_bounds_hold_though_lists_may_change(jinja):
    start = time.process_time()
    with pytest.raises(InputError, match=r"grow over|more than|recurses|depth"):
        apply(jinja + "|||x")
    assert time.process_time() - start < 2  # half a second by design; the rest is for a slow machine


ODD = {
    "stringified": ("{{ {'k': {'n': 1}} }}|||x", None, {}),
    "long": ("{{ a }}|||{{ a }}", None, {"a": LONG}),
    "number": ("{{ a }}|||{{ a + 1 }}", None, {"a": 1}),
    "none": ("{{ a }}{{ a.b }}|||x", None, {"a": None}),
    "protector": ("{{ a }}|||{{ a | replace('e', 'f') }}", None, {"a": "|||" + PROTECTOR}),
    "comment": ("{# a }} b #}{{ a }}\n|||\n", "a ||| b\n", {"a": "x\r\ny"}),
    "raw": ("{% raw %}{{ a }}{% endraw %}|||x", None, {"a": 1}),
    "no choices": ("{{ answer_choices }}|||{{ answer_choices[0] }}", None, {}),
    "empty choices": ("{{ answer_choices }}|||x", "{{ a }}", {}),
    "separator in choices": ("{{ answer_choices }}{{ answer_choices[0] }}|||x", "{{ a }} ||| b", {"a": "p|||q"}),
    "restricted": ("x|||y", None, {"answer_choices": ["a"]}),
    "changed row": ("{{ a.append(1) }}{{ a }}|||{{ a.pop() }}", "{{ a.pop() }} ||| b", {"a": [[2], 3]}),
    "loop": ("{% for x in a %}{{ loop.index }}/{{ loop.length }}{{ '. '.join([x, x]) }}{% endfor %}|||x", None, {"a": ["p", "q"]}),
    "macro": ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(a) ~ m(b) }}|||x", None, {"a": 1}),
    "tests": ("{{ a is defined }}{{ b is defined }}{{ a in [1] }}{{ a is eq 1 }}|||x", None, {"a": 1}),
    "undefined arithmetic": ("{{ a + 1 }}|||x", None, {}),
    "undefined loop": ("{% for x in a %}{% else %}none{% endfor %}{{ a | length }}|||x", None, {}),
    "bad index": ("{{ a[5] }}|||{{ answer_choices[7] }}", "p ||| q", {"a": "x"}),
    "type error": ("{{ a + 'x' }}|||x", None, {"a": 1}),
}


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("highlight", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_odd_templates_give_what_promptsource_gives(reference, name, highlight, truncate):
    jinja, choices, row = ODD[name]
    theirs = reference.Template("t", jinja, "", answer_choices=choices)

    def outcome(call):
        try:
            return call()
        except InputError as error:
            return type(error.__cause__ or ValueError())
        except Exception as error:
            return type(error)

    expected = outcome(lambda: theirs.apply(copy.deepcopy(row), truncate, highlight))
    assert outcome(lambda: compat(jinja, choices).apply(row, truncate, highlight)) == expected


@pytest.mark.slow
def test_promptsources_own_templates_render_alike(reference):
    results = list(promptsource_parity.compare_all(reference, rows=2, alternate=True))
    counts = promptsource_parity.summary(results)
    assert [result for result in results if result.differences] == []
    assert counts["templates"] == counts["templates that rendered a row"] == 2_085
    assert counts["of these, templates that rendered input and target"] >= 2_000
    assert counts["rows rendered by both"] >= 7_000


def test_promptsources_own_files_read_and_write_without_loss(reference, tmp_path):
    files, templates, path = promptsource_parity.template_files(reference), 0, tmp_path / "templates.yaml"
    loader = promptsource_parity.reference_loader(reference)
    for file in files:
        loaded = read_template_file(file)
        text = dump_templates(loaded)
        path.write_text(text, encoding="utf-8")
        assert read_template_file(path) == loaded
        theirs = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)["templates"]
        for key, template in yaml.load(text, Loader=loader)["templates"].items():
            templates += 1
            kept = {**vars(theirs[key]), "metadata": {"languages": [], **vars(theirs[key].metadata)}}
            kept.pop("task_template", None)
            assert {**vars(template), "metadata": vars(template.metadata)} == kept
    assert (len(files), templates) == (279, 2_085)


def test_speed_is_measured_on_equal_texts(reference):
    loader = promptsource_parity.reference_loader(reference)
    cases = list(render_speed.task_cases(get_task("ocnli"), loader, rows=3, templates=2))
    result = render_speed.measure(cases, rounds=1)
    ratios = {name: figures["times promptsource"][1] for name, figures in result["renderers"].items()}
    assert result["examples"] == 6
    assert ratios["ours, strict"] > 5
    assert ratios["ours, promptsource's way"] > 2


@pytest.mark.parametrize(
    ("jinja", "choices", "renders", "reason"),
    [
        ("{{ text }}|||{{ answer_choices[label] }}", "a ||| b", "strict", ""),
        ("{% if text %}{{ text }}|||x{% endif %}", None, "compat", "0 stand at its top level"),
        ("{{ text }}{% set l = [] %}{{ l.append(1) }}|||x", None, "compat", "it changes a list or dict (.append)"),
        ("{{ txt }}|||x", None, "compat", "it names 'txt', which is no field of the task"),
        ("{{ text }}|||x", "@labels.other", "compat", "stand for label words here"),
        ("{{ text }}|||x", "@labels", "strict", ""),
        ("{{ labels }}|||x", None, "compat", "which stands for the task's label words here"),
        ("{{ text }|||x", None, "none", "does not parse"),
        ("{{ text | nope }}|||x", None, "none", "nope"),
    ],
)
def test_verdict_says_who_renders_a_template_and_why_not_strict(jinja, choices, renders, reason):
    verdict = judge(Template("1", "t", jinja, "toy", choices), {"text", "label", "labels"}, {"labels": ("差", "好")})
    assert verdict.renders == renders
    assert reason in "; ".join(verdict.reasons)


def test_without_a_task_no_name_is_unknown():
    verdict = judge(Template("1", "t", "{{ txt }}|||{{ answer_choices[a.b] }}", "toy", "{{ c }}"))
    assert (verdict.renders, verdict.names) == ("strict", {"txt", "a", "c"})


LEGACY = """\
dataset: toy
templates:
  a1: !Template
    answer_choices: null
    answer_choices_key: 'yes ||| {{ b }}'
    jinja: '{{ a }}|||{{ answer_choices[0] }}'
    name: old
    reference: null
    task_template: true
  b2: !Template
    answer_choices: [yes please, no]
    id: null
    jinja: '{{ a }}|||x'
    metadata: null
    name: older
"""


def test_old_forms_are_read_and_what_is_left_out_is_named(tmp_path):
    path = tmp_path / "templates.yaml"
    path.write_text(LEGACY, encoding="utf-8")
    foreign = read_foreign_file(path)
    old, older = foreign.templates
    assert (old.id, old.answer_choices) == ("a1", "yes ||| {{ b }}")
    assert (older.id, older.answer_choices) == ("b2", "yes please ||| False")
    assert foreign.dropped == {"task_template": 1}
    path.write_text(LEGACY.replace("[yes please, no]", "5"), encoding="utf-8")
    with pytest.raises(InputError, match="answer_choices is 5"):
        read_foreign_file(path)


def test_joining_refuses_what_stands_twice():
    first = TemplateSet("toy", (Template("1", "a", "x|||y"),))
    assert [t.name for t in joined(first, TemplateSet("other", (Template("2", "b", "x|||y"),)), "f")] == ["a", "b"]
    for template, said in ((Template("1", "b", "x|||y"), "id '1'"), (Template("2", "a", "x|||y"), "name 'a'")):
        with pytest.raises(InputError, match=said):
            joined(first, TemplateSet("toy", (template,)), "f")
