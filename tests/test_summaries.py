import json
import os

import pytest

from mengzi_mt.summaries import cache_folder, summaries


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("MENGZI_MT_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(path.name, encoding="utf-8")
    return paths


def counting(reads):
    def read(path):
        reads.append(path.name)
        return path.read_text(encoding="utf-8")

    return read


def test_only_new_and_changed_files_are_read(files):
    reads = []
    assert summaries("x", files, counting(reads)) == summaries("x", files, counting(reads)) == ["a", "b"]
    assert reads == ["a", "b"]
    files[0].write_text("changed", encoding="utf-8")
    os.utime(files[0], ns=(1, 1))
    assert summaries("x", files, counting(reads)) == ["changed", "b"]
    assert reads == ["a", "b", "a"]
    assert summaries("other kind", files[1:], counting(reads)) == ["b"]
    assert len(reads) == 4


@pytest.mark.parametrize("broken", ["{", "[]", json.dumps({"x": 1})])
def test_broken_cache_is_ignored(files, broken):
    summaries("x", files, counting([]))
    (cached,) = cache_folder().glob("x-*.json")
    cached.write_text(broken, encoding="utf-8")
    assert summaries("x", files, counting([])) == ["a", "b"]


def test_cache_that_cannot_be_written_costs_nothing_else(files, monkeypatch):
    monkeypatch.setenv("MENGZI_MT_CACHE", str(files[0] / "below a file"))
    assert summaries("x", files, counting([])) == ["a", "b"]
