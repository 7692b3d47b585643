"""Weights & Biases as a second place for a run's records; offline unless there is an account."""

from __future__ import annotations

import netrc
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mengzi_mt.errors import InputError, first_line


class WandbSink:
    """Logs every record to one wandb run.

    A resumed run goes on under the same id. Steps are a metric of their own, because wandb refuses to go back to the step
    of an earlier checkpoint. A failure while training is said once and never stops the run.

    Args:
        run_dir: wandb's files go to its ``wandb/``.
        project: of wandb.
        name: the recipe's name.
        recipe: shown as the run's configuration.
        run_id: of the run that is continued; a new one by default.
        say: where a failure is reported.

    Raises:
        InputError: wandb is not installed, or cannot start.
    """

    def __init__(
        self, run_dir: Path, project: str, name: str, recipe: Mapping[str, Any], run_id: str | None, say: Callable[[str], None]
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                "`tracking.wandb` needs wandb", where="tracking.wandb", fix="pip install 'mengzi-mt[track]'"
            ) from error
        self._say, self._broken = say, False
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.mode = os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline")
        self.run_id = run_id or secrets.token_hex(4)
        options: dict[str, Any] = {"mode": self.mode}  # any word that WANDB_MODE holds; the library refuses wrong ones
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=self.run_id,
                resume="allow" if self.mode == "online" else None,
                dir=str(run_dir),
                config=dict(recipe),
                **options,
                settings=wandb.Settings(silent=True),
            )
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # its own error classes differ from version to version
            raise InputError(
                f"wandb cannot start: {first_line(error)}",
                where=f"tracking.wandb (mode {self.mode})",
                fix="set WANDB_MODE=offline, or tracking.wandb=false",
            ) from error

    def log(self, record: Mapping[str, Any]) -> None:
        """Log one record; what is nested gets names with slashes (``task_loss/lcqmc``)."""
        self._try(lambda: self._run.log(flatten(record)))

    def close(self, failed: bool) -> None:
        """Finish the wandb run."""
        self._try(lambda: self._run.finish(exit_code=int(failed)))

    def _try(self, action: Callable[[], Any]) -> None:
        if self._broken:
            return
        try:
            action()
        except Exception as error:
            self._broken = True
            self._say(f"warning: wandb stopped ({first_line(error)}); metrics.jsonl goes on")


def has_account() -> bool:
    """Whether wandb would find a key: ``WANDB_API_KEY``, or an entry for its host in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level: ``{"scores": {"tnews": 1}}`` becomes ``{"scores/tnews": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
