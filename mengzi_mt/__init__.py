"""mengzi-mt: prompt-based multi-task text-to-text learning in Chinese.

Importing the package loads nothing heavy; every room is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mengzi_mt.sdk.mengzi import Mengzi
    from mengzi_mt.sdk.zero_shot import MengziZeroShot

__all__ = ["Mengzi", "MengziZeroShot", "__version__"]
__version__ = "0.1.0"
_LAZY = {"Mengzi": "mengzi_mt.sdk.mengzi", "MengziZeroShot": "mengzi_mt.sdk.zero_shot"}


def __getattr__(name: str) -> Any:
    """The classes of the SDK, imported when they are first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
