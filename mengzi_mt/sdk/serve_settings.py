"""What the server may be told: where it listens, what it takes at most, how it batches."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from pydantic import Field

from mengzi_mt.errors import InputError, first_line
from mengzi_mt.settings import Settings

TOKEN_VARIABLE = "MENGZI_MT_TOKEN"
LEAST_TOKEN = 16
"""Characters of a token at least."""


class ServeSettings(Settings):
    """Limits and batching of a server. Times are in seconds.

    Attributes:
        batch_rows: rows of a batch at most, each template and each beam of a row counted.
        batch_tokens: tokens of a batch at most, estimated from above: a token for each character, as far as the model reads.
        batch_wait: how long an idle server waits for more rows before it starts a batch that is not full.
        queue_rows: rows that wait at most; more are refused with 429.
        queue_characters: characters of the rows that wait at most, likewise.
        streams: answers that are streamed at once at most.
        request_timeout: from a request's last byte to its answer.
        head_timeout: from the first byte of a connection, or of a request, to the end of its head.
        body_timeout: from a request's head to the end of its body.
        send_timeout: how long a client may take no byte of its answer.
        idle_timeout: how long a connection stays open between requests.
        body_bytes: of a request's body at most.
        bodies_bytes: of all bodies that are being read at most.
        connections: open at once at most.
        grace: how long a server that was told to end goes on with what it has.
        stalled: after how long in one batch the model counts as stuck.
    """

    batch_rows: int = Field(64, ge=1)
    batch_tokens: int = Field(65_536, ge=1)
    batch_wait: float = Field(0.005, ge=0, le=1)
    queue_rows: int = Field(4_096, ge=1)
    queue_characters: int = Field(16_000_000, ge=1)
    streams: int = Field(8, ge=1)
    request_timeout: float = Field(60, gt=0)
    head_timeout: float = Field(10, gt=0)
    body_timeout: float = Field(20, gt=0)
    send_timeout: float = Field(20, gt=0)
    idle_timeout: float = Field(30, gt=0)
    body_bytes: int = Field(4_000_000, ge=1_000)
    bodies_bytes: int = Field(64_000_000, ge=1_000)
    connections: int = Field(1_000, ge=1)
    grace: float = Field(30, gt=0)
    stalled: float = Field(600, gt=0)


def read_token(file: Path | None) -> str | None:
    """The bearer token, from a file or from the environment variable ``MENGZI_MT_TOKEN``; None where neither gives one.

    It is never an argument: those are seen by every user of the machine.

    Raises:
        InputError: the file cannot be read, or the token is too short or not one printable word.
    """
    if file is not None:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The token cannot be read: {first_line(error)}", where=where, fix="name a text file") from error
    else:
        where = TOKEN_VARIABLE
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            "The token is too short, or not one printable ASCII word", where=where,
            fix=f"use at least {LEAST_TOKEN} letters and digits: openssl rand -hex 32",
        )  # fmt: skip
    return token


def check_address(host: str, token: str | None, insecure: bool) -> None:
    """Whether the server may listen there: beyond this machine only with a token, or where it was said that none is wanted.

    Raises:
        InputError: it may not.
    """
    if token or insecure or is_loopback(host):
        return
    raise InputError(
        f"{host!r} can be reached from other machines, and no token is set", where="--host",
        fix=f"give --token-file or set {TOKEN_VARIABLE}, or say --insecure where something in front of it asks who is there",
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
