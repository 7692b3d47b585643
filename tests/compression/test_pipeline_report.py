import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mengzi_mt.compression.pipeline_figures import Point, pareto
from mengzi_mt.compression.pipeline_report import megabytes, milliseconds, page, percent, times
from mengzi_mt.compression.pipeline_results import check_results, json_schema, schema_text
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.model_tables import signed
from mengzi_mt.evaluation.report_figures import number

PUBLISHED = Path(__file__).parents[2] / "docs/compression.schema.json"


def speed(scale):
    return {
        "per_second": 40.0 * scale, "times_throughput": scale, "p50_ms": 31.0 / scale, "p95_ms": 77.0 / scale,
        "times_latency": scale,
        "processor_ms": 25.0 / scale, "times_processor": scale, "same_answers": 0.875, "inputs": 96, "alone": 36, "rounds": 3,
    }  # fmt: skip


def form(name, of, scale, difference, interval):
    verdict = "reference" if difference is None else "lower" if interval[1] < 0 else "no difference shown"
    shared = {"difference": difference, "difference_interval": interval, "verdict": verdict}
    kept = 1.0 if difference is None else (0.6 + difference) / 0.6
    task = {"task": "lcqmc", "metric": "accuracy", "rows": 80, "chance": 0.5, "score": 0.6, "interval": [0.5, 0.7], **shared}
    suite = {
        "suite": "held-in", "score": 0.6 + (difference or 0.0), "interval": [0.52, 0.68], "kept": kept,
        "kept_interval": None if difference is None else [kept - 0.05, kept + 0.04], "p": None if difference is None else 0.03,
        "tasks": [task], **shared,
    }  # fmt: skip
    return {
        "name": name, "label": name, "of": of, "stage": None, "place": "x", "runtime": "mengzi-mt", "precision": "float32",
        "parameters": 11_185_136, "bytes": int(44_740_544 / scale), "folder_bytes": 46_000_000, "smaller": scale,
        "memory": {"peak": int(123_400_000 / scale), "before": 400_000_000}, "score": speed(scale), "generate": speed(scale),
        "suites": [suite], "frontier": {"latency": scale > 2, "bytes": True},
    }  # fmt: skip


@pytest.fixture
def results():
    return {
        "schema": "mengzi-mt/compression/1", "created": "2025-01-02T03:04:05+00:00", "name": "tiny", "description": "<b>小</b>",
        "teacher": "models/mengzi-mt-mini", "data": {"source": "files", "note": None},
        "machine": {
            "processor": "Some processor", "cores": 2, "threads": 1, "system": "Linux", "load_before": 0.5, "load_after": 1.0,
            "busy": False,
        },
        "versions": {"torch": "2.9"}, "settings": {"batch": 32, "new_tokens": 16},
        "suites": [
            {
                "suite": "held-in", "kind": "held-in", "tasks": ["lcqmc"], "split": "validation", "limit": 80, "seed": 1,
                "max_templates": 1, "warnings": [],
            }
        ],
        "forms": [
            form("transformers float32", "teacher", 1.0, None, None), form("teacher", "teacher", 2.0, None, None),
            form("student", "compressed", 3.7, -0.083, [-0.12, -0.04]), form("int8", "compressed", 7.3, -0.012, [-0.05, 0.03]),
        ],
        "stages": [{"stage": "distil", "source": "teacher", "folder": "distil-1", "seconds": 61.0, "settings": {}}],
    }  # fmt: skip


def test_the_published_schema_is_up_to_date():
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(), (
        "write it anew: python -m mengzi_mt.compression.pipeline_results docs/compression.schema.json"
    )


def test_every_key_is_described():
    schema = json_schema()
    for name, part in {"PipelineResults": schema, **schema["$defs"]}.items():
        assert part["description"], name
        assert not [key for key, value in part["properties"].items() if "description" not in value], name


def test_what_does_not_follow_the_schema_is_refused(results):
    check_results(results)
    jsonschema = pytest.importorskip("jsonschema")
    assert not list(jsonschema.Draft202012Validator(json_schema()).iter_errors(json.loads(json.dumps(results))))
    with pytest.raises(InputError, match="schema 'x'"):
        check_results(results | {"schema": "x"})
    results["forms"][1]["generate"].pop("p95_ms")
    with pytest.raises(InputError, match=r"forms\.1\.generate\.p95_ms"):
        check_results(results)


class Cells(HTMLParser):
    """The table cells of a section, each as its text, row by row."""

    def __init__(self):
        super().__init__()
        self.section, self.rows, self.open = None, {}, False

    def handle_starttag(self, tag, attributes):
        if tag == "section":
            self.section = dict(attributes).get("id")
        elif tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[self.section][-1][-1] += data + " "


def test_every_number_of_the_report_is_that_of_the_results(results):
    cells = Cells()
    cells.feed(page(results))
    for place, one in enumerate(results["forms"]):
        name, weights, alone, batches, memory, kept = cells.rows["forms"][1 + place]
        assert name.split(maxsplit=1) == [f"{'ABCD'[place]}", f"{one['label']} "]
        assert weights.strip() == f"{megabytes(one['bytes'])} {times(one['smaller'])} smaller"
        generate = one["generate"]
        assert alone.strip() == f"{milliseconds(generate['p50_ms'])} {times(generate['times_latency'])} shorter"
        assert batches.strip() == f"{generate['per_second']:,.0f}/s {times(generate['times_throughput'])}"
        assert memory.strip() == megabytes(one["memory"]["peak"])
        assert kept.startswith(percent(one["suites"][0]["kept"]))
        if place:
            suite, row = one["suites"][0], cells.rows["suite-0"][place]
            assert row[1].startswith(number(suite["score"]))
            assert row[3].startswith("—" if suite["difference"] is None else signed(suite["difference"]))
            assert row[5].strip() == {"reference": "the reference"}.get(suite["verdict"], suite["verdict"])
    assert cells.rows["stages"][1][1].strip() == "1 min 1 s"


def test_only_what_an_interval_shows_is_coloured(results):
    cells = re.findall(r'<td class="n (lower|higher)"', page(results))
    assert cells == ["lower"] * 3  # in the summary, on the suite and on its task, of the student alone
    assert "loss" not in page(results)


def test_samples_and_a_busy_machine_are_said(results):
    quiet = page(results)
    assert "Bundled samples" not in quiet and "busy machine" not in quiet
    noisy = copy.deepcopy(results)
    noisy["data"]["source"] = "sample"
    noisy["machine"] |= {"busy": True, "load_before": 7.25}
    told = page(noisy)
    assert "Bundled samples, not benchmarks" in told
    assert "Measured on a busy machine" in told and "7.2" in told


def test_the_page_is_one_file_and_texts_are_escaped(results):
    told = page(results)
    assert "&lt;b&gt;小" in told and "<b>小" not in told
    assert not re.search(r'(src|href)="(?!#)', told) and "@import" not in told and "url(" not in told


def test_labels_do_not_touch_and_the_frontier_goes_through_its_points():
    points = [
        Point("ABCDEFGH"[k], f"form number {k}", cost, kept, (kept - 0.05, kept + 0.05), 0.1 + 0.1 * k, k in (0, 2), "compressed")
        for k, (cost, kept) in enumerate(
            [(1, 0.5), (1.1, 0.45), (3, 1.0), (3.1, 0.98), (3.2, 0.99), (9, 0.97), (9.1, 0.4), (40, 0.9)]
        )
    ]
    drawn = pareto("title", "ms", points)
    labels = re.findall(r'<text class="label[^"]*" x="([\d.-]+)" y="([\d.-]+)">([^<]+)</text>', drawn)
    assert {text[0] for _, _, text in labels} == set("ABCDEFGH")
    assert {text for _, _, text in labels if len(text) > 1} == {"A form number 0", "C form number 2"}
    boxes = [(float(x), float(y), float(x) + 7.4 * len(text), float(y) + 14) for x, y, text in labels]
    for at, one in enumerate(boxes):
        assert not any(a[0] < one[2] and one[0] < a[2] and a[1] < one[3] and one[1] < a[3] for a in boxes[:at])
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert len(circles) == len(points)
    path = re.search(r'class="frontier" d="M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)H', drawn).groups()
    assert path[:2] in circles and path[2:] in circles
