"""Peak memory of a form: a fresh process loads it, scores and generates one batch, and says how far its resident memory rose.

The number is the peak of resident memory (``VmHWM`` of Linux) from the moment on when all libraries are imported, minus what was
resident then. So it holds weights, whatever loading needs beside, and the largest batch's activations, and not Python and torch.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mengzi_mt.compression.pipeline_recipe import MeasureSettings
from mengzi_mt.data.examples import TextExample
from mengzi_mt.errors import RunError
from mengzi_mt.prompts.trees import Span

PACKAGE = Path(__file__).parents[2]


def peak_memory(place: str, plain: bool, examples: Sequence[TextExample], settings: MeasureSettings) -> dict[str, int]:
    """``peak``: bytes that resident memory rose by; ``before``: resident bytes with all libraries imported.

    Args:
        place: of the checkpoint or export.
        plain: whether transformers alone runs it.
        examples: the batch.
        settings: sizes and threads.

    Raises:
        RunError: the process ended without an answer.
    """
    told = {"place": place, "plain": plain, "settings": settings.model_dump(mode="json"), "examples": list(examples)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "work.json"
        file.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        paths = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
        run = subprocess.run(
            [sys.executable, "-m", __name__, str(file)],
            env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"The process that measures memory ended with status {run.returncode}: {last}", where=place)
    found: dict[str, int] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


def _resident(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` in bytes; elsewhere than on Linux the peak since the process began, which is what there is."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def _forget_peak() -> None:
    """Let the peak begin at what is resident now (Linux, ``man 5 proc``, clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _measure(work: dict[str, Any]) -> dict[str, int]:
    import torch

    from mengzi_mt.compression.measuring import load_way
    from mengzi_mt.runtimes.export_folder import is_export, read_export

    settings = MeasureSettings.model_validate(work["settings"])
    torch.set_num_threads(settings.threads)
    if is_export(work["place"]):
        name = {"ctranslate2": "ctranslate2", "onnx": "onnxruntime"}.get(read_export(Path(work["place"])).runtime)
        if name:
            __import__(name)
    examples = [_example(*row) for row in work["examples"]]
    _forget_peak()
    before = _resident("VmRSS")
    way = load_way(work["place"], work["plain"], settings)
    ranked = [one for one in examples if one.choices][: settings.batch]
    if ranked:
        way.score(ranked)
    way.generate(examples[: settings.batch])
    return {"peak": max(0, _resident("VmHWM") - before), "before": before}


def _example(inputs: str, targets: str, choices: list[str] | None, shrinkable: list[list[Any]], *rest: Any) -> TextExample:
    """An example as it was before it was written as JSON."""
    return TextExample(inputs, targets, tuple(choices) if choices else None, tuple(Span(*one) for one in shrinkable), *rest)


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
