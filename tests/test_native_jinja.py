"""The native functions say what the sandbox says, on every row and template that they take on."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengzi_mt.data.examples import bound_templates
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.rendering import compile_template
from mengzi_mt.tasks.registry import get_task, task_names
from mengzi_mt.tasks.rows import DataSource, available_splits, load_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROW = st.fixed_dictionaries(
    {
        "a": TEXT,
        "b": TEXT | st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False),
        "i": st.integers(-3, 3),
        "words": st.lists(TEXT, max_size=4),
        "spans": st.lists(st.fixed_dictionaries({"text": TEXT, "type": st.sampled_from(["人名", "地名", "Kind"])}), max_size=4),
        "nested": st.fixed_dictionaries({"x": TEXT}),
    }
)
CHOICES = "差 ||| 好 ||| 中"
ROW_CHOICES = "{{ words | join(' ||| ') }}"
PIECE_CHOICES = "{{ a }} ||| 无 ||| {{ nested.x }}"


def same(jinja, row, choices=None, shrink=(("a", "tail"),)):
    """Both ways of rendering agree; the native result, or None where the native function leaves the row to the sandbox."""
    compiled = compile_template(jinja, choices, tuple(shrink), where="test")
    assert compiled.native is not None, "the native subset should hold this"
    try:
        native = compiled.native(row, True)
    except Exception:
        return None
    assert native == compiled.render_sandboxed(row, ("seed",))
    return native


TYPED = "{{ spans | selectattr('type', 'equalto', t) | map(attribute='text') | join('，') }}"
CASES = [
    ("  {{ a }} 和 {{ b }}\n|||{{ a }}", None),
    ("'{{ a }}\" {{ '{' }}{{ b }}}}|||{{ i }}", None),
    ("{{ answer_choices | join('、') }}：{{ a }}|||{{ answer_choices[i] }}", CHOICES),
    ("{% for c in answer_choices %}- {{ c }}\n{% endfor %}{{ a }}|||{{ answer_choices[i] }}", CHOICES),
    ("{{ a }}{{ answer_choices | join('/') }}|||{{ answer_choices[0] }}", ROW_CHOICES),
    ("{{ answer_choices }}|||{{ answer_choices[1] }}", PIECE_CHOICES),
    ("{{ words }}{{ spans }}{{ nested }}|||{{ nested.x }}{{ nested['x'] }}", None),
    ("{% if a and not b %}甲{% elif i > 0 or b %}乙{{ i }}{% else %}丙{% endif %}|||{{ '是' if i in [1, 2] else '否' }}", None),
    (
        "{% for w in words %}{{ loop.index }}/{{ loop.length }}.{{ w }}{% if not loop.last %}；{% endif %}"
        "{% else %}无{% endfor %}|||x",
        None,
    ),
    ("{% for s in spans if s.type == '人名' %}{{ loop.index0 }}{{ s.text }}{% endfor %}|||{{ spans | length }}", None),
    (
        "{{ spans | selectattr('type', 'in', ['人名', '地名']) | map(attribute='text') | unique(case_sensitive=true)"
        " | join('，') or '无' }}|||x",
        None,
    ),
    ("{{ spans | rejectattr('type', 'equalto', '人名') | map(attribute='type') | unique | list }}|||x", None),
    ("{% for t in spans | map(attribute='type') | unique %}{{ t }}：" + TYPED + "\n{% endfor %}|||x", None),
    (
        "{{ a[:3] }}{{ words[1:] }}{{ a.split('、') | join('/') }}{{ a.replace('a', 'b') }}|||{{ a | trim | replace('b', 'c') }}",
        None,
    ),
    ("{{ words | first }}{{ words | last }}|||{{ i + 1 }}{{ 'x' ~ i ~ a }}{{ i - 1 }}", None),
    ("{% set k = words | join('；') %}{% set l = k ~ a %}{{ l }}{{ k }}|||{{ l }}", None),
    ("{% set k = ['甲', '乙'] %}{{ k | join('、') }}{{ a }}|||{{ k[i] }}", None),
    (
        "{% set n = words | length %}{{ n }}{% for w in words %}{% for v in words %}{{ w }}{{ v }}{% endfor %}{% endfor %}"
        "|||{{ n }}",
        None,
    ),
    ("{{ a }}{% if b %}{{ b }}{% endif %}尾  |||{{ b | string }}", None),
]


@settings(max_examples=60, deadline=None)
@given(ROW)
@pytest.mark.parametrize(("jinja", "choices"), CASES)
def test_native_rendering_equals_the_sandbox(jinja, choices, row):
    same(jinja, row, choices)


@pytest.mark.parametrize("name", task_names())
def test_every_shipped_template_renders_natively_as_in_the_sandbox(name):
    task, source = get_task(name), DataSource("sample")
    rows = [row for split in available_splits(task, source) for row in load_rows(task, split, source)][:40]
    filler = {key: "" for key, spec in task.fields.items() if spec.optional}
    for template in bound_templates(task):
        native = template.compiled.native
        for row in rows if native else ():
            try:
                rendered = native({**filler, **row.values}, True)
            except Exception:
                continue
            assert rendered == template.compiled.render_sandboxed({**filler, **row.values}, ("x",)), template.place


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ a | choice }}|||x",
        "{{ ''.__class__.__mro__ }}|||x",
        "{{ a.__class__ }}|||x",
        "{{ a.upper }}|||x",
        "{{ 'a' * 10**9 }}|||x",
        "{% for i in range(10**9) %}x{% endfor %}|||x",
        "{{ words | map(attribute='x') }}|||x",
        "{{ '有' if words | selectattr('x') else '无' }}|||x",
        "{% set a = a ~ a %}" * 5 + "{{ a }}|||x",
        "{% macro m() %}{% endmacro %}{{ m() }}|||x",
        "{{ '是' if a }}|||x",
    ],
)
def test_what_is_outside_the_subset_is_left_to_the_sandbox(jinja):
    assert compile_template(jinja, None, (), where="test").native is None


def test_source_is_never_made_of_a_templates_text():
    row = {"a": "x", '__import__("os")': "y"}
    hostile = "'''\\\n{{ a }}'''; import os #{{ \"}}\" }}|||{{ a['x'] }}"
    with pytest.raises(InputError):
        compile_template(hostile, None, (), where="test").render(row)
    rendered = same("\\'''{{ a }}\\n{{ '\\x7d' }}\u2028\"\"\"|||{{ a }}", row)
    assert rendered is not None
    assert rendered.targets == "x"


def test_marks_in_a_field_go_and_spans_stay_exact():
    compiled = compile_template("{{ a }}问|||x", None, (("a", "tail"),), where="test")
    prompt = compiled.render({"a": "甲\ufdd0乙"})
    assert (prompt.inputs, prompt.shrinkable) == ("甲乙问", ((0, 2, "tail"),))


def test_nested_loops_over_long_lists_are_stopped_by_the_sandbox():
    row = {"words": ["x"] * 20_000}
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"steps|seconds"):
        compile_template("{% for a in words %}{% for b in words %}{{ a }}{% endfor %}{% endfor %}|||x", None, (), where="t").render(
            row
        )
    assert time.perf_counter() - started < 1.5


def test_cut_modes_reach_the_span():
    prompt = same("{{ a }}|{{ nested }}|||x", {"a": "甲", "nested": "乙"}, shrink=[("a", "head"), ("nested", "middle")])
    assert [span.cut for span in prompt.shrinkable] == ["head", "middle"]


def test_what_an_expression_only_tests_or_counts_is_not_shrinkable():
    compiled = compile_template(
        "{{ a | length }}{{ '长' if a else '短' }}{{ b[a] if a else b }}|||x", None, (("a", "tail"),), where="t"
    )
    assert compiled.render({"a": "k", "b": {"k": "v"}}).shrinkable == ()


def test_loop_over_a_shrinkable_list_is_shrinkable():
    compiled = compile_template("{% for p in a %}{{ p }}\n{% endfor %}问|||x", None, (("a", "head"),), where="t")
    assert compiled.render({"a": ["甲", "乙"]}).shrinkable == ((0, 1, "head"), (2, 3, "head"))
