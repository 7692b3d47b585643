"""A zero-shot classifier with labels of one's own, and with words of one's own around the text.

python examples/own_labels.py [MODEL]
"""

import sys

from mengzi_mt import Mengzi

LABELS = ["物流配送", "退款退货", "发票开具", "账号登录"]
MESSAGES = ["我的包裹三天没有更新了", "登录的时候总说密码不对", "能不能开公司抬头的发票？"]
PROMPT = "客服收到一条留言：“{{ text }}”\n它属于{{ answer_choices | join('、') }}中的哪一类？"

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
shipped = mengzi.classify(MESSAGES, LABELS)
worded = mengzi.classify(MESSAGES, LABELS, prompt=PROMPT)
for message, one, other in zip(MESSAGES, shipped, worded, strict=True):
    print(f"{message}\n  {one.label} ({one.probability:.0%}), in own words {other.label} ({other.probability:.0%})")
