import json

from mengzi_mt.models.tokenizer import load_tokenizer


def test_train_writes_a_tokenizer(command, sample_texts, tmp_path):
    text, lines = tmp_path / "corpus.txt", tmp_path / "corpus.jsonl"
    half = len(sample_texts) // 2
    text.write_text("\n".join(sample_texts[:half]), encoding="utf-8")
    lines.write_text("".join(json.dumps({"text": item}) + "\n" for item in sample_texts[half:]), encoding="utf-8")
    shown = command("tokenizer", "train", text, lines, "--out", tmp_path / "out", "--vocabulary", "4000")
    assert shown.code == 0, shown.err
    assert f"{tmp_path / 'out'}: 4,000 pieces" in shown.out
    assert len(load_tokenizer(tmp_path / "out")) == 4_000


def test_a_corpus_too_small_is_a_failed_run(command, tmp_path):
    (tmp_path / "corpus.txt").write_text("从前有座山。\n", encoding="utf-8")
    shown = command("tokenizer", "train", tmp_path / "corpus.txt", "--out", tmp_path / "out")
    assert "give more text or a smaller --vocabulary" in shown.refused(code=1)


def test_a_missing_corpus_and_a_line_without_text(command, tmp_path):
    arguments = ("--out", tmp_path / "out")
    assert "The corpus file does not exist" in command("tokenizer", "train", tmp_path / "none.txt", *arguments).refused()
    (tmp_path / "corpus.jsonl").write_text('{"txt": "好"}\n', encoding="utf-8")
    assert "corpus.jsonl, line 1" in command("tokenizer", "train", tmp_path / "corpus.jsonl", *arguments).refused()


def test_report_beside_another_tokenizer(command, tokenizer_dir, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "今天天气不错。", "source": "甲"}\n{"text": "龘", "source": "乙"}\n', encoding="utf-8")
    arguments = ("tokenizer", "report", tokenizer_dir, "models/mengzi-mt-mini", "--corpus", path, "--tasks", "drcd")
    shown = command(*arguments)
    assert shown.code == 0, shown.err
    assert "tokens a character" in shown.out
    found = json.loads(command(*arguments, "--json").out)
    assert found["characters"]["甲"] == 7
    assert set(found["characters"]) == {"甲", "乙", "task drcd", "all"}
    assert found["tokenizers"][str(tokenizer_dir)]["sources"]["乙"]["byte_share"] == 1
    assert "nothing to measure" in command("tokenizer", "report", tokenizer_dir).refused()
    assert "evaluation task" in command("tokenizer", "report", tokenizer_dir, "--tasks", "tnews").refused()


def test_train_draws_from_corpus_and_training_tasks(command, sample_texts, tmp_path):
    text = tmp_path / "corpus.txt"
    text.write_text("\n".join(sample_texts), encoding="utf-8")
    arguments = ("tokenizer", "train", text, "--out", tmp_path / "out", "--vocabulary", "3000")
    drawn = (*arguments, "--characters", "90000", "--tasks", "lcqmc,drcd")
    assert "lower --coverage" in command(*drawn, "--coverage", "1").refused(code=1)
    shown = command(*drawn, "--coverage", "0.98")
    assert shown.code == 0, shown.err
    assert "give --characters" in command(*arguments, "--tasks", "drcd").refused()
    assert "evaluation task" in command(*arguments, "--characters", "9000", "--tasks", "tnews").refused()
    assert "--coverage" in command(*arguments, "--coverage", "1.5").refused()
