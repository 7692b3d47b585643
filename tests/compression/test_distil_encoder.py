import math
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from mengzi_mt.compression.distil_encoder import RelationGuide, distil_encoder, set_up_encoder_distillation
from mengzi_mt.compression.distil_recipe import EncoderDistilRecipe, RelationSettings
from mengzi_mt.errors import InputError
from mengzi_mt.models.tokenizer import train_tokenizer
from mengzi_mt.pretraining import encoder_loop
from mengzi_mt.pretraining.encoder_batches import collate
from mengzi_mt.pretraining.encoder_examples import UNKNOWN, EncoderExample
from mengzi_mt.pretraining.encoder_losses import EncoderLosses
from mengzi_mt.pretraining.encoder_models import ObjectiveHeads, build_encoder, give_roles, save_encoder
from mengzi_mt.training.run_status import MEASURED, read_metrics

KINDS = {"bert": (BertConfig, BertForMaskedLM), "roberta": (RobertaConfig, RobertaForMaskedLM)}


def random_encoder(kind="bert", hidden=24, heads=4, layers=2, seed=0):
    config, model = KINDS[kind]
    torch.manual_seed(seed)
    made = model(
        config(
            vocab_size=60, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=32,
            pad_token_id=0, type_vocab_size=2, initializer_range=0.3, attn_implementation="eager",
        )
    )  # fmt: skip
    return made.double().eval()


@pytest.fixture
def batch():
    random = np.random.default_rng(4)
    made = []
    for length in (9, 6, 3):
        original = random.integers(3, 60, length)
        chosen = np.zeros(length, bool)
        chosen[1] = True
        read = np.where(chosen, 2, original)
        text = np.ones(length, bool)
        made.append(EncoderExample(read, original, np.zeros(length, np.int64), text, chosen, None, None, UNKNOWN))
    return collate(made, 0, np.ones(len(made), np.float32))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0)


def slowly(teacher, student, batch, ids, method, heads):
    """Each token's divergences from transformers' own attentions and hooked projections, text by text."""
    runs = []
    for model in (teacher, student):
        kept = {}
        attention = model.base_model.encoder.layer[-1].attention.self
        hooks = [
            getattr(attention, name).register_forward_hook(lambda _, __, out, name=name, kept=kept: kept.__setitem__(name, out))
            for name in ("query", "key", "value")
        ]
        with torch.no_grad():
            output = model.base_model(
                input_ids=ids, attention_mask=batch.mask.long(), token_type_ids=batch.segments, output_attentions=True
            )
        for hook in hooks:
            hook.remove()
        runs.append((output.attentions[-1], kept))
    found = []
    for text, length in enumerate(batch.mask.sum(1).tolist()):

        def relation(run, name, number, text=text, length=length):
            rows = run[1][name][text, :length]
            size = rows.shape[1] // number
            parts = [rows[:, h * size : (h + 1) * size] for h in range(number)]
            return torch.stack([(part @ part.T / size**0.5).softmax(-1) for part in parts])

        if method == "minilm":
            kinds = [[run[0][text, :, :length, :length] for run in runs]]
            kinds.append([relation(run, "value", teacher.config.num_attention_heads) for run in runs])
            share = 1.0
        else:
            kinds = [[relation(run, name, heads) for run in runs] for name in ("query", "key", "value")]
            share = 1 / 3
        for row in range(length):
            found.append(share * sum(kl(p[h, row], q[h, row]) / len(p) for p, q in kinds for h in range(len(p))))
    return found


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["minilm", "minilmv2"])
@pytest.mark.parametrize("mlm", [0.0, 0.5])
def test_relations_are_those_of_transformers_own_pass(batch, kind, method, mlm):
    same = method == "minilm"
    teacher, student = random_encoder(kind, layers=3), random_encoder(kind, 12, 4 if same else 2, seed=1)
    heads = None if same else 6
    guide = RelationGuide(teacher, student, RelationSettings(method=method, heads=heads), "float32", mlm)
    module = EncoderLosses(student, ObjectiveHeads(12, {}, False).double(), guide=guide)
    found = module(batch)
    whole = batch.input_ids.flatten().clone()
    if not mlm:
        whole[batch.restored] = batch.originals
    expected = slowly(teacher, student, batch, whole.view_as(batch.input_ids), method, heads)
    assert len(expected) == batch.tokens
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found["relations"].losses.detach(), wanted, rtol=1e-8, atol=1e-10)
    assert found.keys() == ({"relations", "mlm"} if mlm else {"relations"})
    found["relations"].losses.sum().backward()
    last = student.base_model.encoder.layer[-1].attention.self
    assert last.query.weight.grad.abs().sum() > 0
    assert all(value.grad is None for value in teacher.parameters())


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory, tokenizer_dir):
    from mengzi_mt.models.tokenizer import load_tokenizer
    from mengzi_mt.training.checkpoint import save_tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = load_tokenizer(tokenizer_dir)
    give_roles(tokenizer)
    save_tokenizer(tokenizer, folder)
    model = build_encoder("mini", tokenizer, dropout=0.0, seed=3)
    with torch.no_grad():  # a fresh encoder attends evenly, which would leave nothing to learn
        for layer in model.base_model.encoder.layer:
            layer.attention.self.query.weight *= 6
            layer.attention.self.value.weight *= 3
    save_encoder(model, ObjectiveHeads(256, {}, False), folder)
    return folder


@pytest.fixture
def make_recipe(text_corpus, tokenizer_dir, teacher_dir, tmp_path):
    def make(output="run", **changes):
        raw = {
            "name": "tiny", "seed": 5, "output": str(tmp_path / output), "corpus": str(text_corpus),
            "teacher": {"model": str(teacher_dir), "precision": "float32"},
            "student": {"shape": "micro", "dropout": 0.1},
            "optimiser": {"name": "adamw", "learning_rate": 1e-3, "warmup": 2, "schedule": "linear"},
            "training": {"steps": 4, "batch": 6, "window": 24, "micro_batch_tokens": 128, "device": "cpu", "workers": 0,
                         "held_out": 0.1, "log_every": 1, "checkpoint_every": 2, "validate_every": 4, "validation_windows": 16},
            "tracking": {"progress": "none", "peak_tflops": 1.0},
        }  # fmt: skip
        for key, value in changes.items():
            raw[key] = {**raw[key], **value} if key == "training" else value
        raw["student"]["tokenizer"] = str(tokenizer_dir)  # the teacher's gained roles, which the corpus's does not have
        return EncoderDistilRecipe.model_validate(raw)

    return make


def records(recipe):
    kept = [{k: v for k, v in one.items() if k not in MEASURED} for one in read_metrics(recipe.run_dir / "metrics.jsonl")]
    return [one for one in kept if one]


def test_an_interrupted_run_goes_on_bit_for_bit(make_recipe, monkeypatch):
    whole, cut = make_recipe("whole", mlm=0.5), make_recipe("cut", mlm=0.5)
    distil_encoder(whole)
    steps, real = [], encoder_loop.accumulate

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(encoder_loop, "accumulate", interrupted)
    with pytest.raises(SystemExit, match="143"):
        distil_encoder(cut)
    final = distil_encoder(cut)
    assert len(steps) == 4
    assert records(cut) == records(whole)
    assert records(whole)[0]["task_loss"].keys() == {"relations", "mlm"}
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (final, whole.run_dir / "final"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_student_of_the_teachers_layers_comes_nearer(make_recipe):
    settings = {"steps": 20, "batch": 12, "validate_every": 10, "micro_batch_tokens": 1000}
    recipe = make_recipe(student={"layers": [0, 3], "dropout": 0.0}, training=settings)
    final = distil_encoder(recipe)
    first, last = (one for one in records(recipe) if "validation_loss" in one)
    assert last["validation_losses"].keys() == {"relations"}
    assert not last["scores"]
    logged = [one["loss"] for one in records(recipe) if "loss" in one]
    assert last["validation_loss"] < first["validation_loss"] < logged[0]
    assert AutoModelForMaskedLM.from_pretrained(final).config.num_hidden_layers == 2


def test_all_of_the_teachers_layers_have_nothing_to_learn(make_recipe):
    recipe = make_recipe(student={"layers": [0, 1, 2, 3], "dropout": 0.0}, training={"steps": 1})
    distil_encoder(recipe)
    (first, *_) = [one for one in records(recipe) if "loss" in one]
    assert first["loss"] == pytest.approx(0.0, abs=1e-6)


def test_what_does_not_fit_is_refused(make_recipe, sample_texts, tmp_path):
    with pytest.raises(ValueError, match="a student learns relations"):
        make_recipe(objectives={"whole_words": False, "order": "sop"})
    with pytest.raises(InputError, match="no layer 9"):
        set_up_encoder_distillation(make_recipe(relations={"teacher_layer": 9}))
    with pytest.raises(InputError, match="7 relation heads do not divide"):
        set_up_encoder_distillation(make_recipe(relations={"heads": 7}))
    other = tmp_path / "other"
    tokenizer = train_tokenizer(sample_texts[:800], other, 1_700, character_coverage=0.98, threads=1, partial=True)
    give_roles(tokenizer)
    tokenizer.save_pretrained(str(other))
    save_encoder(build_encoder("micro", tokenizer), ObjectiveHeads(128, {}, False), other)
    with pytest.raises(InputError, match="different tokenizers"):
        set_up_encoder_distillation(make_recipe(teacher={"model": str(other)}))
