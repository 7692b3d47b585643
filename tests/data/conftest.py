import json

import pytest

from mengzi_mt.tasks.rows import DataSource


@pytest.fixture
def write_root(tmp_path):
    """Writes raw files of tasks: ``write_root(lcqmc={"train.txt": [[a, b, 0], …]}, bustm={"test.json": [{…}]})``."""

    def write(**tasks):
        for name, files in tasks.items():
            folder = tmp_path / "data" / (f"fewclue/{name}" if name in ("bustm", "csl", "chid", "csldcp") else name)
            folder.mkdir(parents=True, exist_ok=True)
            for file, rows in files.items():
                lines = ["\t".join(map(str, row)) if isinstance(row, list) else json.dumps(row, ensure_ascii=False) for row in rows]
                (folder / file).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return DataSource("files", tmp_path / "data")

    return write
