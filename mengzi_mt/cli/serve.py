"""``mengzi-mt serve``: the downstream tasks over HTTP."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from mengzi_mt.errors import InputError

HELP = "Answer the downstream tasks over HTTP, with a page to try them: MODEL."


def serve(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint, exported folder or hub name; by default the shipped one.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; beyond this machine only with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes any free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the bearer token; or set MENGZI_MT_TOKEN.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without a token.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda …")] = "auto",
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or int8.")] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="torch, ctranslate2 or onnx; a checkpoint is converted once.")
    ] = None,
    max_input: Annotated[int, typer.Option("--max-input", help="Tokens of an input at most.")] = 512,
    batch_rows: Annotated[int, typer.Option("--batch-rows", min=1, help="Rows of a batch at most.")] = 64,
    batch_wait: Annotated[float, typer.Option("--batch-wait", min=0, max=1, help="Seconds to wait for a batch to fill.")] = 0.005,
    queue_rows: Annotated[int, typer.Option("--queue-rows", min=1, help="Rows that wait at most; more get 429.")] = 4_096,
    request_timeout: Annotated[float, typer.Option("--request-timeout", min=0.01, help="Seconds to an answer at most.")] = 60,
    body_bytes: Annotated[int, typer.Option("--body-bytes", min=1_000, help="Bytes of a request's body at most.")] = 4_000_000,
    connections: Annotated[int, typer.Option("--connections", min=1, help="Open connections at most.")] = 1_000,
    grace: Annotated[float, typer.Option("--grace", min=0.1, help="Seconds to finish what is at hand when told to end.")] = 30,
) -> None:
    """Runs until it gets SIGTERM or SIGINT."""
    from mengzi_mt.sdk.serve_settings import ServeSettings, check_address, read_token

    token = read_token(token_file)
    check_address(host, token, insecure)
    settings = ServeSettings(
        batch_rows=batch_rows, batch_wait=batch_wait, queue_rows=queue_rows, request_timeout=request_timeout, body_bytes=body_bytes,
        connections=connections, grace=grace,
    )  # fmt: skip
    for name in ("fastapi", "uvicorn", "prometheus_client"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"The server needs {name}", where="mengzi-mt serve", fix="pip install 'mengzi-mt[serve]'") from error
    from mengzi_mt.sdk.mengzi import Mengzi
    from mengzi_mt.sdk.serve import address, listen, serve

    listener = listen(host, port)
    mengzi = Mengzi.load(model, device=device, dtype=dtype, backend=backend, max_input=max_input)
    typer.echo(f"{address(listener)}  {mengzi.name}{', bearer token asked for' if token else ''}", err=True)
    serve(mengzi, settings, listener, token, Path(mengzi.name).name)
