"""``mengzi-mt corpus``: raw text to token shards, and what is in them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mengzi_mt.cli.common import AsJson, DataDir, DataMapOption, cores, data_source, print_json, print_table
from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.corpora.build import Advance, Decontamination
    from mengzi_mt.tasks.rows import DataSource

app = typer.Typer(help="Corpora for pretraining: clean, tokenised, without duplicates.", no_args_is_help=True)
_LINE_SECONDS = 5.0
_UNITS = {"cleaning": "bytes", "comparing": "candidates", "tokenising": "documents"}


@app.command("build")
def build(
    inputs: Annotated[list[Path] | None, typer.Argument(help=".jsonl, .txt (also .xz, .gz, .zst) or .parquet files.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the corpus.")] = Path("corpus"),
    tokenizer: Annotated[str, typer.Option(help="Folder or hub name of the tokenizer.")] = "models/mengzi-mt-mini",
    hub: Annotated[list[str] | None, typer.Option(help="Hub set or local folder as a stream, NAME[:CONFIG]; repeatable.")] = None,
    hub_split: Annotated[str, typer.Option(help="Split of the hub sets.")] = "train",
    documents: Annotated[
        str, typer.Option(help="A document of a text file: line, paragraph (blank lines between) or file.")
    ] = "line",
    text_key: Annotated[str, typer.Option(help="Key of JSON lines, column of Parquet files.")] = "text",
    source_key: Annotated[str, typer.Option(help="Key or column that names a document's source.")] = "source",
    source_parts: Annotated[int, typer.Option(min=0, help="Parts of a source's name a/b/c that are kept; 0 keeps all.")] = 2,
    drop_source: Annotated[
        list[str] | None, typer.Option(help="Leave sources out that match, e.g. 'NiuTrans/*'; repeatable.")
    ] = None,
    cap: Annotated[list[str] | None, typer.Option(help="At most SOURCE=20M characters or SOURCE=25% of all; repeatable.")] = None,
    min_characters: Annotated[int, typer.Option(help="Shorter documents are dropped.")] = 20,
    max_characters: Annotated[int, typer.Option(help="Longer ones are cut at sentence ends.")] = 100_000,
    min_han: Annotated[float, typer.Option(help="Least share of Han characters among letters.")] = 0.3,
    max_punctuation: Annotated[float, typer.Option(help="Largest share of punctuation and symbols; 0 switches off.")] = 0.4,
    max_digits: Annotated[float, typer.Option(help="Largest share of digits; 0 switches off.")] = 0.3,
    max_repeated_lines: Annotated[float, typer.Option(help="Largest share of characters in repeated lines; 0: off.")] = 0.3,
    max_repeated_ngrams: Annotated[float, typer.Option(help="Largest share of repeated 5-grams; 0: off.")] = 0.5,
    boilerplate: Annotated[bool, typer.Option(help="Remove short lines of boilerplate.")] = True,
    near_duplicates: Annotated[float, typer.Option(help="Similarity from which a document is dropped; 0: off.")] = 0.8,
    line_copies: Annotated[int, typer.Option(help="A line is kept so many times in all; 0: always.")] = 10,
    against: Annotated[str, typer.Option(help="Suites or tasks whose texts are taken out, comma-separated; or none.")] = "zeroclue",
    contaminated: Annotated[str, typer.Option(help="What goes where an evaluation text stands: line or document.")] = "line",
    examples: Annotated[int, typer.Option(help="Examples of each reason, and of what was kept, in examples.jsonl.")] = 20,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    data_dir: DataDir = None,
    data_map: DataMapOption = None,
    as_json: AsJson = False,
) -> None:
    """Clean, deduplicate, decontaminate and tokenise; run the same command again to go on after an interruption."""
    from mengzi_mt.corpora.reading import HubSet
    from mengzi_mt.corpora.settings import BuildSettings, Contaminated, Documents, read_cap

    if engine not in ("local", "ray"):
        raise InputError(f"Unknown engine {engine!r}", where="--engine", fix="use local or ray")
    if not inputs and not hub:
        raise InputError("There is no input", where="INPUTS", fix="name corpus files, or a hub set with --hub")
    settings = BuildSettings(
        documents=cast(Documents, documents), text_key=text_key, source_key=source_key, source_parts=source_parts,
        drop_sources=tuple(drop_source or ()), caps=tuple(read_cap(item) for item in cap or ()),
        min_characters=min_characters, max_characters=max_characters, min_han=min_han, max_punctuation=max_punctuation,
        max_digits=max_digits, max_repeated_lines=max_repeated_lines, max_repeated_ngrams=max_repeated_ngrams,
        boilerplate=boilerplate, near_duplicates=near_duplicates, line_copies=line_copies,
        contaminated=cast(Contaminated, contaminated), examples=examples,
    )  # fmt: skip
    sets = [HubSet(name, config or None, hub_split) for name, _, config in (item.partition(":") for item in hub or ())]

    from mengzi_mt.corpora.build import build_corpus
    from mengzi_mt.data.workers import Engine
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.resources import resolve

    loaded = load_tokenizer(resolve(tokenizer))
    began = time.perf_counter()
    decontamination = _decontamination(against, data_source(None, data_dir, data_map, "files" if data_dir else "sample"))
    with _progress() as advance:
        manifest = build_corpus(
            [*(inputs or ()), *sets], out, loaded, settings, decontamination,
            workers=workers or cores(), engine=cast(Engine, engine), advance=advance,
        )  # fmt: skip
    if as_json:
        print_json(manifest)
    else:
        _print_manifest(manifest)
        typer.echo(f"{out}: {manifest['fingerprint']}, {time.perf_counter() - began:.0f} s")


def _decontamination(against: str, source: DataSource) -> Decontamination | None:
    """The index of the named suites' and tasks' texts."""
    if against == "none":
        return None
    from mengzi_mt.corpora.build import Decontamination
    from mengzi_mt.data.at_hand import for_each
    from mengzi_mt.data.overlap import EvaluationTexts, OverlapSettings, evaluation_texts, index_texts
    from mengzi_mt.evaluation.suites import load_suite
    from mengzi_mt.resources import resource_dir
    from mengzi_mt.tasks.registry import get_task

    suites = {path.stem for path in resource_dir("suites").glob("*.yaml")}
    names = list(
        dict.fromkeys(task for name in against.split(",") for task in (load_suite(name).tasks if name in suites else [name]))
    )
    settings = OverlapSettings()
    texts, absent = for_each(
        [get_task(name) for name in names], source, lambda task: evaluation_texts([task], source, settings), strict=False
    )
    for item in absent:
        print(f"not compared: {item['task']}: {item['reason']}", file=sys.stderr, flush=True)
    joined = EvaluationTexts()
    for found in texts:
        for text in found.numbers:
            joined.numbers.setdefault(text, len(joined.numbers))
    about = {
        "tasks": {task: rows for found in texts for task, rows in found.rows.items()},
        "texts": len(joined.numbers),
        "data": source.kind,
        "not_compared": [item["task"] for item in absent],
    }
    return Decontamination(index_texts(joined, settings), about)


@app.command("stats")
def stats(folder: Annotated[Path, typer.Argument(help="A built corpus.")], as_json: AsJson = False) -> None:
    """Documents, characters, tokens, lengths, sources, and what was dropped."""
    from mengzi_mt.corpora.stats import corpus_stats
    from mengzi_mt.data.token_shards import open_corpus

    corpus = open_corpus(folder)
    found = corpus_stats(corpus)
    if as_json:
        print_json(found)
        return
    _print_manifest(corpus.manifest)
    columns = ("", "mean", "5%", "median", "95%", "most")
    rows = [(name, *(f"{value:,.1f}" for value in line.values())) for name, line in found["lengths"].items()]
    print_table("lengths", columns, rows, columns[1:])
    typer.echo(f"{found['tokens']:,} tokens, {found['tokens_per_character']:.3f} a character")


def _print_manifest(manifest: dict[str, Any]) -> None:
    documents, characters = manifest["documents"], manifest["characters"]
    rows = [("read", documents["in"], characters["in"])]
    rows += [(f"- {name}", line["documents"], line["characters"]) for name, line in manifest["dropped"].items()]
    rows += [("kept", documents["kept"], characters["kept"])]
    numbers = ("documents", "characters", "share")
    print_table(
        "documents", ("", *numbers),
        [(name, f"{count:,}", f"{size:,}", f"{size / max(1, characters['in']):.2%}") for name, count, size in rows], numbers,
    )  # fmt: skip
    lines = [(name, f"{count:,}") for name, count in manifest["dropped_lines"].items()]
    print_table("lines dropped", ("", "lines"), lines, ("lines",))
    tokens = sum(line["tokens"] for line in manifest["sources"].values())
    ordered = sorted(manifest["sources"].items(), key=lambda item: -item[1]["tokens"])
    print_table(
        "sources", ("", "documents", "tokens", "share"),
        [(name, f"{line['documents']:,}", f"{line['tokens']:,}", f"{line['tokens'] / tokens:.1%}") for name, line in ordered],
        ("documents", "tokens", "share"),
    )  # fmt: skip


@contextmanager
def _progress() -> Iterator[Advance]:
    """A bar for each stage on a terminal, a line every few seconds elsewhere, both on standard error."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[shown]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bars = {stage: bar.add_task(stage, total=None, start=False, shown="") for stage in _UNITS}
        done: Counter[str] = Counter()
        began: dict[str, float] = {}

        def advance(stage: str, count: int) -> None:
            if stage not in began:
                began[stage] = time.perf_counter()
                bar.start_task(bars[stage])
            done[stage] += count
            bar.update(bars[stage], shown=_said(stage, done[stage], time.perf_counter() - began[stage]))

        yield cast("Advance", advance)


def _plain_progress() -> Callable[[str, int], None]:
    done: Counter[str] = Counter()
    began: dict[str, float] = {}
    said = time.perf_counter()

    def advance(stage: str, count: int) -> None:
        nonlocal said
        now = time.perf_counter()
        began.setdefault(stage, said)
        done[stage] += count
        if now - said >= _LINE_SECONDS:
            said = now
            print(f"{stage} | {_said(stage, done[stage], now - began[stage])}", file=sys.stderr, flush=True)

    return advance


def _said(stage: str, done: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-3)
    if stage == "cleaning":
        return f"{done / 1e6:,.1f} MB | {rate / 1e6:,.2f} MB/s"
    return f"{done:,} {_UNITS[stage]} | {rate:,.0f} {_UNITS[stage]}/s"
