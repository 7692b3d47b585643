"""Speed of `mengzi-mt corpus build` beside a plain loop on one core that does the same steps document by document.

    python -m benchmarks.corpus_speed CORPUS… [--documents 2000] [--workers 1 2] [--no-near-duplicates]

Both read the same first documents of every file, evenly spaced, and must write the same tokens. The plain loop is what one
writes first: one call a line, a document or a sentence, sets of n-grams, Python integers. Evaluation texts are left aside
in both.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import unicodedata
from pathlib import Path

import numpy as np

from mengzi_mt.corpora import near_duplicates as near
from mengzi_mt.corpora.build import build_corpus
from mengzi_mt.corpora.chunks import stable_hash
from mengzi_mt.corpora.cleaning import MOST_DAMAGED, REPLACEMENT, normaliser, remove_boilerplate
from mengzi_mt.corpora.sentences import split_sentences
from mengzi_mt.corpora.settings import BuildSettings
from mengzi_mt.data.corpus import read_corpus
from mengzi_mt.data.texts import han
from mengzi_mt.data.token_shards import open_corpus
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve

PRIME = (1 << 61) - 1


def plain_reason(text: str, settings: BuildSettings) -> str | None:
    """The filters of one document, character by character."""
    count = dict.fromkeys(("han", "letter", "digit", "mark", "other", "blank"), 0)
    before = ""
    for character in text:
        kind = unicodedata.category(character)
        if han(character):
            count["han"] += 1
        elif kind[0] in "PSM":
            count["blank" if character == before else "mark"] += 1
        else:
            name = {"L": "letter", "N": "digit", "Z": "blank"}.get(kind[0], "other")
            count["blank" if kind == "Cf" or character in "\t\n\r" else name] += 1
        before = character
    visible = len(text) - count["blank"]
    if len(text) < settings.min_characters or count["other"] > MOST_DAMAGED * visible:
        return "short or damaged"
    if count["digit"] > settings.max_digits * visible or count["mark"] > settings.max_punctuation * visible:
        return "digits or punctuation"
    if count["han"] < settings.min_han * (count["han"] + count["letter"]):
        return "few_han"
    lines = text.split("\n")
    if sum(len(line) for number, line in enumerate(lines) if line in lines[:number]) > settings.max_repeated_lines * len(text):
        return "repeated_lines"
    return None


def plain_build(paths: list[Path], encoder: Encoder, settings: BuildSettings) -> list[list[int]]:
    """The ids of every document that stays."""
    rng = np.random.default_rng(0)
    hashes = [(int(a), int(b)) for a, b in rng.integers(1, PRIME, (near.BANDS * near.ROWS, 2))]
    seen: set[int] = set()
    buckets: dict[tuple[int, ...], list[set[str]]] = {}
    kept = []
    for path in paths:
        for _, raw in read_corpus(path):
            lines = [normaliser().normalize(line).strip() for line in raw.split("\n")]
            text, _ = remove_boilerplate("\n".join(line for line in lines if line))
            if raw.count(REPLACEMENT) > MOST_DAMAGED * len(raw) or plain_reason(text, settings):
                continue
            comparable = near.comparable(text)
            every = [comparable[i : i + near.NGRAM] for i in range(len(comparable) - near.NGRAM + 1)]
            grams = set(every)
            if len(every) >= 100 and 1 - len(grams) / len(every) > settings.max_repeated_ngrams:
                continue
            if stable_hash(text) in seen:
                continue
            seen.add(stable_hash(text))
            if settings.near_duplicates and grams:
                numbers = [stable_hash(gram) for gram in grams]
                least = [min((a * number + b) % PRIME for number in numbers) for a, b in hashes]
                keys = [(band, *least[band * near.ROWS : (band + 1) * near.ROWS]) for band in range(near.BANDS)]
                others = [other for key in keys for other in buckets.get(key, ())]
                if any(near.jaccard(grams, other) >= settings.near_duplicates for other in others):
                    continue
                for key in keys:
                    buckets.setdefault(key, []).append(grams)
            kept.append(text)
    copies: dict[str, int] = {}
    result = []
    for text in kept:
        left = []
        for line in text.split("\n"):
            if len(line) >= 8:
                copies[line] = copies.get(line, 0) + 1
            if copies.get(line, 0) <= settings.line_copies:
                left.append(line)
        text = "\n".join(left)
        if len(text) >= settings.min_characters:
            result.append([number for sentence in split_sentences(text) for number in encoder(sentence)])
    return result


def extract(paths: list[Path], documents: int, folder: Path) -> tuple[list[Path], int, int]:
    """Every n-th document of each file as plain JSON lines; their files, documents and bytes of text."""
    found, count, size = [], 0, 0
    for path in paths:
        texts = [text for _, text in read_corpus(path)]
        chosen = texts[:: max(1, len(texts) * len(paths) // documents)]
        target = folder / f"{path.name.split('.')[0]}.jsonl"
        target.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in chosen), encoding="utf-8")
        found.append(target)
        count, size = count + len(chosen), size + sum(len(text.encode()) for text in chosen)
    return found, count, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokenizer", default="models/mengzi-mt-mini")
    parser.add_argument("--no-near-duplicates", action="store_true")
    parser.add_argument("--no-plain", action="store_true")
    options = parser.parse_args()
    settings = BuildSettings(near_duplicates=0.0 if options.no_near_duplicates else 0.8)
    tokenizer = load_tokenizer(resolve(options.tokenizer))
    encoder = Encoder(tokenizer)
    print(f"Python {platform.python_version()}, numpy {np.__version__}; near-duplicates: {settings.near_duplicates or 'off'}")
    with tempfile.TemporaryDirectory() as name:
        paths, count, size = extract(options.corpus, options.documents, Path(name))
        print(f"{count:,} documents, {size / 1e6:.2f} MB of text")

        def said(what: str, wall: float, processor: float) -> None:
            rate = f"{size / 1e6 / wall:.2f} MB/s, {count / wall:,.0f} documents/s"
            print(f"{what}: {wall:.2f} s ({rate}), {processor:.2f} s of processor time ({size / 1e6 / processor:.2f} MB/s)")

        expected = None
        if not options.no_plain:
            began, busy = time.perf_counter(), time.process_time()
            expected = plain_build(paths, encoder, settings)
            said("plain loop", time.perf_counter() - began, time.process_time() - busy)
        for workers in options.workers:
            out = Path(name) / f"out-{workers}"
            began, busy = time.perf_counter(), _busy()
            build_corpus(paths, out, tokenizer, settings, workers=workers)
            said(f"corpus build, {workers} processes", time.perf_counter() - began, _busy() - busy)
            corpus = open_corpus(out)
            if expected is not None:
                same = [corpus.document(number).tolist() for number in range(corpus.documents)] == expected
                print(f"  {corpus.documents:,} documents kept, {'the same as' if same else 'OTHERS THAN'} the plain loop's")


def _busy() -> float:
    import resource

    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
