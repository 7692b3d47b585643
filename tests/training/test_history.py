import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import yaml

from mengzi_mt.errors import InputError
from mengzi_mt.training.history import curve, find_runs, open_run, read_run
from mengzi_mt.training.history_page import MOST_RUNS, page, svg, write_picture
from mengzi_mt.training.run_status import write_status

OLD = {"gradient_norm": 1.0, "learning_rate": 1e-3, "tokens_per_second": 50.0, "padding": 0.1, "seconds": 2.0}


@pytest.fixture
def make_folder(tmp_path):
    """Makes a run folder of three logged intervals and two validations, as an earlier version wrote it."""

    def make(name="a", steps=30, final=None, records=None, stopping=None):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        records = records or [
            {"step": 10, "loss": 8.0, **OLD},
            {"step": 10, "validation_loss": 3.0, "validation_losses": {"lcqmc": 4.0, "<b>": 2.0}, "scores": {}},
            {"step": 20, "loss": 2.0, **OLD},
            {"step": 20, "validation_loss": 2.5, "validation_losses": {"lcqmc": 2.9, "<b>": 2.1}, "scores": {"eprstmt": 0.5}},
            {"step": 30, "loss": float("nan"), **OLD},
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "metrics.jsonl").write_text(lines + '{"step": 40, "lo')
        recipe = {"name": name, "training": {"steps": steps}, **({"stopping": stopping} if stopping else {})}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        for place, step in (("step-0000020", 20), ("final", final)):
            if step is None:
                continue
            (folder / place).mkdir()
            manifest = {
                "step": step, "parameters": 1_234, "counters": {"tokens": 250}, "research_only": True,
                "data": {"lcqmc": {"rows": 45, "licence": "academic <research> only", "research_only": True}},
                "examples": {"lcqmc": {"t1": 3, "t2": 4}},
            }  # fmt: skip
            (folder / place / "mengzi_mt.json").write_text(json.dumps(manifest))
        return folder

    return make


def test_an_interrupted_run_of_an_earlier_version(make_folder):
    run = read_run(make_folder())
    assert (run.name, run.outcome, run.step, run.steps, run.loss) == ("a", "interrupted", 30, 30, None)
    assert (run.best.score, run.best.value, run.best.step) == ("validation_loss", 2.5, 20)
    assert (run.tokens, run.seconds) == (300, 6.0)
    assert run.tasks == ("<b>", "lcqmc") and run.task_examples == {"lcqmc": 7}
    assert curve(run.training, "loss") == [(10, 8.0), (20, 2.0)]
    assert curve(run.validations, "validation_losses.lcqmc") == [(10, 4.0), (20, 2.9)]


def test_best_follows_the_recipes_score(make_folder):
    run = read_run(make_folder(stopping={"score": "validation_losses.<b>", "mode": "max"}))
    assert (run.best.score, run.best.value, run.best.step) == ("validation_losses.<b>", 2.1, 20)
    assert read_run(make_folder("b", stopping={"score": "scores.none"})).best is None


def test_states(make_folder, tmp_path):
    assert read_run(make_folder("whole", final=30)).outcome == "finished"
    assert read_run(make_folder("partly", final=20)).outcome == "interrupted"
    folder = make_folder("alive")
    write_status(folder, "running", 33, 50)
    assert (read_run(folder).outcome, read_run(folder).step) == ("running", 33)
    write_status(folder, "failed", 33, 50)
    assert read_run(folder).outcome == "failed"
    early = make_folder("early", steps=100)
    write_status(early, "finished", 30, 100)  # stopped early
    assert read_run(early).outcome == "finished"


def test_new_records_say_tokens_and_time_themselves(make_folder):
    record = {"step": 10, "loss": 1.0, **OLD, "tokens_seen": 77, "elapsed": 9.5, "task_loss": {"finre": 0.5}}
    run = read_run(make_folder(records=[record]))
    assert (run.tokens, run.seconds) == (77, 9.5) and "finre" in run.tasks


def test_runs_are_found_and_near_names_suggested(make_folder, tmp_path):
    make_folder("b")
    make_folder("first")
    (tmp_path / "runs" / "eval").mkdir()
    root = tmp_path / "runs"
    assert [run.name for run in find_runs(root)] == ["b", "first"]
    assert [run.name for run in find_runs(root / "b")] == ["b"]
    assert open_run("first", root).name == open_run(str(root / "first"), tmp_path).name == "first"
    with pytest.raises(InputError, match="Did you mean 'first'"):
        open_run("frist", root)
    with pytest.raises(InputError, match="no such folder"):
        find_runs(root / "none")


def test_damaged_files_beside_the_metrics_do_not_matter(make_folder):
    folder = make_folder()
    (folder / "recipe.yaml").write_text("a: [")
    (folder / "step-0000020" / "mengzi_mt.json").write_text("{")
    run = read_run(folder)
    assert (run.step, run.steps, run.outcome) == (30, None, "interrupted")
    assert page([run])


def test_a_page_is_self_contained_and_escaped(make_folder):
    text = page([read_run(make_folder(final=30))])
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")
    assert "academic &lt;research&gt; only" in text and "<b>" not in text
    titles = re.findall(r"<figcaption><span>(.*?)</span>", text)
    assert titles[:5] == [
        "Training loss", "Validation loss, mean of tasks", "Learning rate", "Gradient norm", "Tokens per second, without padding",
    ]  # fmt: skip
    assert titles[-3:] == ["eprstmt", "&lt;b&gt;", "lcqmc"] and "Model FLOP utilisation" not in titles
    assert text.count("<svg") == text.count("</svg>") == len(titles)


def test_several_runs_share_charts_in_their_own_colours(make_folder):
    runs = [read_run(make_folder(name)) for name in "abcdefgh"]
    text = page(runs)
    loss = text[text.index("Training loss</span>") :].split("</figure>")[0]
    assert len(re.findall(r'<path class="c\d"', loss)) == 6 and len(re.findall(r'<path class="c[01] dashed"', loss)) == 2
    assert "8 runs" in text


def test_an_svg_is_well_formed_and_holds_the_main_curves(make_folder, tmp_path):
    runs = [read_run(make_folder(name)) for name in "ab"]
    root = ElementTree.fromstring(svg(runs))
    titles = [element.text for element in root.iter() if element.get("class") == "title"]
    assert titles[:3] == ["a", "b", "Training loss"]
    write_picture(runs, tmp_path / "deep" / "x.svg")
    assert (tmp_path / "deep" / "x.svg").read_text(encoding="utf-8") == svg(runs)


def test_pictures_that_cannot_be_drawn(make_folder, tmp_path):
    run = read_run(make_folder())
    with pytest.raises(InputError, match=r"\.html or \.svg"):
        write_picture([run], tmp_path / "x.png")
    with pytest.raises(InputError, match="cannot be told apart"):
        write_picture([run] * (MOST_RUNS + 1), tmp_path / "x.html")
    empty = read_run(make_folder("empty", records=[{"step": 1}]))
    with pytest.raises(InputError, match="logged nothing"):
        write_picture([empty], tmp_path / "x.html")


def test_reading_runs_imports_no_torch():
    code = "import sys, mengzi_mt.cli.runs, mengzi_mt.training.history_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
