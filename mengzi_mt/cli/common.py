"""What several commands share: the data options, and printing tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mengzi_mt.errors import InputError

if TYPE_CHECKING:
    from mengzi_mt.tasks.rows import DataSource

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="MENGZI_MT_DATA", help="Folder with the datasets' original files."),
]
DataMapOption = Annotated[
    str | None, typer.Option("--data-map", help="YAML that says which files stand in for which split (a file or a shipped name).")
]
DataKind = Annotated[str | None, typer.Option("--data", help="files, sample or hub; by default files where --data-dir is given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def data_source(kind: str | None, data_dir: Path | None, data_map: str | None, default: str = "files") -> DataSource:
    """The data source that the options describe."""
    from mengzi_mt.tasks.data_map import load_data_map
    from mengzi_mt.tasks.rows import DataSource

    kind = kind or default
    if kind not in ("files", "sample", "hub"):
        raise InputError(f"Unknown data source {kind!r}", where="--data", fix="use files, sample or hub")
    return DataSource(
        kind=kind,  # type: ignore[arg-type]
        root=data_dir,
        data_map=load_data_map(Path(data_map)) if data_map and kind == "files" else None,
    )


def print_json(value: Any) -> None:
    """JSON with Chinese as it is."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """A table whose wide characters align; columns named in ``right`` are flushed right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
