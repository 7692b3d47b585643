from dataclasses import replace

import pytest

from mengzi_mt.compression import distil_pseudo_labels
from mengzi_mt.compression.distil_pseudo_labels import WithPseudoLabels, read_pseudo_labels, write_pseudo_labels
from mengzi_mt.data.examples import TextExample, select_templates
from mengzi_mt.data.mixture import Mixture, make_pool
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.generation import Generator
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

MADE_FROM = {"teacher": "abc", "seed": 1}


@pytest.fixture(scope="module")
def mixture():
    pools = []
    for name in ("lcqmc", "advertisegen"):
        task = get_task(name)
        rows = load_rows(task, "train", DataSource("sample")).rows
        pools.append(make_pool(task, rows, select_templates(task, None)))
    return Mixture(pools, {"lcqmc": 0.5, "advertisegen": 0.5}, 3)


@pytest.fixture
def generator(tiny_model, tokenizer):
    return Generator(tiny_model(seed=4), tokenizer, max_input=96, max_new_tokens=6, beams=2)


@pytest.fixture(autouse=True)
def _small_writes(monkeypatch):
    monkeypatch.setattr(distil_pseudo_labels, "AT_ONCE", 4)


def test_the_teacher_answers_what_the_mixture_draws(mixture, generator, tmp_path):
    path = tmp_path / "labels.jsonl"
    heard = []
    write_pseudo_labels(path, mixture, 10, generator, MADE_FROM, lambda *numbers: heard.append(numbers))
    assert heard == [(4, 10), (8, 10), (10, 10)]
    found = read_pseudo_labels(path)
    for example, gold in zip(found, mixture.examples(0, 10), strict=True):
        assert example._replace(targets="") == gold._replace(targets="")
        if example.choices:
            assert example.targets in example.choices
        else:
            (alone,) = generator.generate([example])
            assert example.targets == alone.text
    assert {example.task for example in found} == {"lcqmc", "advertisegen"}


def test_labels_of_the_rows_change_nothing(mixture, generator, tmp_path):
    """The templates read other fields than the label, and the answer is the teacher's whatever that says."""
    task = get_task("lcqmc")
    lcqmc = make_pool(task, mixture.pools[0].rows, select_templates(task, None, for_evaluation=True))
    other = [replace(row, values={**row.values, "label": 1 - row.values["label"]}) for row in lcqmc.rows]
    turned = Mixture([make_pool(lcqmc.task, other, lcqmc.templates)], {"lcqmc": 1.0}, 3)
    plain = Mixture([lcqmc], {"lcqmc": 1.0}, 3)
    for name, one in (("turned", turned), ("plain", plain)):
        write_pseudo_labels(tmp_path / name, one, 6, generator, MADE_FROM)
    assert [one.targets for one in turned.examples(0, 6)] != [one.targets for one in plain.examples(0, 6)]
    assert (tmp_path / "turned").read_bytes() == (tmp_path / "plain").read_bytes()


def test_an_interrupted_file_goes_on_behind_its_last_whole_line(mixture, generator, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_pseudo_labels(whole, mixture, 10, generator, MADE_FROM)
    content = whole.read_bytes()
    for place in (0, 10, content.find(b"\n") + 1, len(content) // 2, len(content) - 1, len(content)):
        cut.write_bytes(content[:place])
        write_pseudo_labels(cut, mixture, 10, generator, MADE_FROM)
        assert cut.read_bytes() == content


def test_a_file_made_from_something_else_is_refused(mixture, generator, tmp_path):
    path = tmp_path / "labels.jsonl"
    write_pseudo_labels(path, mixture, 2, generator, MADE_FROM)
    before = path.read_bytes()
    with pytest.raises(InputError, match="made from something else: seed differ"):
        write_pseudo_labels(path, mixture, 4, generator, {**MADE_FROM, "seed": 2})
    assert path.read_bytes() == before


def test_files_that_hold_no_examples_are_refused(tmp_path):
    path = tmp_path / "labels.jsonl"
    with pytest.raises(InputError, match="no pseudo-labels"):
        read_pseudo_labels(path)
    path.write_text('{"format": "mengzi-mt/pseudo-labels/1", "made_from": {}}\n')
    with pytest.raises(InputError, match="holds no pseudo-label"):
        read_pseudo_labels(path)
    path.write_text('{"format": "other"}\n')
    with pytest.raises(InputError, match="line 1"):
        read_pseudo_labels(path)
    path.write_text('{"format": "mengzi-mt/pseudo-labels/1", "made_from": {}}\n{"inputs": "a"}\n')
    with pytest.raises(InputError, match="line 2"):
        read_pseudo_labels(path)


class Gold:
    def examples(self, start, stop):
        return list(range(start, stop))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_the_positions_is_pseudo_labelled_wherever_one_looks(tokenizer, share):
    encoder = Encoder(tokenizer)
    pseudo = [TextExample(f"问题{n}", f"答案{n}", None, (), 1.0, "lcqmc", "t", str(n)) for n in range(3)]
    stream = WithPseudoLabels(Gold(), pseudo, share, encoder, Limits(32, 16))
    whole = stream.examples(0, 40)
    told = [place for place, example in enumerate(whole) if not isinstance(example, int)]
    assert len(told) == 40 * share
    assert [whole[place].row_id for place in told] == [str(n % 3) for n in range(len(told))]
    assert all(example == place for place, example in enumerate(whole) if isinstance(example, int))
    assert [one for start in range(0, 40, 7) for one in stream.examples(start, min(40, start + 7))] == whole
    assert whole[told[1]].targets == encoder.target("答案1")
