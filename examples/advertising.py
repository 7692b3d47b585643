"""Advertising copy: from a product's properties to a text, shown while it is written, and drafts by several templates.

python examples/advertising.py [MODEL]
"""

import sys

from mengzi_mt import Mengzi

PRODUCT = {"类型": "裙", "风格": "文艺", "材质": "棉麻", "颜色": "白色", "裙长": "半身裙"}

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
properties = "，".join(f"{name}-{value}" for name, value in PRODUCT.items())
print(properties)
for piece in mengzi.stream_task("advertising_copy", text=properties, max_new_tokens=40):
    print(piece, end="", flush=True)
print()
drafts = mengzi.advertising_copy(properties, templates=3, max_new_tokens=40)
for name, draft in zip(drafts.templates, drafts.candidates, strict=True):
    print(f"{name}: {draft.text}")
