import pytest
import torch

from mengzi_mt.compression.distil_objective import Distillation
from mengzi_mt.compression.distil_recipe import LogitSettings, LossSettings, PlacedRelationSettings
from mengzi_mt.config import TrainingSettings
from mengzi_mt.data.flat import flat_batch
from mengzi_mt.errors import InputError
from mengzi_mt.models.cross_entropy import LossSettings as TokenTerms
from mengzi_mt.models.flat import flat_loss
from mengzi_mt.training.losses import LossModule

STEP = 3e-4
"""The attention's softmax is made in float32, so steps must be large beside its rounding."""
EVERYTHING = {"hard": 0.5, "logits": LogitSettings(weight=0.5), "relations": PlacedRelationSettings(method="minilmv2", heads=4)}


def losses(method="minilmv2", heads=None, **given):
    relations = PlacedRelationSettings(method=method, heads=heads, **given.pop("relations", {}))
    return LossSettings(**{"hard": 1.0, "relations": relations, **given})


def whole(model, examples):
    """Of a plain eager pass of transformers over padded rows: attention distributions by place, projections of the last layers."""
    model.set_attn_implementation("eager")
    longest, targets = max(len(one.inputs) for one in examples), max(len(one.targets) for one in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    decoder_ids = torch.zeros(len(examples), targets, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example.inputs)] = torch.tensor(example.inputs)
        mask[row, : len(example.inputs)] = 1
        decoder_ids[row, 1 : len(example.targets)] = torch.tensor(example.targets[:-1])
    kept = {}
    places = {
        "encoder": model.encoder.block[-1].layer[0].SelfAttention,
        "decoder": model.decoder.block[-1].layer[0].SelfAttention,
        "cross": model.decoder.block[-1].layer[1].EncDecAttention,
    }
    hooks = [
        getattr(layer, part).register_forward_hook(lambda _, __, out, key=(name, part): kept.__setitem__(key, out))
        for name, layer in places.items()
        for part in "qkv"
    ]
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    attentions = {
        "encoder": output.encoder_attentions[-1],
        "decoder": output.decoder_attentions[-1],
        "cross": output.cross_attentions[-1],
    }
    return attentions, kept


def kl(p, q):
    there = p > 0
    return float((p[there] * (p[there] / q[there]).log()).sum())


def slow_relations(teacher, student, examples, name, method, heads):
    """From transformers' own attentions (minilm) and hooked projections, example by example and row by row."""
    runs = [whole(model, examples) for model in (teacher, student)]
    total = 0.0
    for number, example in enumerate(examples):
        weight = example.weight * len(example.targets)
        asking = len(example.targets if name != "encoder" else example.inputs)
        asked = len(example.targets if name == "decoder" else example.inputs)
        sizes = {"q": asking, "k": asked, "v": asked}

        def relation(run, model, one, other, number_of_heads, number=number, sizes=sizes):
            left, right = (run[1][name, part][number, : sizes[part]] for part in (one, other))
            size = left.shape[1] // number_of_heads
            scale = model.config.d_kv ** (0.5 * (one + other).count("q")) / size**0.5
            scores = torch.stack(
                [left[:, h * size : (h + 1) * size] @ right[:, h * size : (h + 1) * size].T * scale for h in range(number_of_heads)]
            )
            if name == "decoder":
                scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
            return scores.softmax(-1)

        if method == "minilm":
            own_heads = teacher.config.num_heads
            kinds = [
                [run[0][name][number, :, :asking, :asked] for run in runs],
                [relation(run, model, "v", "v", own_heads) for run, model in zip(runs, (teacher, student), strict=True)],
            ]
            share = 1.0
        else:
            pairs = [("q", "k"), ("v", "v")] if name == "cross" else [("q", "q"), ("k", "k"), ("v", "v")]
            kinds = [[relation(run, m, *pair, heads) for run, m in zip(runs, (teacher, student), strict=True)] for pair in pairs]
            share = 1 / len(pairs)
        for p, q in kinds:
            rows = [kl(p[head, row], q[head, row]) for head in range(p.shape[0]) for row in range(p.shape[1])]
            total += share * weight * sum(rows) / len(rows)
    return total


@pytest.mark.parametrize("place", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("method", ["minilm", "minilmv2"])
def test_relations_are_those_of_transformers_own_pass(random_t5, examples, batch, place, method):
    teacher, student = random_t5(layers=3), random_t5(d_model=24, width=6, seed=1)
    heads = 8 if method == "minilmv2" else None
    only = {name: float(name == place) for name in ("encoder", "decoder", "cross")}
    objective = Distillation(teacher, student, losses(method, heads, relations=only), "float32", 60)
    total, cross_entropies = objective.loss(student, batch, TokenTerms(), recompute=False)
    plain, expected_losses = flat_loss(student, batch)
    expected = slow_relations(teacher, student, examples, place, method, heads)
    assert expected > 0.01
    assert (total - plain).item() == pytest.approx(expected, rel=1e-6)  # the batch's weights are float32
    torch.testing.assert_close(cross_entropies, expected_losses)
    (parts,) = [objective.parts(Alone(), 2.0)]
    assert parts.keys() == {"cross_entropy", place}
    assert parts[place] == pytest.approx(expected / 2, rel=1e-6)


class Alone:
    def total(self, *values):
        return list(values)


def test_places_and_kinds_add_up_by_their_weights(random_t5, batch):
    teacher, student = random_t5(seed=2), random_t5(seed=3)
    settings = LossSettings(
        hard=0.25, logits=LogitSettings(weight=0.5, temperature=3),
        relations=PlacedRelationSettings(heads=2, encoder=2.0, decoder=0.0, cross=0.5),
    )  # fmt: skip
    objective = Distillation(teacher, student, settings, "float32", 60)
    total, _ = objective.loss(student, batch, TokenTerms(), recompute=False)
    parts = objective.parts(Alone(), 1.0)
    assert parts.keys() == {"cross_entropy", "logits", "encoder", "cross"}
    expected = 0.25 * parts["cross_entropy"] + 0.5 * parts["logits"] + 2.0 * parts["encoder"] + 0.5 * parts["cross"]
    assert total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["minilm", "minilmv2"])
def test_a_student_that_is_the_teacher_has_nothing_to_learn(random_t5, batch, method):
    one = random_t5()
    settings = LossSettings(hard=0.0, logits=LogitSettings(), relations=PlacedRelationSettings(method=method))
    total, _ = Distillation(random_t5(), one, settings, "float32", 60).loss(one, batch, TokenTerms(), recompute=False)
    assert total.item() == pytest.approx(0.0, abs=1e-9)
    total.backward()
    assert max(value.grad.abs().max() for value in one.parameters() if value.grad is not None) < 1e-9


def gradients(objective, model, batches, **options):
    model.zero_grad()
    total = 0.0
    for batch in batches:
        value, _ = objective.loss(model, batch, TokenTerms(), recompute=options.get("recompute", False))
        value.backward()
        total += value.item()
    return total, torch.cat([value.grad.flatten() for value in model.parameters()])


def test_cutting_a_step_or_recomputing_changes_nothing(random_t5, examples, batch):
    teacher, student = random_t5(seed=2), random_t5(seed=3)
    objective = Distillation(teacher, student, LossSettings(**EVERYTHING), "float32", 60)
    loss, expected = gradients(objective, student, [batch])
    parts = [flat_batch(examples[:2], 0), flat_batch(examples[2:], 0)]
    for found in (gradients(objective, student, parts), gradients(objective, student, [batch], recompute=True)):
        assert found[0] == pytest.approx(loss, rel=1e-9)
        torch.testing.assert_close(found[1], expected, rtol=1e-6, atol=1e-9)
    assert all(value.grad is None for value in teacher.parameters())


def test_gradients_are_those_of_small_steps(random_t5, batch):
    teacher, student = random_t5(d_model=16, heads=2, width=4, seed=2), random_t5(d_model=12, heads=3, width=4, seed=3)
    objective = Distillation(teacher, student, LossSettings(**EVERYTHING), "float32", 60)
    _, found = gradients(objective, student, [batch])
    generator = torch.Generator().manual_seed(0)
    flat = torch.nn.utils.parameters_to_vector(student.parameters()).detach()
    for _ in range(3):
        way = torch.randn(len(flat), generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(flat + sign * STEP * way, student.parameters())
            ends.append(objective.loss(student, batch, TokenTerms(), recompute=False)[0].item())
        assert (ends[0] - ends[1]) / (2 * STEP) == pytest.approx(float(found @ way), rel=1e-3)


def test_a_bfloat16_teacher_is_close_and_the_student_stays_exact(random_t5, batch):
    teacher, student = random_t5(seed=2).float(), random_t5(seed=3).float()
    exact = Distillation(random_t5(seed=2).float(), student, LossSettings(**EVERYTHING), "float32", 60)
    rounded = Distillation(teacher, student, LossSettings(**EVERYTHING), "bfloat16", 60)
    assert teacher.decoder.block[0].layer[0].SelfAttention.q.weight.dtype == torch.bfloat16
    assert teacher.shared.weight.dtype == torch.float32
    module = LossModule(student.train(), TrainingSettings(steps=1), rounded)
    found, token_losses = module(batch)
    expected, _ = exact.loss(student, batch, TokenTerms(), recompute=False)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    torch.testing.assert_close(token_losses, flat_loss(student, batch)[1])
    module.eval()
    torch.testing.assert_close(module(batch)[0], flat_loss(student, batch)[0])


def test_shapes_that_do_not_fit_are_refused(random_t5):
    teacher = random_t5()
    with pytest.raises(InputError, match="minilm pairs them"):
        Distillation(teacher, random_t5(heads=2), losses("minilm"), "float32", 60)
    with pytest.raises(InputError, match="no layer 7"):
        Distillation(teacher, random_t5(), losses(relations={"teacher_layer": 7}), "float32", 60)
    with pytest.raises(InputError, match="The student has 50 pieces, the tokenizer 60"):
        Distillation(teacher, random_t5(vocabulary=50), losses(), "float32", 60)
