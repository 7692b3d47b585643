import json

import pytest
import yaml


@pytest.fixture
def runs(tmp_path):
    """A folder ``runs`` with a run of 40 logged intervals."""
    folder = tmp_path / "runs" / "try"
    folder.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for number in range(1, 41):
            record = {
                "step": 5 * number, "loss": 8 / number, "gradient_norm": 1.5, "learning_rate": 1e-5, "tokens_per_second": 1234.5,
                "padding": 0.125, "seconds": 2.0, "mfu": 0.5, "task_loss": {"lcqmc": 4 / number},
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
            if number % 20 == 0:
                validation = {"step": 5 * number, "validation_loss": 3 - number / 20, "validation_losses": {"lcqmc": 0.25}}
                file.write(json.dumps(validation) + "\n")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "try", "training": {"steps": 400}}))
    return folder.parent


def test_list(command, runs):
    shown = command("runs", "list")
    assert shown.code == 0
    line = next(line for line in shown.out.splitlines() if "try" in line)
    assert line.split() == [
        "try", "interrupted", "200", "/", "400", "0.2000", "validation_loss", "1", "@", "200", "98,760", "1", "min", "20", "s",
    ]  # fmt: skip
    (entry,) = json.loads(command("runs", "list", "--root", runs, "--json").out)
    assert (entry["state"], entry["step"], entry["best"]["step"], entry["tokens"]) == ("interrupted", 200, 200, 98_760)


def test_show(command, runs):
    out = command("runs", "show", "try", "--rows", 4).out
    rows = [line.split() for line in out.splitlines() if "1,234" in line]
    assert [row[0] for row in rows] == ["50", "100", "150", "200"]
    assert rows[1] == ["100", "0.4000", "2.0000", "1.5000", "1e-5", "1,234", "12.5%", "50.0%"]
    assert "40 records, 4 of them" in out
    assert next(line.split() for line in out.splitlines() if "lcqmc" in line) == ["lcqmc", "0.1000", "0.2500"]
    whole = json.loads(command("runs", "show", runs / "try", "--json").out)
    assert len(whole["records"]) == 42 and whole["name"] == "try"


def test_plot(command, runs, tmp_path):
    assert command("runs", "plot", "try").out.strip() == "runs/try/curves.html"
    assert "<svg" in (runs / "try" / "curves.html").read_text(encoding="utf-8")
    assert command("runs", "plot", "try", "try", "-o", "x.svg").code == 0
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").startswith("<svg")


def test_refusals(command, runs):
    assert "Did you mean 'try'" in command("runs", "show", "tri").refused()
    assert "no such folder" in command("runs", "list", "--root", "nowhere").refused()
    assert ".html or .svg" in command("runs", "plot", "try", "-o", "x.pdf").refused()
