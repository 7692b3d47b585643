"""How many of promptsource's own templates our compatibility mode renders to the same text, on made-up rows.

``python -m benchmarks.promptsource_parity [--rows 6] [--json]``. Needs promptsource 0.2.3 (see docs/promptsource.md). The
reference is the installed package; its compiled templates are kept between calls, which saves minutes and changes no text.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import yaml

from benchmarks.synthetic_rows import LETTERS, RowMaker
from benchmarks.template_usage import Usage, read_usage
from mengzi_mt.errors import InputError
from mengzi_mt.prompts.promptsource import PromptsourceTemplate, lenient_environment
from mengzi_mt.prompts.template import Template
from mengzi_mt.prompts.template_set import read_template_file

ATTEMPTS = 25
"""Rows of wilder kinds that are tried for a template that no ordinary row fits."""
DRAWING = re.compile(r"\|\s*(choice|random)\b")
Outcome = tuple[str, Any]


@dataclass
class TemplateParity:
    """What comparing one template gave. A row is counted once, for all that is compared on it.

    ``empty`` rows rendered to nothing at all, ``whole`` ones to an input and a target.
    """

    dataset: str
    template: str
    rendered: int = 0
    refused: int = 0
    comparisons: int = 0
    empty: int = 0
    whole: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)


def import_reference() -> ModuleType:
    """The installed package as it is.

    Raises:
        ImportError: promptsource or pkg_resources is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from promptsource import templates
    return templates


@contextlib.contextmanager
def kept_compiled(reference: ModuleType) -> Iterator[None]:
    """Keep what promptsource compiles, except where it draws by compiling again: Jinja folds ``[...] | choice`` as it compiles."""
    compiled = reference.env.from_string
    kept = functools.lru_cache(maxsize=1_024)(compiled)
    with mock.patch.object(reference.env, "from_string", lambda source: (compiled if DRAWING.search(source) else kept)(source)):
        yield


def template_files(reference: ModuleType) -> list[Path]:
    """The package's 279 files."""
    return sorted(Path(reference.TEMPLATES_FOLDER_PATH).rglob("templates.yaml"))


def reference_loader(reference: ModuleType) -> Any:
    """promptsource's loader on libyaml's parser, which is many times faster."""

    class Loader(getattr(yaml, "CFullLoader", yaml.FullLoader)):  # type: ignore[misc]
        pass

    for kind in (reference.Template, reference.Template.Metadata):
        Loader.add_constructor(kind.yaml_tag, kind.from_yaml)
    return Loader


def compare_all(reference: ModuleType, rows: int, alternate: bool = False) -> Iterator[TemplateParity]:
    """Compare every template on ``rows`` rows; ``alternate`` saves time by truncating in every other template only."""
    loader = reference_loader(reference)
    count = 0
    for path in template_files(reference):
        theirs = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["templates"]
        ours = list(read_template_file(path))
        shared = Usage()
        for template in ours:
            read_usage(lenient_environment(), template.jinja, template.answer_choices, shared)
        dataset = str(path.parent.relative_to(reference.TEMPLATES_FOLDER_PATH))
        for template in ours:
            count += 1
            truncate = (count % 2 == 0,) if alternate else (False, True)
            with kept_compiled(reference):
                yield compare_template(dataset, theirs[template.id], template, shared, rows, truncate)


def compare_template(
    dataset: str, theirs: Any, template: Template, shared: Usage, rows: int, truncate: tuple[bool, ...]
) -> TemplateParity:
    """Compare one template; rows follow the use of all the dataset's templates, then its own, then a search."""
    result = TemplateParity(dataset, template.name)
    ours = PromptsourceTemplate(template, global_random=True)
    own = Usage()
    read_usage(lenient_environment(), template.jinja, template.answer_choices, own)
    fixed = theirs.get_fixed_answer_choices_list()
    if fixed != ours.get_fixed_answer_choices_list():
        result.differences.append({"what": "fixed choices", "theirs": fixed, "ours": ours.get_fixed_answer_choices_list()})
    rng = random.Random(template.id)
    used = {name: shared.keys[name] for name in own.keys if name in shared.keys}
    for fields, wild, attempts in ((Usage(keys=used), 0.0, rows), (own, 0.0, rows), (own, 0.15, ATTEMPTS), (own, 0.4, ATTEMPTS)):
        for _ in range(attempts):
            row = RowMaker(rng, fixed or list(LETTERS), wild).row(fields)
            compare_row(result, theirs, ours, row, rng.randrange(10**6), truncate)
            if wild and result.whole:
                break
        if result.whole:
            break
    partial = dict(row)
    for name in list(partial)[: 1 + rng.randrange(2)]:
        del partial[name]
    compare_row(result, theirs, ours, partial, 0, truncate)
    return result


def compare_row(
    result: TemplateParity, theirs: Any, ours: PromptsourceTemplate, row: dict[str, Any], seed: int, truncate: tuple[bool, ...]
) -> None:
    """Compare ``apply`` and the choices on one row, and see that ours leaves the row as it was."""
    before = copy.deepcopy(row)
    calls: dict[str, Callable[[Any, Any], Any]] = {
        f"apply(truncate={cut})": functools.partial(lambda t, r, cut: t.apply(r, truncate=cut), cut=cut) for cut in truncate
    }
    calls["choices"] = lambda t, r: t.get_answer_choices_list(r)
    outcomes = []
    for name, call in calls.items():
        expected = _outcome(call, theirs, copy.deepcopy(row), seed)
        found = _outcome(call, ours, row, seed)
        if expected != found:
            result.differences.append({"what": name, "row": before, "theirs": expected, "ours": found})
        outcomes.append(expected)
    result.comparisons += len(calls)
    if row != before:
        result.differences.append({"what": "the row was changed", "row": before})
    kind, value = outcomes[0]
    if kind == "text":
        result.rendered += 1
        result.empty += value == [""]
        result.whole += len(value) > 1 and all(value)
    else:
        result.refused += 1
        result.refusals[f"{kind}: {value}"] += 1


def _outcome(call: Callable[[Any, Any], Any], template: Any, row: dict[str, Any], seed: int) -> Outcome:
    try:
        with mock.patch("random.choice", lambda items: items[seed % len(items)]):
            return "text", call(template, row)
    except InputError as error:
        return "refused", type(error.__cause__ or error).__name__
    except Exception as error:
        return "refused", type(error).__name__


def summary(results: list[TemplateParity]) -> dict[str, Any]:
    """The counts over all templates."""
    ran = [result for result in results if result.rendered]
    return {
        "templates": len(results),
        "templates that rendered a row": len(ran),
        "of these, templates that rendered more than an empty text": sum(r.rendered > r.empty for r in ran),
        "of these, templates that rendered input and target": sum(result.whole > 0 for result in ran),
        "rows rendered by both": sum(result.rendered for result in results),
        "rows refused by both": sum(result.refused for result in results),
        "comparisons": sum(result.comparisons for result in results),
        "differences": sum(len(result.differences) for result in results),
    }


def main() -> None:
    """Print the counts, what differs, and which templates never rendered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6, help="rows a template")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    results = list(compare_all(import_reference(), options.rows))
    never = [result for result in results if not result.rendered]
    different = [result for result in results if result.differences]
    if options.json:
        shown = {"counts": summary(results), "never rendered": list(map(asdict, never)), "different": list(map(asdict, different))}
        print(json.dumps(shown, ensure_ascii=False, indent=2, default=str))
        return
    for name, count in summary(results).items():
        print(f"{count:>8,}  {name}")
    for result in never:
        print(f"never rendered: {result.dataset} / {result.template}: {dict(result.refusals)}")
    for result in different:
        print(f"different: {result.dataset} / {result.template}: {result.differences[0]}"[:1_500])


if __name__ == "__main__":
    main()
