import random

import pytest

from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.pieces import Pieces
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.data.typed_spans import ListedSpans
from mengzi_mt.prompts.trees import Span

FORM = ListedSpans(("人名：", "地名："), ("，", "；人名：", "；地名："), "无")
TEXT = "张伟在北京见李娜，喝茶"


@pytest.fixture(scope="module")
def pieces(tokenizer):
    return Pieces(Encoder(tokenizer))


def answers(pieces, text=TEXT):
    return FORM.answers(TextExample(text, "", None, (Span(0, len(text)),), 1.0, "task", "template", "0"), pieces)


def allows(pieces, answer):
    """Whether the tokens of an answer may be generated, end-of-sequence included."""
    course = answers(pieces).start
    for token in pieces.encoder(answer):
        if token not in course.allowed:
            return False
        course = course.after(token)
    return pieces.encoder.eos in course.allowed


@pytest.mark.parametrize(
    "answer", ["无", "人名：张伟", "人名：张伟，李娜；地名：北京", "地名：北京；人名：李娜，喝茶", "人名：李娜，喝茶"]
)
def test_answers_that_may_be(pieces, answer):
    assert allows(pieces, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "张伟",
        "人名：",
        "人名：王",
        "人名：张伟，",
        "公司：张伟",
        "无，张伟",
        "人名：张伟；北京",
        "人名：张伟无",
        "人名：张伟；地名：",
    ],
)
def test_answers_that_may_not_be(pieces, answer):
    assert not allows(pieces, answer)


def test_whatever_is_generated_has_the_form(pieces):
    """Random walks, read back by a plain parser."""
    drawn = random.Random(0)
    ended = 0
    for _ in range(60):
        found = answers(pieces)
        course, tokens = found.start, []
        while len(tokens) < 60:
            allowed = list(course.allowed)
            ending = pieces.encoder.eos in allowed and drawn.random() < 0.3
            token = pieces.encoder.eos if ending else drawn.choice(allowed)
            if token == pieces.encoder.eos:
                ended += 1
                check(found.text(tokens))
                break
            tokens.append(token)
            course = course.after(token)
    assert ended > 30


def check(text):
    source = TEXT.replace("，", ",")
    if text == "无":
        return
    for part in text.split(";"):
        head, spans = part[:3], part[3:]
        assert head in ("人名:", "地名:")
        pieces = spans.split(",")
        assert all(piece in source for piece in pieces)
