import gzip
import lzma

import pytest

from mengzi_mt.data.corpus import read_corpus
from mengzi_mt.errors import InputError

LINES = '{"text": "第一篇"}\n\n{"text": "第二\u2028篇", "source": "x"}\n'


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".xz", lzma.open), (".gz", gzip.open)])
def test_line_numbers_and_texts(tmp_path, suffix, opener):
    path = tmp_path / f"c.jsonl{suffix}"
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(LINES)
    assert list(read_corpus(path)) == [(1, "第一篇"), (3, "第二\u2028篇")]


@pytest.mark.parametrize("line", ["{", "[]", '{"txt": ""}', '{"text": 3}'])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": ""}\n' + line, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(read_corpus(path))
    assert caught.value.where == f"{path}, line 2"


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list(read_corpus(tmp_path / "none.jsonl"))
    for name in ("a.jsonl.xz", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(InputError, match="cannot be read"):
            list(read_corpus(tmp_path / name))
