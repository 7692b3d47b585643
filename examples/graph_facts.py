"""Facts of a knowledge graph in the context: triples about what a question names become the text that it is answered from.

python examples/graph_facts.py [MODEL]
"""

import sys

from mengzi_mt import Mengzi

TRIPLES = [
    ("云溪大桥", "建成时间", "1958年"),
    ("云溪大桥", "设计者", "林一舟"),
    ("云溪大桥", "位于", "青川市"),
    ("青川市", "人口", "八十万"),
]
QUESTIONS = ["云溪大桥的设计者是谁？", "云溪大桥是什么时候建成的？", "青川市有多少人口？"]


def facts_about(question: str) -> str:
    """The triples whose subject the question names, as sentences."""
    return "".join(f"{head}的{relation}是{tail}。" for head, relation, tail in TRIPLES if head in question)


mengzi = Mengzi.load(sys.argv[1] if len(sys.argv) > 1 else None)
contexts = [facts_about(question) for question in QUESTIONS]
for question, context, found in zip(QUESTIONS, contexts, mengzi.answer(contexts, QUESTIONS), strict=True):
    print(f"{question} {found.text}    （依据：{context[: found.start]}【{found.text}】{context[found.end :]}）")
