"""``mengzi-mt tokenizer``: train a SentencePiece tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Tokenizers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``train`` a subcommand."""


@app.command("train")
def train(
    corpus: Annotated[list[Path], typer.Argument(help="Text (.txt) or JSON lines (.jsonl, key `text`), optionally .xz.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the tokenizer.")],
    vocabulary: Annotated[int, typer.Option(help="Pieces in all, 100 sentinels included.")] = 32_128,
    max_sentences: Annotated[int, typer.Option(help="Sentences drawn at random for training.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
) -> None:
    """Train a unigram tokenizer with nmt_nfkc, a newline symbol, byte fallback and 100 sentinels."""
    from mengzi_mt.data.corpus import read_texts
    from mengzi_mt.models.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(read_texts(corpus), out, vocabulary, max_sentences=max_sentences, seed=seed)
    typer.echo(f"{out}: {len(tokenizer):,} pieces")
