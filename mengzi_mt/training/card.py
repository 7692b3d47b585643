"""The card of a checkpoint (``README.md``): what it was trained on, and on which terms that data came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FRONT_MATTER = [
    "---",
    "language: zh",
    "library_name: transformers",
    "pipeline_tag: text2text-generation",
    "tags: [mengzi-mt, t5]",
    "license: other",
    "---",
]
"""What the hub reads of a card."""
_TERMS = {True: "research only", False: "no such restriction stated", "unknown": "unknown"}


def research_only(data: Mapping[str, Mapping[str, Any]]) -> bool | str:
    """The terms of a mixture: research only if any of its datasets is, unknown if any is, else not restricted."""
    terms = [entry.get("research_only", "unknown") for entry in data.values()]
    return True if True in terms else "unknown" if "unknown" in terms else False


def model_card(manifest: Mapping[str, Any]) -> str:
    """The card in the hub's format, from what ``mengzi_mt.json`` holds."""
    data: Mapping[str, Mapping[str, Any]] = manifest.get("data") or {}
    recipe = (manifest.get("recipe") or {}).get("name", "unknown")
    lines = [
        *FRONT_MATTER,
        "",
        f"# {recipe}",
        "",
        f"A T5 trained by mengzi-mt on {trained_on(data, manifest)} (recipe `{recipe}`, "
        f"step {manifest.get('step', 'unknown')}). `mengzi_mt.json` beside this file holds the whole recipe, counts and hashes.",
        "",
        *data_section(manifest),
    ]
    return "\n".join(lines) + "\n"


def data_section(manifest: Mapping[str, Any]) -> list[str]:
    """The lines of a card that say what the model was trained on and on which terms that data came."""
    data: Mapping[str, Mapping[str, Any]] = manifest.get("data") or {}
    lines = [
        "## Data and licences",
        "",
        _terms_sentence({**data, "the corpus": {}} if manifest.get("denoising") else data),
        "",
        "| task | rows | licence as stated | research only | official splits trained on |",
        "|---|---:|---|---|---|",
    ]
    for name, entry in sorted(data.items()):
        splits = entry.get("official_split") or [entry.get("split", "train")]
        terms = _TERMS.get(entry.get("research_only", "unknown"), "unknown")
        lines.append(f"| {name} | {entry.get('rows', '')} | {entry.get('licence', 'unknown')} | {terms} | {', '.join(splits)} |")
    if manifest.get("data_source") == "sample":
        lines += ["", "Trained on the samples bundled with mengzi-mt, which are no dataset: good for trying things out only."]
    named = manifest.get("zero_shot_tasks_trained_on") or []
    if named:
        lines += ["", f"It was trained on zero-shot tasks ({', '.join(named)}): their scores are not zero-shot."]
    return lines


def trained_on(data: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """In words: how many datasets, and the corpus where there was one."""
    told = [f"{len(data)} Chinese datasets through prompts"] if data or not manifest.get("denoising") else []
    corpus = manifest.get("denoising")
    if corpus:
        told.append(f"text without labels by denoising ({corpus['documents']:,} documents of {len(corpus['sources'])} sources)")
    return " and ".join(told)


def _terms_sentence(data: Mapping[str, Mapping[str, Any]]) -> str:
    restricted = sorted(name for name, entry in data.items() if entry.get("research_only") is True)
    unknown = sorted(name for name, entry in data.items() if entry.get("research_only", "unknown") == "unknown")
    if restricted:
        return f"**For research only**: so say the terms of {', '.join(restricted)}." + (
            f" The terms of {', '.join(unknown)} are not stated." if unknown else ""
        )
    if unknown:
        return f"The terms of {', '.join(unknown)} are not stated: ask their owners before any use beyond research."
    return "None of the datasets states a restriction to research."
