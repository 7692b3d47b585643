"""One error family: what went wrong, where, and what to do about it.

The command line prints an error of this family as one paragraph on standard error and exits with its
``exit_code``; anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MengziError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        what: One sentence that says what is wrong.
        where: The place: file, line, key, template or task.
        fix: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(self.paragraph())

    def paragraph(self) -> str:
        """The error as one readable paragraph: what, where, what to do."""
        parts = [self.what if self.what.endswith((".", "!", "?")) else self.what + "."]
        if self.where:
            parts.append(f"Where: {self.where}.")
        if self.fix:
            parts.append(f"What to do: {self.fix}" + ("" if self.fix.endswith((".", "?")) else "."))
        return " ".join(parts)


class InputError(MengziError):
    """Wrong usage or bad input: a file, a key, an option. Exit status 2."""

    exit_code = 2


class RunError(MengziError):
    """A run that was asked for correctly and failed on the way. Exit status 1."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the known names nearest to ``name``, or with all of them where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(repr(item) for item in close) + "?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"Known names: {shown or 'none'}"
