"""The texts of a row, and the form in which two texts are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from mengzi_mt.tasks.task import Task

_NOT_HAN = re.compile("[^\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")


def han(text: str) -> str:
    """The text's Han characters after NFKC, and nothing else.

    The same text goes round with other punctuation, widths, blanks (word-segmented corpora), letter case and markup;
    its Han characters stay. The price: texts that differ only in numbers or Latin names count as equal. Traditional
    characters are not converted.
    """
    return _NOT_HAN.sub("", unicodedata.normalize("NFKC", text))


def text_fields(task: Task, values: Mapping[str, Any]) -> dict[str, str]:
    """What a reader of the row sees before the answer: its ``string`` fields, and its ``strings`` fields joined by newlines."""
    texts = {}
    for key, spec in task.fields.items():
        value = values.get(key)
        if spec.type == "string" and value:
            texts[key] = value
        elif spec.type == "strings" and value:
            texts[key] = "\n".join(value)
    return texts


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
