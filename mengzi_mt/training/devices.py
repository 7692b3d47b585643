"""Devices: the processes of a run, and what they do together. On one process every method does the obvious.

Accelerate's ``PartialState`` reads the launcher's environment (``torchrun``, ``accelerate launch``), picks each process's device
and sets up the process group. Wrapping is torch's own (see ``docs/design.md`` for why).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from mengzi_mt.config import TrainingSettings
from mengzi_mt.errors import InputError, RunError, first_line
from mengzi_mt.models.devices import pick_device
from mengzi_mt.training.sharding import shard, whole
from mengzi_mt.training.shares import Share
from mengzi_mt.training.tracking import Processes

Value = TypeVar("Value")
_OWN_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else {"broadcast_buffers": False}  # deprecated since torch 2.13
)
"""For DDP: a forward pass does not begin by sending the first process's buffers, since all processes have the same."""
PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, for instance while one writes a large checkpoint to a slow disk."""


class Devices:
    """This process among those of the run.

    Args:
        settings: ``device`` and ``parallel`` of a recipe.

    Attributes:
        device: of this process.
        number: of this process, from 0 on.
        count: of processes.

    Raises:
        InputError: a device that cannot be used, or that several processes would share.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.parallel = settings.parallel
        device = pick_device(settings.device, "training.device")
        self._state = PartialState(cpu=device.type != "cuda", timeout=PATIENCE)
        self.number, self.count = int(self._state.process_index), int(self._state.num_processes)
        if self.count > 1 and device.index is not None:
            raise InputError(
                f"{self.count} processes cannot share {settings.device}", where="training.device", fix="set training.device=auto"
            )
        self.device = device if self.count == 1 else torch.device(self._state.device)

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files and speaks."""
        return self.number == 0

    @property
    def share(self) -> Share:
        """What this process trains on."""
        return Share(self.number, self.count)

    @property
    def processes(self) -> Processes:
        """The same for the tracker."""
        return Processes(self.main, self.count, self._sum if self.count > 1 else None)

    def sentence(self) -> str:
        """For the log."""
        return f"on {self.device}" if self.count == 1 else f"on {self.count} processes ({self.device.type}, {self.parallel})"

    def wrap(self, module: nn.Module, model: nn.Module) -> nn.Module:
        """What is called in place of ``module``, whose forward pass uses ``model``; both are already on this device.

        With ``fsdp`` the model's parameters become shards, so optimisers and averages must be made afterwards.
        """
        if self.count == 1:
            return module
        if self.parallel == "fsdp":
            shard(module, model, init_device_mesh(self.device.type, (self.count,)))
            return module
        import torch._dynamo

        # It would cut what is compiled inside of a DDP forward where a bucket ends, which FlexAttention does not survive; blocks of
        # layers are compiled one by one, so their gradients come one by one as they are.
        torch._dynamo.config.optimize_ddp = False
        return DistributedDataParallel(
            module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **_OWN_BUFFERS,
        )

    @contextmanager
    def synchronising(self, module: nn.Module, last: bool) -> Iterator[None]:
        """Around forward and backward pass of a micro-batch: gradients are averaged over the processes in the step's last."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
        alone = isinstance(module, DistributedDataParallel) and not last
        with module.no_sync() if alone else nullcontext():  # type: ignore[operator]
            yield

    def clip(self, model: nn.Module, limit: float) -> float:
        """Scale the gradients so that the norm of all of them together is at most ``limit``; returns the norm before."""
        return float(whole(nn.utils.clip_grad_norm_(model.parameters(), limit)))

    def total(self, *values: float) -> list[float]:
        """Sums over all processes, in float64."""
        if self.count == 1:
            return list(values)
        return self._sum(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def any(self, here: bool) -> bool:
        """Whether it is so in at least one process."""
        return self.total(float(here))[0] > 0

    def _sum(self, tensor: Tensor) -> Tensor:
        return reduce(tensor, "sum")

    def from_main(self, value: Value) -> Value:
        """The main process's value in every process."""
        return broadcast_object_list([value])[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in order, in every process."""
        return gather_object([value])

    def main_first(self) -> AbstractContextManager[None]:
        """The main process goes through the block before the others: what it leaves on disk they find."""
        return self._state.main_process_first()

    def wait(self) -> None:
        """Until every process is here."""
        self._state.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group."""
        self._state.destroy_process_group()

    @contextmanager
    def failures_explained(self) -> Iterator[None]:
        """Around a run: what communication says when another process ended becomes a sentence."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            if self.count == 1 or not any(word in text for word in ("gloo", "NCCL", "Connection", "TCPStore")):
                raise
            raise RunError(
                f"Another process of this run ended: {first_line(error)}",
                where=f"process {self.number} of {self.count}",
                fix="see what that process said; the run resumes from its last checkpoint",
            ) from error
