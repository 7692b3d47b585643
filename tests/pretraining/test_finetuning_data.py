import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mengzi_mt.errors import InputError
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.pretraining.encoder_models import give_roles
from mengzi_mt.pretraining.finetuning_data import UNTAGGED, bio_tags, exact_f1, load_task_data, spans, task_kind
from mengzi_mt.tasks.registry import all_tasks, get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

LABELS = ["O", "B-人名", "I-人名", "B-地名", "I-地名"]
NUMBERS = {label: number for number, label in enumerate(LABELS)}


@pytest.fixture(scope="module")
def encoder_tokenizer(tokenizer_dir):
    tokenizer = load_tokenizer(tokenizer_dir)
    give_roles(tokenizer)
    return tokenizer


def names(tags):
    return [LABELS[tag] for tag in tags]


def test_tags_of_characters_pieces_and_overlaps():
    characters = [(n, n + 1) for n in range(6)]
    assert names(bio_tags(characters, {(1, 3, "人名"), (3, 5, "人名")}, NUMBERS)) == [
        "O",
        "B-人名",
        "I-人名",
        "B-人名",
        "I-人名",
        "O",
    ]
    pieces = [(0, 2), (2, 3), (3, 6)]
    assert names(bio_tags(pieces, {(0, 3, "地名")}, NUMBERS)) == ["B-地名", "I-地名", "O"]
    assert names(bio_tags(pieces, {(0, 1, "人名")}, NUMBERS)) == ["B-人名", "O", "O"]  # half of a piece is enough
    assert names(bio_tags(pieces, {(5, 6, "人名")}, NUMBERS)) == ["O", "O", "O"]  # a third is not
    assert names(bio_tags(characters, {(0, 4, "地名"), (0, 2, "人名")}, NUMBERS)) == ["B-地名", *["I-地名"] * 3, "O", "O"]
    assert names(bio_tags([(0, 0), (0, 1)], {(0, 1, "人名")}, NUMBERS)) == ["O", "B-人名"]  # a blank is of no entity


def test_spans_of_tags():
    places = [(n, n + 1) for n in range(5)]
    assert spans(places, ["B-人名", "I-人名", "I-地名", "O", "I-人名"]) == {(0, 2, "人名"), (2, 3, "地名"), (4, 5, "人名")}
    assert spans(places, ["B-人名", "B-人名", "O", "B-地名", "I-地名"]) == {(0, 1, "人名"), (1, 2, "人名"), (3, 5, "地名")}
    assert spans(places, ["O"] * 5) == set()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(["人名", "地名"])), max_size=6))
def test_entities_apart_come_back_from_their_tags(parts):
    place, entities = 0, set()
    for gap, size, kind in parts:
        entities.add((place + gap, place + gap + size, kind))
        place += gap + size
    characters = [(n, n + 1) for n in range(place)]
    assert spans(characters, names(bio_tags(characters, entities, NUMBERS))) == entities


def test_exact_f1_is_its_definition():
    gold = [frozenset({(0, 2, "a"), (3, 4, "b")}), frozenset({(1, 2, "a")})]
    found = [{(0, 2, "a"), (3, 5, "b")}, {(1, 2, "b")}]
    assert exact_f1(found, gold) == pytest.approx(2 * (1 / 3) * (1 / 3) / (2 / 3))
    assert exact_f1([set(), set()], gold) == 0.0
    assert exact_f1(gold, gold) == 1.0


def test_entities_of_real_sentences_survive_the_tokenizer(encoder_tokenizer):
    data = load_task_data("cluener2020", DataSource("sample"), encoder_tokenizer, 30, 30, 128, 1)
    assert data.kind == "entities"
    assert data.labels[:3] == ["O", "B-人名", "I-人名"]
    texts = {row.values["text"] for row in load_rows(get_task("cluener2020"), "train", DataSource("sample"))}
    assert len(texts) >= len(data.train) > 10
    whole = 0
    for row in data.train:
        assert len(row.ids) == len(row.tags) == len(row.places) == len(row.segments)
        assert (row.tags[0], row.tags[-1]) == (UNTAGGED, UNTAGGED)
        inner = spans(row.places[1:-1], [data.labels[tag] for tag in row.tags[1:-1]])
        assert {kind for *_, kind in inner} <= {kind for *_, kind in row.entities}
        whole += len(inner & row.entities)
    assert whole > 0.7 * sum(len(row.entities) for row in data.train)


def test_classes_pairs_and_draws(encoder_tokenizer):
    one = load_task_data("thucnews_title", DataSource("sample"), encoder_tokenizer, 40, 25, 16, 1)
    assert one.kind == "sentence"
    assert (len(one.train), len(one.validation), len(one.labels)) == (40, 25, 10)
    assert max(len(row.ids) for row in one.train) <= 16
    assert {segment for row in one.train for segment in row.segments} == {0}
    other = load_task_data("thucnews_title", DataSource("sample"), encoder_tokenizer, 40, 25, 16, 2)
    assert [row.ids for row in one.train] != [row.ids for row in other.train]
    assert [row.ids for row in one.validation] == [row.ids for row in other.validation]
    pair = load_task_data("lcqmc", DataSource("sample"), encoder_tokenizer, 20, 20, 64, 1)
    assert pair.kind == "pair"
    first = pair.train[0]
    rows = load_rows(get_task("lcqmc"), "train", DataSource("sample"))
    assert any(
        encoder_tokenizer(row.values["sentence1"], row.values["sentence2"]).input_ids == first.ids
        and row.values["label"] == first.label
        for row in rows
    )
    assert np.diff(first.segments).max() == 1


def test_unfit_tasks_are_refused():
    zero_shot = next(task for task in all_tasks() if task.role == "zero_shot")
    with pytest.raises(InputError, match="zero-shot task is never trained on"):
        task_kind(zero_shot)
    with pytest.raises(InputError, match="neither labels nor entities"):
        task_kind(get_task("advertisegen"))
    lcqmc = get_task("lcqmc")
    three = lcqmc.model_copy(update={"fields": {**lcqmc.fields, "sentence3": lcqmc.fields["sentence1"]}})
    with pytest.raises(InputError, match="one or a pair"):
        task_kind(three)


def test_unlabelled_rows_are_refused(encoder_tokenizer, monkeypatch):
    from mengzi_mt.pretraining import finetuning_data

    real = finetuning_data.load_rows

    def without_labels(*given):
        found = real(*given)
        for row in found:
            row.values.pop("label")
        return found

    monkeypatch.setattr(finetuning_data, "load_rows", without_labels)
    with pytest.raises(InputError, match="No row of the split 'train' has an answer"):
        load_task_data("lcqmc", DataSource("sample"), encoder_tokenizer, 5, 5, 32, 1)
