import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mengzi_mt.sdk.serve_errors import ServeError
from mengzi_mt.sdk.serve_queue import Job, JobQueue, Question
from mengzi_mt.sdk.serve_settings import ServeSettings

SENTIMENT, NEWS = Question("sentiment", ("a",)), Question("news_topic", ("a",))


def job(question, rows, length=4):
    return Job(question, [{"text": "字" * length}] * rows, lambda answer: None)


def queue(**settings):
    return JobQueue(ServeSettings(**{"batch_wait": 0, **settings}), 512)


def sizes(batch):
    return [len(part.rows) for part in batch.parts]


def test_rows_of_equal_questions_go_together():
    waiting = queue()
    for question, rows in ((SENTIMENT, 3), (NEWS, 2), (SENTIMENT, 1)):
        waiting.put(job(question, rows), 1)
    first, second = waiting.take(False), waiting.take(False)
    assert (first.question, sizes(first)) == (SENTIMENT, [3, 1])
    assert (second.question, sizes(second)) == (NEWS, [2])
    assert waiting.take(False) is None
    assert (waiting.rows, waiting.characters) == (0, 0)


def test_a_task_with_many_rows_delays_another_by_one_batch():
    waiting = queue(batch_rows=10)
    waiting.put(job(SENTIMENT, 1_000), 1)
    assert waiting.take(False).question == SENTIMENT
    waiting.put(job(NEWS, 1), 1)
    assert [waiting.take(False).question.task for _ in range(3)] == ["sentiment", "news_topic", "sentiment"]


def test_many_questions_of_a_task_have_one_turn_together():
    waiting = queue()
    for number in range(5):
        waiting.put(job(Question("classify", ("a",), (f"标签{number}", "其他")), 1), 1)
    waiting.put(job(NEWS, 1), 1)
    assert [waiting.take(False).question.task for _ in range(6)] == ["classify", "news_topic", *["classify"] * 4]


def test_templates_and_beams_count_as_rows():
    waiting = queue(batch_rows=12)
    waiting.put(job(Question("title", ("a", "b"), beams=3), 10), 1)
    assert sizes(waiting.take(False)) == [2]


def test_tokens_are_estimated_from_characters_as_far_as_the_model_reads():
    waiting = queue(batch_tokens=1_100)
    waiting.put(job(SENTIMENT, 4, length=50_000), 1)
    assert [sizes(waiting.take(False)) for _ in range(2)] == [[2], [2]]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 600)), max_size=12),
    st.integers(1, 30),
    st.integers(1, 5_000),
)
def test_every_row_is_taken_once_in_order_and_within_the_budget(jobs, rows, tokens):
    waiting, put = queue(batch_rows=rows, batch_tokens=tokens), []
    for number, count, length in jobs:
        one = Job(Question(f"t{number}"), [{"text": f"{place:04}" + "字" * length} for place in range(count)], lambda answer: None)
        put.append(one)
        waiting.put(one, 1)
    taken = {id(one): [] for one in put}
    while batch := waiting.take(False):
        assert batch.rows
        assert len(batch.rows) <= rows
        costs = sum(min(512, len(row["text"])) for row in batch.rows)
        assert len(batch.rows) == 1 or costs <= tokens
        for part in batch.parts:
            taken[id(part.job)] += part.rows
    assert all(taken[id(one)] == list(one.rows) for one in put)
    assert (waiting.rows, waiting.characters) == (0, 0)


def test_a_full_queue_refuses_and_says_when_to_come_again():
    waiting = queue(queue_rows=10)
    waiting.put(job(SENTIMENT, 8), 1)
    with pytest.raises(ServeError) as refused:
        waiting.put(job(NEWS, 3), 7)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "7")
    waiting.put(job(NEWS, 2), 1)


def test_a_queue_full_of_characters_refuses():
    waiting = queue(queue_characters=100)
    waiting.put(job(SENTIMENT, 1, length=90), 1)
    with pytest.raises(ServeError):
        waiting.put(job(NEWS, 1, length=20), 1)


def test_a_job_larger_than_the_queue_is_taken_by_an_empty_one():
    waiting = queue(queue_rows=2)
    waiting.put(job(SENTIMENT, 5), 1)
    assert sizes(waiting.take(False)) == [5]


def test_a_dropped_job_leaves_and_gives_back_its_room():
    waiting = queue(batch_rows=2)
    one, other = job(SENTIMENT, 5), job(SENTIMENT, 1)
    waiting.put(one, 1)
    waiting.put(other, 1)
    waiting.take(False)
    waiting.drop(one)
    waiting.drop(one)
    assert waiting.rows == 1
    assert waiting.take(False).parts[0].job is other
    assert (waiting.rows, waiting.characters) == (0, 0)


def test_a_batch_that_is_not_full_waits_a_moment_for_more():
    waiting = queue(batch_wait=0.2, batch_rows=4)
    waiting.put(job(SENTIMENT, 1), 1)
    threading.Timer(0.05, lambda: waiting.put(job(SENTIMENT, 1), 1)).start()
    began = time.monotonic()
    assert sizes(waiting.take(True)) == [1, 1]
    assert 0.15 < time.monotonic() - began < 5
    waiting.put(job(SENTIMENT, 4), 1)
    began = time.monotonic()
    waiting.take(True)
    assert time.monotonic() - began < 0.15


def test_a_closed_queue_takes_nothing_and_names_who_waits():
    waiting = queue()
    one = job(SENTIMENT, 1)
    waiting.put(one, 1)
    assert waiting.close(ServeError("shutting_down")) == [one]
    with pytest.raises(ServeError, match="takes nothing new"):
        waiting.put(job(NEWS, 1), 1)
