"""``mengzi-mt corpus tag``: words, parts of speech and entities of a prepared corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mengzi_mt.errors import InputError

HELP = "Tag a prepared corpus: words, parts of speech and entities from a spaCy pipeline, stored beside the tokens."


def tag(
    folder: Annotated[Path, typer.Argument(help="Folder that `mengzi-mt corpus build` made.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="The tokenizer that the corpus was built with, where it does not lie there any more.")
    ] = None,
    tagger: Annotated[
        str | None,
        typer.Option(
            help="`jieba`, `rjieba`, `cutword`, or a spaCy pipeline (package or folder). Default: an installed zh_core_web_*, else "
            "jieba."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Shards that are tagged at the same time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the manifest then says of the tags.")] = False,
) -> None:
    """Tag and count."""
    from mengzi_mt.corpora.taggers import default_tagger
    from mengzi_mt.corpora.tagging import tag_corpus
    from mengzi_mt.data.pieces import Pieces
    from mengzi_mt.data.token_shards import check_tokenizer, open_corpus
    from mengzi_mt.data.tokens import Encoder
    from mengzi_mt.models.tokenizer import load_tokenizer

    corpus = open_corpus(folder)
    name = tokenizer or corpus.manifest["tokenizer"].get("name")
    if not name:
        raise InputError("The manifest names no tokenizer", where=str(folder), fix="give it: --tokenizer FOLDER")
    loaded = load_tokenizer(name)
    check_tokenizer(corpus, loaded)
    tags = tag_corpus(
        folder,
        Pieces(Encoder(loaded)).written,
        tagger or default_tagger(),
        processes=processes,
        say=lambda text: typer.echo(text, err=True),
    )
    if as_json:
        typer.echo(json.dumps(tags, ensure_ascii=False, indent=1))
        return
    tokens = sum(tags["tokens"]["pos"].values())
    typer.echo(f"{tags['tagger']}: {tokens:,} tokens, {tags['words']:,} words")
    for key in ("pos", "ner"):
        found = sorted(tags["tokens"][key].items(), key=lambda item: -item[1])
        typer.echo(f"{key}: " + ", ".join(f"{label} {count / max(tokens, 1):.1%}" for label, count in found))
