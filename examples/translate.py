"""Translation: classical Chinese into modern, and Chinese into English.

python examples/translate.py [MODEL]
"""

import sys

from mengzi_mt import Mengzi

CLASSICAL = ["温故而知新，可以为师矣。", "三人行，必有我师焉。"]
MODERN = ["我每天早上都去公园跑步。", "请问图书馆怎么走？"]

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
for source, found in zip(CLASSICAL, mengzi.translation(CLASSICAL, "classical", "modern", max_new_tokens=40), strict=True):
    print(f"{source} → {found.text}")
for source, found in zip(MODERN, mengzi.translation(MODERN, "zh", "en", beams=3, max_new_tokens=30), strict=True):
    print(f"{source} → {found.text}")
    for other in found.candidates[1:]:
        print(f"    or: {other.text} ({other.log_probability:.1f})")
