"""Preparation on a Ray cluster: the same function for each shard, mapped by Ray Data over its processes."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mengzi_mt.data.shards import ShardInfo, ShardJob, make_shard
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError, MengziError

INSTALL = 'pip install "ray[data]"'


def run_on_ray(jobs: Iterable[ShardJob], encoder: Encoder, workers: int) -> Iterator[tuple[Path, ShardInfo]]:
    """Make shards by ``workers`` Ray actors; results come as they are finished.

    The cluster is the one that ``RAY_ADDRESS`` names, or one started here. Its machines must see the shards' folders under
    the same paths.

    Raises:
        InputError: Ray is not installed; a template that fails on a row.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"Ray cannot be imported: {error}", where="--engine ray", fix=f"install it: {INSTALL}") from error
    if not ray.is_initialized():
        ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False) if not _address() else ray.init()
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"job": pickle.dumps(job)} for job in jobs]
    if not items:
        return
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    made = dataset.map_batches(
        _ShardMaker,
        fn_constructor_args=(pickle.dumps(encoder),),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for row in made.iter_rows():
        path, result = pickle.loads(row["result"])
        if isinstance(result, MengziError):
            raise result
        yield path, result


def _address() -> str | None:
    import os

    return os.environ.get("RAY_ADDRESS")


class _ShardMaker:
    """An actor: holds the encoder, makes one shard a call, and hands an error of ours back as a value."""

    def __init__(self, encoder: bytes) -> None:
        self.encoder: Encoder = pickle.loads(encoder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = []
        for packed in batch["job"]:
            job: ShardJob = pickle.loads(packed)
            try:
                result: ShardInfo | MengziError = make_shard(job, self.encoder)
            except MengziError as error:
                result = error
            results.append(pickle.dumps((job.path, result)))
        return {"result": results}
