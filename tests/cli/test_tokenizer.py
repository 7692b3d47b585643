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
