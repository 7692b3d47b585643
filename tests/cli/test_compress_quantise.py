import json


def test_quantise_and_evaluate(command, checkpoint, tmp_path):
    shown = command("compress", "quantise", checkpoint, "small")
    assert shown.code == 0, shown.err
    assert "best choice the same for" in shown.out
    shown = command(
        "evaluate", "small", "--tasks", "eprstmt", "--data", "sample", "--split", "validation", "--max-templates", 1, "--limit", 3,
        "--output", "out",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert results["settings"]["precision"] == "int8"
    assert results["model"]["parameters"] > 0 and len(results["model"]["hash"]) == 16
    assert results["model"]["scored_as"] == "trees of choices, torch-int8"


def test_export_keeps_its_older_option(command, checkpoint, tmp_path):
    assert command("compress", "export", checkpoint, "a", "--dtype", "float32").code == 0
    assert command("compress", "export", checkpoint, "b").code == 0
    kinds = [json.loads((tmp_path / name / "config.json").read_text())["dtype"] for name in "ab"]
    assert kinds == ["float32", "bfloat16"]


def test_wrong_options(command, checkpoint):
    assert "torch, ctranslate2, onnx" in command("compress", "export", checkpoint, "a", "--to", "tflite").refused()
    assert "give one with --recipe" in command("compress", "quantise", checkpoint, "a", "training.steps=3").refused()
    assert "no precision 'int4'" in command("compress", "export", checkpoint, "a", "--precision", "int4").refused()
    assert "does not exist" in command("compress", "quantise", "nowhere/at/all", "a").refused()


def test_fine_tuning_with_the_rounding_comes_first(command, checkpoint, tmp_path):
    recipe = tmp_path / "rounding.yaml"
    recipe.write_text(
        "name: rounding\noutput: runs/rounding\ndata: {source: sample}\nmixture: {tasks: [chnsenticorp]}\n"
        "training: {steps: 2, batch: 4, workers: 0}\n",
        encoding="utf-8",
    )
    shown = command("compress", "quantise", checkpoint, "small", "training.steps=3", "--recipe", recipe)
    assert shown.code == 0, shown.err
    told = json.loads((tmp_path / "small/mengzi_mt.json").read_text(encoding="utf-8"))
    assert told["recipe"]["training"]["fake_int8"] is True and told["step"] == 3
    assert (tmp_path / "small/export.json").is_file()
