"""How many texts get the same ids from ``tokenizer.json`` as from ``spiece.model``.

``python benchmarks/tokenizer_parity.py models/mengzi-mt-mini corpus/*.jsonl.xz``: every 40th document, its first 500 characters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sentencepiece
from transformers import PreTrainedTokenizerBase

from mengzi_mt.data.corpus import read_texts
from mengzi_mt.models.tokenizer import load_tokenizer

EVERY, CHARACTERS = 40, 500


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """What transformers makes of a text."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return found


def main(folder: Path, corpus: list[Path]) -> None:
    """Count equal documents and print those that differ."""
    tokenizer = load_tokenizer(folder)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    texts = [text[:CHARACTERS] for number, text in enumerate(read_texts(corpus)) if number % EVERY == 0]
    different = [text for text in texts if ids(tokenizer, text) != reference.encode(text)]
    for text in different:
        print("differs:", repr(text[:80]))
    print(f"{len(texts) - len(different):,} of {len(texts):,} equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
