"""The server under load against the library on the same inputs: rows per second, latency, errors, memory.

Server and library run the same model. Each round times the library alone on all rows in one call, then clients on loopback that
send the same rows in requests of a few; rounds alternate, so that both meet the same machine. A last part keeps the load on for a
while and watches the server's memory.

    python benchmarks/serve_load.py models/mengzi-mt-mini --rounds 3 --minutes 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

from mengzi_mt.resources import resource_dir

TASK = "news_topic"


def texts(count: int) -> list[str]:
    """Headlines of the bundled sample, each with a number of its own, in an order that mixes lengths."""
    lines = (resource_dir("tasks") / "tnews" / "sample.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["sentence"] for line in lines]
    made = [f"{found[n % len(found)]}{n}" * (1 + n % 3) for n in range(count)]
    random.Random(0).shuffle(made)
    return made


class Served:
    """A server in a process of its own."""

    def __init__(self, model: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([sys.executable, "-m", "mengzi_mt", "serve", model, "--port", str(port)])
        while self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        raise SystemExit("the server has not started")

    @property
    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else 0.0

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


async def load(
    url: str, rows: list[str], a_request: int, clients: int, seconds: float = 0.0
) -> tuple[float, list[float], int, int]:
    """All rows once, or again and again for so many seconds; seconds, latencies, errors and rows."""
    parts = [rows[start : start + a_request] for start in range(0, len(rows), a_request)]
    latencies, errors, done, began, place = list[float](), 0, 0, time.perf_counter(), 0
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def client(session: httpx.AsyncClient) -> None:
        nonlocal errors, done, place
        while place < len(parts) or time.perf_counter() - began < seconds:
            part = parts[place % len(parts)]
            place += 1
            since = time.perf_counter()
            answer = await session.post(f"{url}/v1/predict", json={"task": TASK, "rows": [{"text": text} for text in part]})
            latencies.append(time.perf_counter() - since)
            good = answer.status_code == 200 and len(answer.json()["results"]) == len(part)
            errors += not good
            done += len(part)

    async with httpx.AsyncClient(timeout=120, limits=limits) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return time.perf_counter() - began, latencies, errors, done


def told(latencies: list[float]) -> str:
    ordered = sorted(latencies)
    p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99))
    return f"p50 {p50 * 1e3:,.0f} ms, p99 {p99 * 1e3:,.0f} ms of {len(ordered):,} requests"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--a-request", type=int, default=4, help="rows of a request")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the last part; 0 leaves it out")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from mengzi_mt import Mengzi

    server, mengzi, rows = Served(asked.model), Mengzi.load(asked.model), texts(asked.rows)
    inputs = [{"text": text} for text in rows]
    mengzi.predict(TASK, inputs[:64], progress=False)
    asyncio.run(load(server.url, rows[:64], asked.a_request, asked.clients))
    ratios = []
    for number in range(asked.rounds):
        began = time.perf_counter()
        mengzi.predict(TASK, inputs, progress=False)
        library = len(rows) / (time.perf_counter() - began)
        took, latencies, errors, done = asyncio.run(load(server.url, rows, asked.a_request, asked.clients))
        ratios.append(done / took / library)
        print(
            f"round {number}: library {library:,.1f} rows/s, server {done / took:,.1f} rows/s ({ratios[-1]:.2f}), "
            f"{told(latencies)}, {errors} errors", flush=True,
        )  # fmt: skip
    print(f"server / library: median {statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]")
    if asked.minutes:
        before = server.memory
        took, latencies, errors, done = asyncio.run(
            load(server.url, rows, asked.a_request, asked.clients, seconds=60 * asked.minutes)
        )
        print(
            f"{took / 60:.1f} minutes: {done / took:,.1f} rows/s, {told(latencies)}, {errors} errors, memory {before:,.0f} MiB at "
            f"the start and {server.memory:,.0f} MiB at the end"
        )
    print(f"exit status of the server: {server.end()}")


if __name__ == "__main__":
    main()
