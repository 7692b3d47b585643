import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real files; tests that need it are skipped where there is none."""
    root = os.environ.get("MENGZI_MT_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("MENGZI_MT_DATA names no folder of real data files")
    return Path(root)
