"""The texts of a row, and the form in which two texts are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mengzi_mt.tasks.task import FieldSpec, Task

_NOT_HAN = re.compile("[^\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")


def han(text: str) -> str:
    """The text's Han characters after NFKC, and nothing else.

    The same text goes round with other punctuation, widths, blanks (word-segmented corpora), letter case and markup;
    its Han characters stay. The price: texts that differ only in numbers or Latin names count as equal. Traditional
    characters are not converted.
    """
    return _NOT_HAN.sub("", unicodedata.normalize("NFKC", text))


def text_keys(task: Task) -> tuple[str, ...]:
    """Keys of what a reader of a row sees before the answer: fields of type ``string`` and ``strings``.

    A text that is read from where an answer stands (a label's own wording) is an answer, too, and is left out.
    """
    answers = {path for key in task.gold_fields for path in _paths(key, task.fields[key])}
    return tuple(
        key for key, spec in task.fields.items() if spec.type in ("string", "strings") and answers.isdisjoint(_paths(key, spec))
    )


def _paths(key: str, spec: FieldSpec) -> tuple[str, ...]:
    source = spec.source or key
    return (source,) if isinstance(source, str) else source


def text_fields(keys: Iterable[str], values: Mapping[str, Any]) -> dict[str, str]:
    """The texts under these keys that the row has; a list of texts is joined by newlines."""
    present = {key: values.get(key) for key in keys}
    return {key: value if isinstance(value, str) else "\n".join(value) for key, value in present.items() if value}


def every_text(value: Any) -> Iterator[str]:
    """Every text of a row's values, answers, lists and objects included: all that training may show to a model.

    The texts of a list also come joined, as :func:`text_fields` joins them.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from every_text(item)
    elif isinstance(value, list | tuple):
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) > 1:
            yield "\n".join(texts)
        else:
            yield from texts
        for item in value:
            if not isinstance(item, str):
                yield from every_text(item)
