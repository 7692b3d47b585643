import json

import pytest

from mengzi_mt.config import Recipe, StoppingSettings
from mengzi_mt.errors import InputError
from mengzi_mt.training.checkpoint import MANIFEST, checkpoint_path, prune_checkpoints
from mengzi_mt.training.stopping import BestScore


def follow(settings, values):
    best = BestScore(StoppingSettings(**settings))
    return best, [best.update(step, {"step": step, "validation_loss": value}) for step, value in enumerate(values, 1)]


def test_stops_after_patience_validations_without_a_better_one():
    best, verdicts = follow({"patience": 2}, [3.0, 2.0, 2.5, 1.5, 1.6, 1.5])
    assert [verdict.improved for verdict in verdicts] == [True, True, False, True, False, False]
    assert [verdict.stop for verdict in verdicts] == [False] * 5 + [True]
    assert (best.value, best.step) == (1.5, 4)
    assert best.sentence() == "best validation_loss 1.5000 at step 4, 2 validations ago"


def test_small_gains_do_not_count_but_are_not_lost():
    best, verdicts = follow({"min_delta": 0.1}, [2.0, 1.95, 1.91, 1.89])
    assert [verdict.improved for verdict in verdicts] == [True, False, False, True]
    assert not any(verdict.stop for verdict in verdicts)
    assert best.value == 1.89


def test_max_mode_nested_score_and_nan():
    best = BestScore(StoppingSettings(score="scores.eprstmt.accuracy", mode="max", patience=1))
    record = lambda value: {"step": 1, "scores": {"eprstmt": {"accuracy": value}}}  # noqa: E731
    assert best.update(1, record(float("nan"))).improved is False
    assert best.update(2, record(0.5)).improved
    assert best.update(3, record(0.4)).stop
    assert best.update(4, record(float("inf"))).improved is False
    assert best.value == 0.5


def test_resumed_run_stops_where_an_uninterrupted_one_does():
    values = [3.0, 2.0, 2.5, 2.4, 2.3]
    settings = StoppingSettings(patience=3)
    _, whole = follow({"patience": 3}, values)
    first, _ = follow({"patience": 3}, values[:3])
    second = BestScore(settings)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.update(step, {"validation_loss": values[step - 1]}) for step in (4, 5)] == whole[3:]
    other = BestScore(StoppingSettings(score="scores.x"))
    other.load_state_dict(first.state_dict())
    assert other.value is None


def test_a_missing_score_names_those_there_are():
    with pytest.raises(InputError, match=r"no score 'validation_losses.lcqcm'.*stopping.score.*'validation_losses.lcqmc'"):
        BestScore(StoppingSettings(score="validation_losses.lcqcm")).update(
            1, {"step": 1, "validation_loss": 1.0, "validation_losses": {"lcqmc": 1.0}}
        )


@pytest.mark.parametrize("stopping", [{"patience": 2}, {"keep_best": True}])
def test_stopping_needs_validations(stopping):
    raw = {
        "name": "x", "model": {"shape": "micro", "tokenizer": "train"}, "mixture": {"tasks": ["lcqmc"]},
        "training": {"steps": 1}, "stopping": stopping,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"training.validate_every"):
        Recipe.model_validate(raw)
    raw["training"]["validate_every"] = 1
    assert Recipe.model_validate(raw).stopping.watched


def test_best_checkpoint_outlives_the_last_ones(tmp_path):
    for step in range(1, 7):
        folder = checkpoint_path(tmp_path, step)
        folder.mkdir()
        (folder / "weights").write_bytes(b"w")
        (folder / MANIFEST).write_text(json.dumps({"files": {"weights": 1}}))

    def left():
        return sorted(int(path.name[-7:]) for path in tmp_path.iterdir())

    (checkpoint_path(tmp_path, 5) / "weights").write_bytes(b"")  # torn: takes no place
    prune_checkpoints(tmp_path, 2, best_step=2)
    assert left() == [2, 4, 6]
    prune_checkpoints(tmp_path, 2, best_step=6)
    assert left() == [4, 6]
    prune_checkpoints(tmp_path, 1, best_step=3)
    assert left() == [6]
