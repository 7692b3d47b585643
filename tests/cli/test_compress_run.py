def test_the_stages_are_printed_and_nothing_is_run(command, tmp_path):
    shown = command("compress", "run", "compress-mini-to-micro", "--data", "sample", "--dry-run", "prune=null")
    assert shown.code == 0, shown.err
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["distil", "teacher", "to", "do"] in [line[:4] for line in lines]
    assert ["export-onnx-int8", "distil", "to", "do"] in [line[:4] for line in lines]
    assert not (tmp_path / "runs").exists()
    resolved = command("compress", "run", "compress-mini-to-micro", "--data", "sample", "--print-config")
    assert "source: sample" in resolved.out


def test_wrong_recipes(command):
    assert "Unknown key 'distill'" in command("compress", "run", "compress-mini-to-micro", "distill=1").refused()
    assert "folder does not exist" in command("compress", "run", "compress-mini-to-micro", "teacher=./no", "--dry-run").refused()
    assert "no such recipe" in command("compress", "run", "compress-mini-to-macro").refused()


def test_an_interruption_says_how_to_go_on(command, monkeypatch):
    from mengzi_mt.compression import pipeline

    def interrupted(*about):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run_pipeline", interrupted)
    shown = command("compress", "run", "compress-mini-to-micro", "--data", "sample")
    assert shown.code == 130 and "the same command goes on" in shown.err
