"""The card of a model that is given to others: what it does, what it was trained on and on which terms, what it scores.

Everything but the notes is read from the model's own ``mengzi_mt.json``, from results of ``mengzi-mt evaluate`` and from the run
folders that the model came out of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.provenance import weights_hash
from mengzi_mt.evaluation.results import read_results
from mengzi_mt.runtimes.export_folder import is_export, read_export
from mengzi_mt.sdk.card_tables import cost_section, score_section
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.training.card import FRONT_MATTER, data_section, trained_on
from mengzi_mt.training.checkpoint import read_manifest
from mengzi_mt.training.history import read_run
from mengzi_mt.training.saving import FINAL

LABELS_SHOWN = 8


def write_card(model: Path, results: Sequence[Path] = (), notes: Path | None = None, runs: Sequence[Path] = ()) -> str:
    """The card of a model, as Markdown with the hub's front matter.

    Args:
        model: a checkpoint's or an export's folder.
        results: ``results.json`` files, or their folders, of this model.
        notes: Markdown with what no file knows: limits met, outputs good and bad, whom to ask. Its headings begin at ``##``.
        runs: the run folders of its training in their order, pretraining first: time, arithmetic and validation losses.

    Raises:
        InputError: no manifest, notes that do not read, or results of another model.
    """
    manifest = read_manifest(model)
    if not manifest:
        raise InputError(
            "The folder has no mengzi_mt.json, so nothing is known of its training", where=str(model),
            fix="give a checkpoint that mengzi-mt trained, or an export of one",
        )  # fmt: skip
    name = _name(model, manifest)
    sections = [
        [*FRONT_MATTER, "", f"# {name}"],
        _summary(model, manifest),
        _use(model),
        _tasks(),
        *[score_section(found) for found in _checked(model, results)],
        data_section(manifest),
        _prompts(manifest),
        cost_section([read_run(folder) for folder in runs]) if runs else _cost(manifest),
        *([_read(notes).strip().splitlines()] if notes else []),
        _limits(manifest),
        _cite(name),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _name(model: Path, manifest: Mapping[str, Any]) -> str:
    """The folder's name, and the recipe's where the folder is one of a run and has none of its own."""
    of_a_run = model.name == FINAL or model.name.startswith("step-")
    return str((manifest.get("recipe") or {}).get("name") or model.name) if of_a_run else model.name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The notes do not read: {error}", where=str(path), fix="give a Markdown file in UTF-8") from error


def _summary(model: Path, manifest: Mapping[str, Any]) -> list[str]:
    lines = [
        f"A Chinese text-to-text model: a T5 of {manifest.get('parameters', 0) / 1e6:.1f} M parameters, trained by mengzi-mt on "
        f"{trained_on(manifest.get('data') or {}, manifest)}. It answers prompts; labels are ranked by their probability."
    ]
    if is_export(model):
        export = read_export(model)
        lines += ["", f"These files are for {export.runtime} in {export.precision}; `mengzi-mt` runs them as it runs a checkpoint."]
    return lines


def _use(model: Path) -> list[str]:
    return [
        "## Use",
        "",
        "```python",
        "from mengzi_mt import Mengzi",
        "",
        f'mengzi = Mengzi.load("{model.name}")',
        'mengzi.sentiment("房间干净，下次还来").label',
        'mengzi.classify("昨晚的比赛打到加时，主队三分险胜", labels=["天气", "体育", "财经"]).label',
        "```",
    ]


def _tasks() -> list[str]:
    rows = [f"| `{task.name}` | {task.title} | {_shown(task.labels)} |" for task in TASKS.values()]
    return ["## Tasks", "", "| method | task | labels |", "|---|---|---|", *rows]


def _shown(labels: Sequence[str]) -> str:
    more = f" … ({len(labels)})" if len(labels) > LABELS_SHOWN else ""
    return "、".join(labels[:LABELS_SHOWN]) + more


def _checked(model: Path, results: Sequence[Path]) -> list[dict[str, Any]]:
    """The results, if they are this model's."""
    own = read_export(model).hash if is_export(model) else weights_hash(model)
    found = [read_results(path) for path in results]
    for path, one in zip(results, found, strict=True):
        if one["model"]["hash"] != own:
            raise InputError(
                f"The results are of other weights ({one['model']['name']}, {one['model']['hash']}) than the model's ({own})",
                where=str(path), fix="evaluate this model: mengzi-mt evaluate",
            )  # fmt: skip
    return found


def _prompts(manifest: Mapping[str, Any]) -> list[str]:
    counts: Mapping[str, Mapping[str, int]] = manifest.get("examples") or {}
    if not counts:
        return []
    templates = sum(len(by_template) for by_template in counts.values())
    examples = sum(sum(by_template.values()) for by_template in counts.values())
    return ["## Prompts", "", f"{templates} templates of {len(counts)} tasks; {examples:,} examples, counted in `mengzi_mt.json`."]


def _cost(manifest: Mapping[str, Any]) -> list[str]:
    tokens, parameters = (manifest.get("counters") or {}).get("tokens"), manifest.get("parameters")
    if not tokens or not parameters:
        return []
    start = ((manifest.get("recipe") or {}).get("model") or {}).get("init")
    return [
        "## Cost",
        "",
        f"Steps: {manifest.get('step', 'unknown'):,}; tokens: {tokens:,}; about {6 * parameters * tokens:.1e} FLOPs "
        f"(6 × parameters × tokens){f', after those of `{start}`' if start else ''}.",
    ]


def _limits(manifest: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Limits",
        "",
        "- Probabilities are those among the choices given; they are not calibrated, and one of the choices is always the answer.",
        "- Generated text may be wrong, also where it reads well. Extracted spans stand in the input, but may be the wrong ones.",
        "- Inputs beyond 512 tokens are cut; results say so.",
    ]
    if manifest.get("research_only") is True:
        lines.append("- Some of the training data is for research only, and so is this model.")
    return lines


def _cite(name: str) -> list[str]:
    return [
        "## Citation",
        "",
        "```bibtex",
        f"@misc{{{name.replace('-', '_')},",
        f"  title = {{{name}: a prompt-based multi-task text-to-text model for Chinese}},",
        "  author = {{mengzi-mt contributors}},",
        "  howpublished = {\\url{https://github.com/mengzi-mt/mengzi-mt}}",
        "}",
        "```",
        "",
        "The idea of training one T5 on many prompted Chinese datasets is that of Mengzi-T5-base-MT "
        "(Mengzi: arXiv:2110.06696; multi-task prompts: T0, arXiv:2110.08207).",
    ]
