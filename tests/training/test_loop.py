import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

import mengzi_mt
from mengzi_mt.config import LengthSettings, TrainingSettings, dump_recipe
from mengzi_mt.data.examples import TextExample
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.errors import InputError, RunError
from mengzi_mt.models.devices import pick_device
from mengzi_mt.training import loop
from mengzi_mt.training.batches import make_step_batch
from mengzi_mt.training.checkpoint import list_checkpoints, read_manifest
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.loop import train
from mengzi_mt.training.losses import LossModule, accumulate, validation_loss
from mengzi_mt.training.run_status import MEASURED, read_status

CPU = torch.device("cpu")
TIMES = MEASURED


class Killed(BaseException):
    pass


def metrics(run_dir):
    """What the run logged, less the times."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def same_weights(a, b):
    a, b = (load_file(str(folder / "model.safetensors")) for folder in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def kill_at(monkeypatch, step):
    """Ends the next run as abruptly as a signal would, in its ``step``-th step from now."""
    calls = iter(range(1, 10_000))

    def killed(*args):
        if next(calls) == step:
            raise Killed
        return accumulate(*args)

    monkeypatch.setattr(loop, "accumulate", killed)


@pytest.mark.parametrize("layout", ["flat", "packed"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tokens", [1, 100, 150])
def test_any_micro_batch_size_gives_the_same_gradient(tiny_model, tokenizer, tied, tokens, layout):
    model = tiny_model(tied=tied).eval()
    texts = ["今天天气", "好", "公园里有很多人在散步", "一二三四五六"]
    examples = [TextExample(text, text[::-1], None, (), 0.5 + n, "a", "t", "r") for n, text in enumerate(texts * 6)]
    lengths = LengthSettings(max_input=24, max_target=24, rows=((24, 24),))

    def gradients(micro_batch_tokens):
        model.zero_grad()
        batch = make_step_batch(examples, Encoder(tokenizer), lengths, micro_batch_tokens, 0, layout=layout)
        settings = TrainingSettings(steps=1, device="cpu")
        loss = accumulate(LossModule(model, settings), batch, Devices(settings))
        return len(batch.batches), loss, torch.cat([p.grad.flatten() for p in model.parameters()])

    whole, loss, expected = gradients(100_000)
    parts, loss_of_parts, found = gradients(tokens)
    assert whole == 1 < parts
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_loss_falls_and_the_final_checkpoint_loads(make_run):
    run = make_run(training={"steps": 20, "log_every": 10, "checkpoint_every": 100}, model={"dropout": 0.0})
    final = train(run)
    first, last = metrics(run.recipe.run_dir)
    assert last["loss"] < first["loss"]
    assert (final.name, [path.name for path in list_checkpoints(run.recipe.run_dir)]) == ("final", ["step-0000020"])
    loaded = AutoModelForSeq2SeqLM.from_pretrained(final)
    assert torch.equal(loaded.lm_head.weight, run.model.lm_head.weight)


def test_manifest_says_what_the_checkpoint_is_made_of(make_run):
    run = make_run()
    manifest = read_manifest(train(run))
    assert manifest["step"] == 6
    assert manifest["recipe"] == run.recipe.model_dump(mode="json")
    assert manifest["mixture"] == {"lcqmc": 0.5, "finre": 0.5}
    assert sum(sum(templates.values()) for templates in manifest["examples"].values()) == 36
    assert manifest["counters"]["examples"] + manifest["counters"]["too_long"] == 36
    assert manifest["counters"]["tokens"] > 0
    assert manifest["zero_shot_tasks_trained_on"] == []
    assert (manifest["data_source"], set(manifest["data"])) == ("sample", {"lcqmc", "finre"})
    assert manifest["versions"]["mengzi_mt"] == mengzi_mt.__version__


@pytest.mark.parametrize("optimiser", ["adamw_scaled", "adamw", "adafactor"])
def test_interrupted_run_logs_and_learns_what_an_uninterrupted_one_does(make_run, monkeypatch, optimiser):
    settings = {"optimiser": {"name": optimiser}, "training": {"steps": 9, "log_every": 2, "validate_every": 4}}
    whole = train(make_run("whole", **settings))
    run = make_run("broken", **settings)
    for steps in (5, 5):  # dies in step 5, resumes from step 3, dies in step 8, resumes from step 6
        kill_at(monkeypatch, steps)
        with pytest.raises(Killed):
            train(make_run("broken", **settings))
    monkeypatch.undo()
    final = train(make_run("broken", **settings))
    assert metrics(run.recipe.run_dir) == metrics(whole.parent)
    assert [line["step"] for line in metrics(whole.parent)] == [2, 4, 4, 6, 8, 8, 9, 9]
    assert same_weights(final, whole)
    ignored = {"recipe", "files"}
    broken, unbroken = ({k: v for k, v in read_manifest(f).items() if k not in ignored} for f in (final, whole))
    assert broken == unbroken


@pytest.fixture
def start_run(make_recipe, tmp_path):
    """Starts ``mengzi-mt train`` in a process (and group) of its own and waits for its first checkpoint."""

    def start(name, **settings):
        recipe = make_recipe(name, **settings)
        path = tmp_path / "recipe.yaml"
        path.write_text(dump_recipe(recipe), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "mengzi_mt", "train", str(path), "--data", "sample"],
            cwd=Path(mengzi_mt.__file__).parents[1],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not list_checkpoints(recipe.run_dir) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return process, recipe

    return start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_run_ended_by_a_signal_at_any_moment_resumes_bit_for_bit(make_run, start_run, number):
    settings = {"training": {"steps": 120, "log_every": 2, "checkpoint_every": 3}}
    process, recipe = start_run("ended", **settings)
    time.sleep(random.random())
    os.killpg(process.pid, number)  # as a terminal or a batch system does: the processes that make batches too
    _, errors = process.communicate(timeout=60)
    saved = list_checkpoints(recipe.run_dir)
    assert saved, errors
    if number != signal.SIGKILL:
        assert f"{number.name}: finishing this step and saving" in errors
        assert f"saved {saved[-1].name}; the same command goes on from there" in errors
        assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
        assert read_status(recipe.run_dir)["outcome"] == "interrupted"
        assert read_status(recipe.run_dir)["step"] <= read_manifest(saved[-1])["step"]
    final = train(make_run("ended", **settings))
    whole = train(make_run("whole", **settings))
    assert metrics(recipe.run_dir) == metrics(whole.parent)
    assert same_weights(final, whole)


def test_truncated_checkpoint_is_passed_over_with_a_warning(make_run, monkeypatch, capsys):
    settings = {"training": {"steps": 9, "log_every": 1}}
    whole = train(make_run("whole", **settings))
    kill_at(monkeypatch, 8)
    with pytest.raises(Killed):
        train(make_run("broken", **settings))
    monkeypatch.undo()
    run = make_run("broken", **settings)
    newest = list_checkpoints(run.recipe.run_dir)[-1]
    os.truncate(newest / "model.safetensors", 1_000)
    capsys.readouterr()
    assert same_weights(train(run), whole)
    said = capsys.readouterr().err
    assert "warning: not resumed from step-0000006: The checkpoint is incomplete: model.safetensors" in said
    assert "resumed from step-0000003" in said
    assert metrics(run.recipe.run_dir) == metrics(whole.parent)


def test_finished_run_is_left_as_it_is(make_run):
    final = train(make_run())
    before = metrics(final.parent), load_file(str(final / "model.safetensors"))
    train(make_run())
    assert metrics(final.parent) == before[0]
    assert all(torch.equal(before[1][key], value) for key, value in load_file(str(final / "model.safetensors")).items())


def test_changed_recipe_is_refused_and_the_key_named(make_run):
    train(make_run())
    with pytest.raises(InputError, match=r"another recipe: optimiser\.learning_rate: 0\.01 there, 0\.02 here") as caught:
        train(make_run(optimiser={"learning_rate": 0.02}))
    assert caught.value.where.endswith("run")
    with pytest.raises(InputError, match=r"mixture\.tasks"):
        train(make_run(mixture={"tasks": ["lcqmc"]}))


def test_what_does_not_change_the_result_may_change(make_run):
    train(make_run())
    train(make_run(description="other words", training={"log_every": 3, "checkpoint_every": 2, "keep_last": 1}))


def test_existing_run_is_refused_without_resuming(make_run):
    train(make_run())
    with pytest.raises(InputError, match="holds checkpoints already"):
        train(make_run(), resume=False)


def test_loss_that_is_no_number_stops_with_the_step_named(make_run, monkeypatch):
    whole = train(make_run("whole"))
    calls = iter(range(1, 100))
    monkeypatch.setattr(loop, "accumulate", lambda *args: float("nan") if next(calls) == 5 else accumulate(*args))
    with pytest.raises(RunError, match=r"loss is nan and the gradient norm .* at step 5") as caught:
        train(make_run())
    assert "examples at positions 24 to 29" in caught.value.where
    monkeypatch.undo()
    assert same_weights(train(make_run()), whole)


def test_weights_that_are_no_numbers_stop_the_first_step(make_run):
    run = make_run()
    run.model.shared.weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="loss is nan and the gradient norm nan at step 1"):
        train(run)
    assert list_checkpoints(run.recipe.run_dir) == []


def test_full_disk_stops_the_run_and_it_resumes(make_run, monkeypatch):
    whole = train(make_run("whole"))

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mengzi_mt.training.checkpoint._sync", full)
        with pytest.raises(RunError, match="could not be written"):
            train(make_run())
    assert same_weights(train(make_run()), whole)


def test_validation_leaves_the_run_as_it_is_and_its_scores_are_logged(make_run):
    plain = train(make_run("plain", training={"validate_every": 0}))
    seen = []

    def validate(model, step):
        seen.append((step, model.training))
        model.eval()
        return {"accuracy": 0.5}

    run = make_run("validated", training={"validate_every": 3})
    assert same_weights(train(run, validate=validate), plain)
    assert [step for step, _ in seen] == [3, 6]
    lines = [line for line in metrics(run.recipe.run_dir) if "validation_loss" in line]
    assert [line["scores"] for line in lines] == [{"accuracy": 0.5}] * 2
    assert set(lines[0]["validation_losses"]) == {"lcqmc", "finre"}


def test_validation_loss_is_the_mean_over_tokens_without_dropout(make_run):
    run = make_run(model={"dropout": 0.5})
    encoder, examples = Encoder(run.tokenizer), run.validation["lcqmc"]
    run.model.train()
    settings = run.recipe.training
    module, devices = LossModule(run.model, settings), Devices(settings)
    loss = validation_loss(module, run.model, examples, encoder, run.recipe, devices)
    assert loss == validation_loss(module, run.model, examples, encoder, run.recipe, devices)
    assert run.model.training
    run.model.eval()
    total = tokens = 0
    for example in examples:
        targets = encoder.target(example.targets)
        output = run.model(input_ids=torch.tensor([encoder.inputs(example, 96)[0]]), labels=torch.tensor([targets]))
        total, tokens = total + output.loss.item() * len(targets), tokens + len(targets)
    assert loss == pytest.approx(total / tokens, rel=1e-5)


def test_validation_examples_that_all_are_too_long_do_not_end_the_run(make_run, capsys):
    run = make_run(training={"validate_every": 6})
    run.validation["lcqmc"] = [TextExample("长" * 500, "是", None, (), 1.0, "lcqmc", "t", "r")]
    train(run)
    assert "warning: no validation loss of lcqmc: None of the 1 examples" in capsys.readouterr().err
    assert set(metrics(run.recipe.run_dir)[-1]["validation_losses"]) == {"finre"}


def test_bfloat16_runs_with_float32_weights(make_run):
    run = make_run(training={"precision": "bfloat16", "steps": 2})
    train(run)
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}


def test_device_that_cannot_be_used_is_an_input_error():
    assert pick_device("cpu", "training.device") == CPU
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(InputError, match=f"device '{name}' cannot be used"):
            pick_device(name, "training.device")


def test_averaged_weights_are_saved_and_survive_an_interruption(make_run, monkeypatch):
    settings = {"training": {"steps": 9, "log_every": 2, "validate_every": 4, "ema": 0.9}}
    whole = train(make_run("whole", **settings))
    kill_at(monkeypatch, 5)
    with pytest.raises(Killed):
        train(make_run("broken", **settings))
    monkeypatch.undo()
    assert same_weights(whole, train(make_run("broken", **settings)))
    plain = train(make_run("plain", training={**settings["training"], "ema": None}))
    assert not same_weights(whole, plain)


def test_frozen_weights_stay_as_they_were(make_run):
    run = make_run(training={"steps": 3, "freeze": ["encoder.*"]})
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    train(run)
    after = run.model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all("encoder.block" not in name for name in moved)


def test_early_stopping_ends_the_run_and_keeps_the_best_checkpoint(make_run):
    stopping = {"patience": 2, "keep_best": True, "score": "validation_loss", "mode": "max"}  # a falling loss only gets worse
    training = {"steps": 30, "validate_every": 2, "checkpoint_every": 2, "keep_last": 1}
    run = make_run(training=training, stopping=stopping, data={"validation_rows": 8}, model={"dropout": 0.0})
    final = train(run)
    steps = [line["step"] for line in metrics(run.recipe.run_dir) if "validation_loss" in line]
    assert steps[-1] < 30
    kept = [path.name for path in list_checkpoints(run.recipe.run_dir)]
    assert len(kept) == 2
    assert read_manifest(final)["step"] == steps[-1]


def test_losses_and_tokens_are_logged_by_task(make_run):
    run = make_run(training={"steps": 4, "log_every": 4})
    train(run)
    (line,) = metrics(run.recipe.run_dir)
    assert set(line["task_loss"]) == set(line["task_tokens"]) == set(line["task_examples"]) == {"lcqmc", "finre"}
    assert line["padding"] == 0
    assert sum(line["task_tokens"].values()) == line["tokens_seen"]
