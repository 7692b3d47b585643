"""Financial information extraction: the companies of a news text, and what each pair of them has to do with one another.

python examples/financial_extraction.py [MODEL]
"""

import sys
from itertools import combinations

from mengzi_mt import Mengzi

NEWS = [
    "海天集团昨日公告，拟以三亿元收购蓝波科技六成股权，交易完成后蓝波科技成为其控股子公司。",
    "受原料涨价影响，东江化工三季度利润下滑，向北方银行申请的贷款也尚未获批。",
]

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
for text, found in zip(NEWS, mengzi.company_names(NEWS), strict=True):
    print(text)
    names = list(dict.fromkeys(entity.text for entity in found.entities))
    if not names:
        print("  没有找到公司")
    for entity in found.entities:
        print(f"  公司 {entity.text}（第 {entity.start} 到 {entity.end} 个字符）")
    pairs = list(combinations(names, 2))
    relations = mengzi.financial_relation(text, [head for head, _ in pairs], [tail for _, tail in pairs]) if pairs else []
    for one in relations:
        print(f"  {one.head} —{one.label}→ {one.tail}（{one.probability:.0%}）")
