"""What share of a label's score without a text to take from its score, for labels of the caller's own (``NEUTRAL_SHARE``).

Held-in rows; every row gets the right label and three others drawn for it (all where the task has fewer). Measures accuracy with no
share, half and all, for each template of ``classify``.

Run: ``python -m benchmarks.own_labels DATA [MODEL] [DATA_MAP]``
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mengzi_mt import Mengzi
from mengzi_mt.cli.common import data_source
from mengzi_mt.data.view import RowFilter
from mengzi_mt.sdk.catalogue import find_task
from mengzi_mt.tasks.registry import get_task

TEXTS = {
    "thucnews_title": "title",
    "kuake_qic": "query",
    "smp2019_nlu": "text",
    "ocemotion": "text",
    "waimai_10k": "review",
    "chip_ctc": "text",
}
ROWS, OTHERS, SHARES = 120, 3, (0.0, 0.5, 1.0)


def asked(name: str, data: Path, data_map: str, rng: random.Random) -> list[tuple[str, list[str], int]]:
    """Text, labels and the right one's place of some validation rows."""
    task = get_task(name)
    words = list(task.label_sets()["labels"])
    loaded = RowFilter(None, data_source("files", data, data_map)).load_rows(task, "validation", 4_000).rows
    rows = [row.values for row in loaded if isinstance(row.values.get("label"), int) and row.values.get(TEXTS[name])]
    rng.shuffle(rows)
    found = []
    for values in rows[:ROWS]:
        right = words[values["label"]]
        others = [word for word in words if word != right]
        labels = [right, *rng.sample(others, min(OTHERS, len(others)))]
        rng.shuffle(labels)
        found.append((values[TEXTS[name]][:200], labels, labels.index(right)))
    return found


def right_answers(mengzi: Any, template: Any, rows: Sequence[tuple[str, list[str], int]]) -> dict[float, float]:
    """Accuracy by share."""
    task = find_task("classify")

    def scores(texts: Sequence[str]) -> list[Sequence[float]]:
        prompts = [
            mengzi._example(task, template, {"text": text}, place, tuple(labels))[0]
            for place, (text, (_, labels, _)) in enumerate(zip(texts, rows, strict=True))
        ]
        return [one.log_probabilities for one in mengzi.scorers.scorer.score(prompts)]

    given, neutral = scores([text for text, _, _ in rows]), scores([""] * len(rows))
    right: dict[float, float] = dict.fromkeys(SHARES, 0.0)
    for with_text, without, (_, _, gold) in zip(given, neutral, rows, strict=True):
        for share in SHARES:
            values = [a - share * b for a, b in zip(with_text, without, strict=True)]
            right[share] += (max(range(len(values)), key=values.__getitem__) == gold) / len(rows)
    return right


def main() -> None:
    """Measure, print a table in Markdown."""
    data, model = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    data_map = sys.argv[3] if len(sys.argv) > 3 else "public-extracts"
    mengzi, rng = Mengzi.load(model, device="cpu", backend="torch"), random.Random(1)
    means: dict[tuple[str, float], list[float]] = defaultdict(list)
    templates = find_task("classify").choose(4)
    print("| task | template | none | half | all |\n| --- | --- | --- | --- | --- |")
    for name in TEXTS:
        rows = asked(name, data, data_map, rng)
        for template in templates:
            right = right_answers(mengzi, template, rows)
            for share, value in right.items():
                means[template.name, share].append(value)
            print(f"| {name} | `{template.name}` | {' | '.join(f'{100 * value:.1f}' for value in right.values())} |", flush=True)
    for template in templates:
        values = [sum(means[template.name, share]) / len(TEXTS) for share in SHARES]
        print(f"| mean | `{template.name}` | {' | '.join(f'{100 * value:.1f}' for value in values)} |")


if __name__ == "__main__":
    main()
