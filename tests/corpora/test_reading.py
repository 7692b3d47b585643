import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mengzi_mt.corpora import reading
from mengzi_mt.corpora.reading import HubSet, parse, read_blocks
from mengzi_mt.corpora.settings import BuildSettings
from mengzi_mt.data.corpus import read_corpus
from mengzi_mt.errors import InputError

TEXTS = ["第一篇。", "第二篇\n有两行。", "第三篇!"]
PLAIN = BuildSettings()


def records(*inputs, settings=PLAIN):
    return [record for block in read_blocks(inputs, settings) for record in parse(block, settings)]


def compressed(path, data):
    if path.suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes({".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(data))
    return path


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zst"])
def test_json_lines_plain_and_compressed(tmp_path, suffix):
    rows = [{"text": text, "source": f"a/b/{number}"} for number, text in enumerate(TEXTS)]
    data = "".join(json.dumps(row) + "\r\n" for row in rows).encode()
    path = compressed(tmp_path / f"c.jsonl{suffix}", b"\xef\xbb\xbf" + data)
    found = records(path)
    assert [record.text for record in found] == TEXTS
    assert [record.document for record in found] == [f"{path.name}:{number}" for number in (1, 2, 3)]
    assert {record.source for record in found} == {"a/b"}
    assert [text for _, text in read_corpus(path)] == TEXTS


def test_text_by_line_paragraph_and_file(tmp_path):
    path = tmp_path / "c.txt"
    path.write_bytes("一\r\n二\r\n\r\n三\r\n".encode())
    assert [record.text for record in records(path)] == ["一", "二", "三"]
    assert [record.text.strip() for record in records(path, settings=BuildSettings(documents="paragraph"))] == ["一\n二", "三"]
    (whole,) = records(path, settings=BuildSettings(documents="file"))
    assert (whole.text, whole.document, whole.source) == ("一\n二\n\n三\n", "c.txt:1", "c")


def test_parquet_and_hub_folder(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"body": [*TEXTS, None], "source": ["甲", "乙", "丙", "丁"]}), path)
    settings = BuildSettings(text_key="body")
    for found in (records(path, settings=settings), records(HubSet(str(tmp_path)), settings=settings)):
        assert [(record.text, record.source) for record in found[:3]] == list(zip(TEXTS, "甲乙丙", strict=True))
        assert found[3].problem == "no_text"
    with pytest.raises(InputError, match="no column 'text'"):
        records(path)
    with pytest.raises(InputError, match="no column 'text'"):
        records(HubSet(str(tmp_path)))
    with pytest.raises(InputError, match="cannot be read"):
        records(HubSet(str(tmp_path / "none")))


def test_blocks_end_between_records_and_number_them_on(tmp_path, monkeypatch):
    path = tmp_path / "c.txt"
    path.write_text("\n".join(f"第{number}行" for number in range(1, 200)), encoding="utf-8")
    whole = [(record.document, record.text) for record in records(path)]
    monkeypatch.setattr(reading, "BLOCK", 100)
    blocks = list(read_blocks([path], PLAIN))
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert len(blocks) > 10
    assert [(record.document, record.text) for record in records(path)] == whole


def test_a_record_longer_than_memory_comes_in_pieces_at_sentence_ends(tmp_path, monkeypatch):
    path = tmp_path / "c.txt"
    long = "春眠不觉晓。处处闻啼鸟!" * 100
    path.write_text(f"前一行\n{long}\n{'无标点' * 500}\n后一行", encoding="utf-8")
    monkeypatch.setattr(reading, "BLOCK", 64)
    monkeypatch.setattr(reading, "LONGEST", 400)
    found = records(path)
    pieces = [record for record in found if record.document.startswith("c.txt:2")]
    assert "".join(record.text for record in pieces) == long
    assert len(pieces) > 5
    assert all(record.text.endswith(("。", "!")) for record in pieces)
    assert len({record.document for record in found}) == len(found)
    assert "".join(record.text for record in found if record.document.startswith("c.txt:3")) == "无标点" * 500
    assert (found[-1].document, found[-1].text) == ("c.txt:4", "后一行")
    assert max(len(record.text.encode()) for record in found) <= 400 + 64


def test_a_line_of_json_longer_than_memory_is_passed_over(tmp_path, monkeypatch):
    path = tmp_path / "c.jsonl"
    lines = [json.dumps({"text": text}) for text in ("甲", "长" * 900, "乙")]
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(reading, "BLOCK", 64)
    monkeypatch.setattr(reading, "LONGEST", 400)
    assert [(record.document, record.text) for record in records(path)] == [("c.jsonl:1", "甲"), ("c.jsonl:3", "乙")]
    assert sum(block.too_long for block in read_blocks([path], PLAIN)) == 1


def test_bad_lines_are_named_and_good_ones_read(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b'{"text": "\xe7\x94\xb2"}\n{"text": \n["text"]\n{"text": 5}\n{"txt": "x"}\n{"text": "\xff\xfe"}\n\n'
        + b"[" * 5_000
        + b'\n{"text": "b"}'
    )
    assert [record.problem for record in records(path)] == [
        None,
        "not_json",
        "no_text",
        "no_text",
        "no_text",
        "invalid_utf8",
        "not_json",
        None,
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.jsonl", b"", "is empty"),
        ("blank.txt", b"\n \n", "is empty"),
        ("binary.txt", b"PK\x03\x04\x00\x00", "is binary"),
        ("cut.jsonl.xz", lzma.compress(b"text" * 999)[:-20], "cannot be read"),
        ("cut.txt.gz", gzip.compress(b"text" * 999, mtime=0)[:-20], "cannot be read"),
        ("no.txt.zst", b"no zstd at all", "cannot be read"),
        ("no.parquet", b"PAR1", "cannot be read"),
        ("what.bin", b"x", "does not say what it holds"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        records(tmp_path / name)
    assert name in caught.value.where


def test_inputs_of_one_name_keep_their_folders(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.txt").write_text("一", encoding="utf-8")
    found = records(tmp_path / "a" / "c.txt", tmp_path / "b" / "c.txt")
    assert len({record.document for record in found}) == 2
    assert {record.source for record in found} == {"c"}
