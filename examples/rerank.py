"""Search re-ranking: what a search found, ordered by how probably it asks the same as the query.

python examples/rerank.py [MODEL]
"""

import sys

from mengzi_mt import Mengzi

QUERY = "信用卡丢了怎么补办"
FOUND = ["如何申请新的信用卡", "信用卡遗失后怎样补卡", "信用卡账单日是哪一天", "借记卡挂失流程", "丢失信用卡如何重新办理"]
SAME = "相同"

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
scores = [result.probabilities[SAME] for result in mengzi.similarity(QUERY, FOUND, templates=3)]
print(QUERY)
for score, text in sorted(zip(scores, FOUND, strict=True), reverse=True):
    print(f"  {score:.3f}  {text}")
