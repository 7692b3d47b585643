import json

import pytest

from mengzi_mt.training.progress import Progress


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_line_averages_the_steps_since_the_last_one(tmp_path, capsys):
    progress = Progress(tmp_path, 10, 0)
    for loss in (1.0, 2.0):
        progress.step(loss, 60, 80)
    progress.line(2, 0.5, 1e-3)
    progress.step(5.0, 80, 80)
    progress.line(3, 0.5, 1e-3, {"extra": "中"})
    first, second = lines(tmp_path)
    assert (first["step"], first["loss"], first["padding"], first["gradient_norm"], first["learning_rate"]) == (
        2,
        1.5,
        0.25,
        0.5,
        1e-3,
    )
    assert (second["loss"], second["padding"], second["extra"]) == (5.0, 0.0, "中")
    assert first["tokens_per_second"] == pytest.approx(120 / first["seconds"])
    assert capsys.readouterr().err.startswith("step 2/10 | loss 1.5000 | grad 0.50 | lr 1.00e-03 | ")


def test_resumed_line_goes_on_from_the_saved_sums(tmp_path):
    before = Progress(tmp_path, 10, 0)
    before.step(1.0, 60, 80)
    saved = json.loads(json.dumps(before.averages()))
    after = Progress(tmp_path, 10, 1, saved)
    after.step(2.0, 80, 80)
    after.line(2, 0.5, 1e-3)
    (line,) = lines(tmp_path)
    assert (line["loss"], line["padding"]) == (1.5, 1 - 140 / 160)
    assert line["tokens_per_second"] == pytest.approx(80 / line["seconds"])


def test_lines_after_the_resumed_step_and_torn_ones_are_forgotten(tmp_path):
    whole = [{"step": 2}, {"step": 4, "validation_loss": 1.0}, {"step": 6}]
    text = "".join(json.dumps(line) + "\n" for line in whole) + '{"step": 8, "lo\n3\n'
    (tmp_path / "metrics.jsonl").write_bytes(text.encode() + b'{"step": 4, "\xe4\xb8')
    Progress(tmp_path, 10, 4)
    assert lines(tmp_path) == whole[:2]
    Progress(tmp_path, 10, 0)
    assert lines(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
