"""Batch labelling: a column of a CSV gets a column with the label and one with its probability.

python examples/label_csv.py [MODEL]

On the command line: mengzi-mt infer MODEL --task sentiment --input reviews.csv --output labelled.csv --column text=review
"""

import csv
import io
import sys

from mengzi_mt import Mengzi

REVIEWS = """id,review
1,"面料很软，颜色也正，推荐。"
2,等了十天才到，包装还是破的。
3,"味道一般，不过分量足"
"""

mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
rows = list(csv.DictReader(io.StringIO(REVIEWS)))
labelled = mengzi.sentiment([row["review"] for row in rows])
writer = csv.DictWriter(sys.stdout, [*rows[0], "sentiment", "probability"])
writer.writeheader()
for row, found in zip(rows, labelled, strict=True):
    writer.writerow({**row, "sentiment": found.label, "probability": f"{found.probability:.3f}"})
