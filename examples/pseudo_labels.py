"""Pseudo-labels: unlabelled texts that the model is sure of become training rows, the others go to a person.

python examples/pseudo_labels.py [MODEL]

Several templates are asked, and a label counts only where most of them agree and their mean is confident.
"""

import json
import sys

from mengzi_mt import Mengzi

UNLABELLED = ["这家店的汤太咸了，不会再来。", "手机拍照清楚，电池也耐用！", "快递员把箱子放门口了。", "物超所值，已经推荐给同事。"]
THRESHOLD = 0.8

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
left = []
for text, found in zip(UNLABELLED, mengzi.sentiment(UNLABELLED, templates=5, vote="majority"), strict=True):
    if found.probability >= THRESHOLD:
        print(json.dumps({"sentence": text, "label": found.label, "confidence": round(found.probability, 3)}, ensure_ascii=False))
    else:
        left.append(text)
print(f"{len(UNLABELLED) - len(left)} labelled, {len(left)} left for a person: {left}")
