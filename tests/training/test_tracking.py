import json

import pytest
import torch

from mengzi_mt.data.flat import flat_batches
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError
from mengzi_mt.models.flat import flat_loss
from mengzi_mt.training import tracking
from mengzi_mt.training.flops import Work, training_flops
from mengzi_mt.training.freezing import freeze
from mengzi_mt.training.run_status import MEASURED, outcome_now, read_metrics, read_status
from mengzi_mt.training.task_losses import TaskLosses
from mengzi_mt.training.tracking import Processes, Tracker, peak_memory

TASKS = ["lcqmc", "finre"]
CPU = torch.device("cpu")


class Clock:
    """A clock that stands still unless it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tracking, "perf_counter", clock)
    return clock


@pytest.fixture
def start(make_recipe, tiny_model, clock):
    """Makes a tracker whose device does 1 MFLOP/s."""

    def make(first_step=0, state=None, processes=None, model=None, **settings):
        recipe = make_recipe(training={"steps": 10}, tracking={"progress": "plain", "peak_tflops": 1e-6, **settings})
        recipe.run_dir.mkdir(exist_ok=True)
        return Tracker(recipe, TASKS, model or tiny_model(), CPU, first_step, state, processes)

    return make


@pytest.fixture
def lines(make_recipe):
    return lambda: read_metrics(make_recipe().run_dir / "metrics.jsonl")


def test_a_record_holds_the_interval(start, clock, lines, capsys, tiny_model):
    tracker = start()
    work = Work.of_lengths([(30, 4), (20, 6)])
    for loss in (1.0, torch.tensor(2.0)):
        with tracker.waiting():
            clock.now += 0.5
        clock.now += 1.5
        tracker.step(loss, 60, 80, {"lcqmc": 3, "finre": 1}, {"lcqmc": 40, "finre": 20}, work)
    tracker.task_losses.add(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0, 0, 1]))
    with tracker.paused():
        clock.now += 100
    tracker.log(2, 0.5, 1e-3)
    (record,) = lines()
    assert record["step"] == 2 and record["loss"] == 1.5 and record["padding"] == 0.25
    assert (record["gradient_norm"], record["learning_rate"]) == (0.5, 1e-3)
    assert (record["seconds"], record["step_seconds"], record["tokens_per_second"]) == (4.0, 2.0, 30.0)
    assert record["data_wait"] == 0.25 and record["elapsed"] == 104.0 and record["tokens_seen"] == 120
    assert record["task_loss"] == {"lcqmc": 1.5, "finre": 9.0}
    assert record["task_tokens"] == {"lcqmc": 80, "finre": 40} and record["task_examples"] == {"lcqmc": 6, "finre": 2}
    assert record["mfu"] == pytest.approx(2 * training_flops(tiny_model().config, work) / 4.0 / 1e6)
    assert record["flops_per_second"] == pytest.approx(record["mfu"] * 1e6)
    assert record["memory_mib"] > 50
    first, shown = capsys.readouterr().err.split("\n", 1)
    assert first == "matrix-product peak 1MFLOP/s, given"
    assert shown.startswith("step 2/10 | loss 1.5000 | grad 0.50 | lr 1.00e-03 | 30 tokens/s | MFU ")
    assert shown.endswith("| padding 25.0% | waiting 25.0% | ETA 0:06:56\n")

    clock.now += 1
    tracker.step(5.0, 80, 80, {"lcqmc": 4})
    tracker.log(3, 0.5, 1e-3)
    second = lines()[1]
    assert (second["loss"], second["padding"], second["tokens_seen"]) == (5.0, 0.0, 200)
    assert second["task_examples"] == {"lcqmc": 4} and "task_loss" not in second and "mfu" not in second


def test_resumed_record_equals_the_uninterrupted_one_but_for_its_times(start, clock, lines):
    def steps(tracker, numbers):
        for number in numbers:
            clock.now += 1
            tracker.task_losses.add(torch.tensor([0.1 * number, 0.7]), torch.tensor([number % 2, 1]))
            tracker.step(torch.tensor(1 / (number + 3)), 50 + number, 90, {"finre": number}, {"finre": number})

    whole = start()
    steps(whole, range(1, 6))
    whole.log(5, 1.0, 1.0)
    (expected,) = lines()

    before = start()
    steps(before, range(1, 4))
    saved = json.loads(json.dumps(before.state_dict()))
    steps(before, range(4, 6))
    before.log(5, 1.0, 1.0)  # beyond the checkpoint: forgotten
    clock.now += 1_000
    after = start(3, saved)
    steps(after, range(4, 6))
    after.log(5, 1.0, 1.0)
    (record,) = lines()
    assert {"loss", "padding", "tokens_seen", "task_loss", "task_tokens", "task_examples"} <= set(record) - MEASURED
    assert {key: record[key] for key in set(record) - MEASURED} == {key: expected[key] for key in set(expected) - MEASURED}
    assert record["elapsed"] == expected["elapsed"]
    assert record["seconds"] == 2.0 and record["tokens_per_second"] == (54 + 55) / 2


def test_lines_after_the_resumed_step_are_forgotten_and_own_records_kept(start, lines):
    tracker = start()
    for step in (2, 4, 6):
        tracker.step(1.0, 1, 1, {})
        tracker.log(step, 1.0, 1.0)
        tracker.record({"step": step, "validation_loss": 0.5, "scores": {"中": 1.0}})
    start(4)
    assert [line["step"] for line in lines()] == [2, 2, 4, 4]
    assert lines()[-1]["scores"] == {"中": 1.0}


def test_two_processes_log_what_one_does(start, clock, lines):
    counted = []

    def gather(vector):
        counted.append(vector)
        return vector

    other = start(processes=Processes(main=False, count=2, reduce=gather))
    other.step(0.25, 40, 50, {"finre": 2}, {"finre": 40})
    other.task_losses.add(torch.tensor([3.0]), torch.tensor([1]))
    assert other.log(1, 1.0, 1.0) == {}
    main = start(processes=Processes(main=True, count=2, reduce=lambda vector: vector + counted[0]))
    clock.now += 2
    main.step(0.5, 60, 70, {"lcqmc": 1, "finre": 1}, {"lcqmc": 60})
    main.task_losses.add(torch.tensor([5.0]), torch.tensor([1]))
    main.log(1, 1.0, 1.0)
    (record,) = lines()
    assert (record["loss"], record["tokens_seen"], record["tokens_per_second"]) == (0.75, 100, 50.0)
    assert record["padding"] == pytest.approx(1 - 100 / 120) and record["step_seconds"] == 2.0
    assert record["task_examples"] == {"lcqmc": 1, "finre": 3} and record["task_loss"] == {"finre": 4.0}


def test_mfu_is_left_out_where_weights_are_frozen(start, tiny_model):
    model = tiny_model()
    freeze(model, ["encoder.block.*"])
    tracker = start(model=model)
    tracker.step(1.0, 10, 10, {}, work=Work.of_lengths([(5, 5)]))
    assert "mfu" not in tracker.log(1, 1.0, 1.0)


def test_a_peak_that_was_measured_on_a_busy_device_is_measured_again(start, clock, monkeypatch, capsys, tiny_model):
    work = Work.of_lengths([(5, 5)])
    speed = training_flops(tiny_model().config, work)
    peaks = [speed / 2, speed * 4, speed * 8]
    monkeypatch.setattr(tracking, "measure_matmul_peak", lambda *arguments: peaks.pop(0))
    tracker = start(peak_tflops=None)
    found = []
    for step in (1, 2):
        tracker.step(1.0, 10, 10, {}, work=work)
        clock.now += 1
        found.append(tracker.log(step, 1.0, 1.0)["mfu"])
    assert found == [0.25, 0.25] and len(peaks) == 1
    assert "measured again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "finished"), (KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted"), (ValueError, "failed")],
)
def test_how_a_run_ended_is_written(start, make_recipe, error, outcome):
    folder = make_recipe().run_dir
    try:
        with start() as tracker:
            assert read_status(folder)["outcome"] == "running" == outcome_now(read_status(folder))
            tracker.step(1.0, 1, 1, {})
            tracker.log(4, 1.0, 1.0)
            if error:
                raise error
    except BaseException as caught:
        assert type(caught) is error
    status = read_status(folder)
    assert (status["outcome"], status["step"], status["steps"]) == (outcome, 4, 10)
    assert outcome_now(status) == outcome


def test_rich_progress_shows_the_averages_and_any_text(start, capsys):
    with start(progress="rich") as tracker:
        tracker.say("step 1: [bold]x[/] validation loss 1.0")
        tracker.step(1.25, 1, 1, {})
        tracker.log(4, 1.0, 1.0)
    shown = capsys.readouterr().err
    assert "[bold]x[/]" in shown and "4/10" in shown and "loss 1.2500" in shown


def test_silence_is_broken_by_warnings_alone(start, capsys):
    with start(progress="none") as tracker:
        tracker.say("resumed")
        tracker.say("warning: something")
        tracker.step(1.0, 1, 1, {})
        tracker.log(1, 1.0, 1.0)
    assert capsys.readouterr().err == "warning: something\n"


def test_measured_peak_gives_a_plausible_mfu(make_recipe, tiny_model):
    recipe = make_recipe(tracking={"progress": "none"})
    recipe.run_dir.mkdir()
    with Tracker(recipe, TASKS, tiny_model(), CPU) as tracker:
        left = torch.randn(512, 512)
        for _ in range(3):
            left @ left
        tracker.step(1.0, 1, 1, {}, work=Work(decoder_tokens=3))
        assert 0 < tracker.log(1, 1.0, 1.0)["mfu"] < 1


def test_task_losses_are_those_of_each_task_computed_apart(make_run, tiny_model):
    """Mixed batches give each task the loss that its examples have alone."""
    run = make_run()
    encoder, model = Encoder(run.tokenizer), tiny_model().eval()
    made = [example for example in encoder.examples(list(run.mixture.examples(0, 16)), Limits(96, 24)) if example]
    tasks = sorted({example.task for example in made})
    assert len(tasks) == 2

    def losses_of(some, seen=None):
        for part in flat_batches(some, 480, 0):
            _, losses = flat_loss(model, part)
            if seen is not None:
                places = torch.tensor([tasks.index(task) for task in part.tasks])
                seen.add(losses, places.repeat_interleave(torch.tensor([n for _, n in part.lengths])))
            yield losses

    together = TaskLosses(2)
    list(losses_of(made, together))
    for number, task in enumerate(tasks):
        alone = torch.cat(list(losses_of([example for example in made if example.task == task])))
        assert together.sums[1, number] == len(alone)
        assert float(together.sums[0, number]) == pytest.approx(alone.double().sum().item(), rel=1e-5)


def test_peak_memory_follows_an_allocation():
    before = peak_memory(CPU)["memory_mib"]
    held = torch.ones(64, 2**20)
    assert peak_memory(CPU)["memory_mib"] >= before + 100 or before > 1_000
    assert held.shape[0] == 64


def test_unknown_progress_is_refused(make_recipe):
    with pytest.raises(ValueError, match="progress"):
        make_recipe(tracking={"progress": "loud"})


def test_without_wandb_the_install_line_is_given(start, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'mengzi-mt\[track\]'"):
        start(wandb=True)
