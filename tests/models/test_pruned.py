"""A model with units removed gives the outputs of the unpruned one with the same units masked, wherever it runs."""

import copy
import json
from functools import partial

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForMaskedLM,
    MT5Config,
    MT5ForConditionalGeneration,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mengzi_mt.data.choice_trees import choice_tree, tree_batch
from mengzi_mt.data.flat import flat_batch
from mengzi_mt.data.tokens import TokenizedExample
from mengzi_mt.errors import InputError
from mengzi_mt.models.decoding import Decoder
from mengzi_mt.models.flat import flat_loss, flat_states
from mengzi_mt.models.flex import flat_line, line_states
from mengzi_mt.models.packed import decode, encode
from mengzi_mt.models.pruned import PrunedAttention, is_plain, keep_layers, pruned_section, remove_units, units_of
from mengzi_mt.models.t5 import is_tied, load_model, parameter_count, save_model
from mengzi_mt.models.tree import TreeDecoder
from mengzi_mt.training.checkpoint import save_checkpoint, write_checkpoint

VOCABULARY = 200
LAYER = "{}.block.{}.layer.{}.{}"
SELF, CROSS, DENSE = "SelfAttention", "EncDecAttention", "DenseReluDense"
UNLIKE = {
    LAYER.format("encoder", 0, 0, SELF): [0, 2],
    LAYER.format("encoder", 1, 0, SELF): [1, 2, 3],
    LAYER.format("decoder", 0, 0, SELF): [3],
    LAYER.format("decoder", 1, 0, SELF): [0, 1],
    LAYER.format("decoder", 0, 1, CROSS): [1],
    LAYER.format("decoder", 1, 1, CROSS): [0, 2, 3],
    LAYER.format("encoder", 0, 1, DENSE): [*range(0, 64, 3)],
    LAYER.format("decoder", 1, 2, DENSE): [*range(5, 40)],
}
"""Every layer has others, and no decoder layer reads column 2 of the table of relative bias."""
ALIKE = {
    **{LAYER.format(stack, layer, 0, SELF): [1, 3] for stack in ("encoder", "decoder") for layer in range(2)},
    **{LAYER.format("decoder", layer, 1, CROSS): [layer, 2] for layer in range(2)},
    **{LAYER.format("encoder", layer, 1, DENSE): [*range(layer, layer + 20)] for layer in range(2)},
    **{LAYER.format("decoder", layer, 2, DENSE): [*range(20)] for layer in range(2)},
}


def lively(model):
    """Larger weights than a fresh model's, so that attention and positions matter."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative" in name:
                parameter.normal_(std=2)
            elif parameter.dim() == 2:
                parameter.normal_(std=0.3 if "shared" in name or "embeddings" in name else parameter.shape[1] ** -0.5)
    return model.eval()


def gated_mt5():
    config = MT5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0
    )
    return MT5ForConditionalGeneration(config)


def relu_t5():
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0
    )
    return T5ForConditionalGeneration(config)


def encoder(kind):
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 64, "pad_token_id": 0,
    }  # fmt: skip
    return BertForMaskedLM(BertConfig(**sizes)) if kind == "bert" else RobertaForMaskedLM(RobertaConfig(**sizes))


@pytest.fixture(params=["tied", "untied", "relu", "mt5"])
def model(request, tiny_model):
    made = {"relu": relu_t5, "mt5": gated_mt5}.get(request.param)
    return lively(made() if made else tiny_model(tied=request.param == "tied", vocabulary=VOCABULARY))


def masked(model, kept):
    """The same sizes; what the removed units say is multiplied by zero."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for units in units_of(other):
            gone = sorted(set(range(units.count)) - set(kept.get(units.name, range(units.count))))
            other.get_submodule(units.writing).weight[:, units.places(gone)] = 0
    return other


def removed(model, kept):
    other = copy.deepcopy(model)
    remove_units(other, kept)
    return other


def draw(size, seed):
    return [*torch.randint(3, VOCABULARY, (size - 1,), generator=torch.Generator().manual_seed(seed)).tolist(), 1]


INPUTS = [draw(n, n) for n in (4, 9, 10, 31)]
EXAMPLES = [TokenizedExample(ids, draw(n, 50 + n), 1.0, "a", "t", str(n)) for n, ids in zip((2, 5, 9, 14), INPUTS, strict=True)]
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
both = pytest.mark.parametrize("kept", [UNLIKE, ALIKE], ids=["unlike", "alike"])


def pair(model, kept):
    return removed(model, kept), masked(model, kept)


def counted(model, kept):
    """Weights that remain, one unit after the other."""
    total = parameter_count(model)
    for units in units_of(model):
        gone = units.count - len(kept.get(units.name, range(units.count)))
        for path in (*units.reading, units.writing):
            total -= gone * units.width * 32
            bias = model.get_submodule(path).bias
            total -= gone * units.width if bias is not None and path != units.writing else 0
    return total


@both
def test_the_weights_of_removed_units_are_gone(model, kept):
    small = removed(model, kept)
    columns = (4 + 3, 2 + 2)[kept is ALIKE]
    table = 32 * (8 - columns)
    assert parameter_count(small) == counted(model, kept) - table < parameter_count(model)
    assert sum(value.numel() for value in small.state_dict().values()) < sum(v.numel() for v in model.state_dict().values())


@both
def test_training_passes_equal_the_masked_models(model, kept):
    small, large = pair(model, kept)
    batch = flat_batch(EXAMPLES, 0)
    with torch.no_grad():
        close(flat_states(small, batch), flat_states(large, batch))
        close(line_states(small, flat_line(batch)), line_states(large, flat_line(batch)))


@both
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_masked_model_where_units_stayed(model, kept, recompute):
    small, large = (one.double() for one in pair(model, kept))
    for one in (small, large):
        flat_loss(one, flat_batch(EXAMPLES, 0), recompute=recompute)[0].backward()
    close(small.shared.weight.grad, large.shared.weight.grad)
    remaining = {units.name: units for units in units_of(small)}
    for units in units_of(large):
        places = units.places(kept.get(units.name, range(units.count)))
        for path in remaining[units.name].reading:
            close(small.get_parameter(f"{path}.weight").grad, large.get_parameter(f"{path}.weight").grad[places])
    for stack in ("encoder", "decoder"):
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        read = sorted({head for name, heads in kept.items() if name.startswith(stack) and SELF in name for head in heads})
        close(small.get_parameter(table).grad, large.get_parameter(table).grad[:, read])


@both
@torch.no_grad()
def test_transformers_own_passes_and_packed_ones_equal_the_masked_models(model, kept):
    small, large = pair(model, kept)
    ids = torch.tensor([INPUTS[1], INPUTS[2][:9]])
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    labels = torch.tensor([draw(5, 1), draw(5, 2)])
    for kind in ("sdpa", "eager"):
        for one in (small, large):
            one.set_attn_implementation(kind)
        close(*(one(input_ids=ids, attention_mask=attention, labels=labels).logits for one in (small, large)))
    segments = torch.tensor([[1] * 4 + [2] * 5, [1] * 9])
    outputs = []
    for one in (small, large):
        states = encode(one, ids, segments)
        outputs.append(decode(one, states, segments, labels, torch.tensor([[1, 1, 2, 2, 2], [1] * 5])))
    close(*outputs)


@both
def test_choices_are_scored_alike(model, kept):
    small, large = pair(model, kept)
    tree = choice_tree([(5, 6, 1), (5, 7, 8, 1), (9, 1)], 0)
    batch = tree_batch([(ids, tree) for ids in INPUTS], 1.15)
    close(*(torch.tensor(TreeDecoder(one)(batch)) for one in (small, large)), rtol=1e-4, atol=1e-4)


@both
def test_generation_is_that_of_the_masked_model_and_of_transformers(model, kept):
    small, large = pair(model, kept)
    decoders = [Decoder(one, end=1, steps=20) for one in (small, large)]
    for way in (lambda d: d.greedy(INPUTS), lambda d: [one for beams in d.beam_search(INPUTS, 3) for one in beams]):
        found, expected = (way(decoder) for decoder in decoders)
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        assert [one.log_probability for one in found] == pytest.approx([one.log_probability for one in expected], abs=1e-4)
    greedy = decoders[0].greedy(INPUTS)
    for ids, ours in zip(INPUTS, greedy, strict=True):
        theirs = small.generate(input_ids=torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, 1:].tolist()
        assert theirs[: len(ours.tokens)] == list(ours.tokens)


@both
def test_saved_and_loaded_it_is_the_same_model(model, kept, tokenizer, tmp_path):
    small = removed(model, kept)
    save_checkpoint(tmp_path / "small", small, tokenizer, {"pruned": {"of": "another model"}})
    loaded = load_model(tmp_path / "small")
    assert is_tied(loaded) == is_tied(small)
    batch = flat_batch(EXAMPLES, 0)
    with torch.no_grad():
        close(flat_states(loaded, batch), flat_states(small, batch))
        close(loaded.lm_head.weight, small.lm_head.weight)
    assert pruned_section(loaded) == pruned_section(small)
    assert ("pruned" in json.loads((tmp_path / "small" / "mengzi_mt.json").read_text())) == (kept is UNLIKE)
    assert parameter_count(load_model(tmp_path / "small", dtype=torch.bfloat16)) == parameter_count(small)


def test_layers_that_are_alike_make_a_plain_checkpoint(model, tmp_path):
    small = removed(model, ALIKE)
    assert is_plain(small)
    assert not any(isinstance(module, PrunedAttention) for module in small.modules())
    save_model(small, tmp_path)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert (theirs.config.num_heads, theirs.config.d_ff) == (2, 20)
    ids, labels = torch.tensor([INPUTS[2]]), torch.tensor([draw(5, 1)])
    with torch.no_grad():
        close(theirs(input_ids=ids, labels=labels).logits, small(input_ids=ids, labels=labels).logits)


def test_transformers_alone_refuses_one_whose_layers_differ(model, tokenizer, tmp_path):
    save_checkpoint(tmp_path / "small", removed(model, UNLIKE), tokenizer, {})
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "small")


def test_what_is_pruned_can_be_pruned_again(model):
    rest = {**ALIKE, LAYER.format("encoder", 0, 0, SELF): [3]}
    at_once = removed(model, rest)
    first = {name: units for name, units in UNLIKE.items() if CROSS in name}
    twice = removed(
        removed(model, {**first, LAYER.format("encoder", 0, 0, SELF): [0, 3]}), {LAYER.format("encoder", 0, 0, SELF): [1]}
    )
    close(
        twice.get_parameter(f"{LAYER.format('encoder', 0, 0, SELF)}.q.weight"),
        at_once.get_parameter(f"{LAYER.format('encoder', 0, 0, SELF)}.q.weight"),
    )
    expected = masked(model, {**first, LAYER.format("encoder", 0, 0, SELF): [3]})
    with torch.no_grad():
        close(*(flat_states(one, flat_batch(EXAMPLES, 0)) for one in (twice, expected)))


def test_layers_that_stay_are_those_of_the_model_and_keep_its_relative_bias(tiny_model, tmp_path):
    model = lively(tiny_model(vocabulary=VOCABULARY))
    small = copy.deepcopy(model)
    keep_layers(small, {"encoder": [1], "decoder": [1]})
    with torch.no_grad():  # the first layers do nothing
        for name, parameter in model.named_parameters():
            if ".block.0." in name and name.endswith(("o.weight", "wo.weight")):
                parameter.zero_()
    batch = flat_batch(EXAMPLES, 0)
    ids, labels = torch.tensor([INPUTS[2]]), torch.tensor([draw(5, 1)])
    save_model(small, tmp_path)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert (theirs.config.num_layers, theirs.config.num_decoder_layers) == (1, 1)
    with torch.no_grad():
        close(flat_states(small, batch), flat_states(model, batch))
        close(theirs(input_ids=ids, labels=labels).logits, model(input_ids=ids, labels=labels).logits)
    greedy = [Decoder(one, end=1, steps=12).greedy(INPUTS) for one in (small, model)]
    assert [one.tokens for one in greedy[0]] == [one.tokens for one in greedy[1]]
    assert (
        small.generate(input_ids=ids, max_new_tokens=12, do_sample=False).tolist()
        == model.generate(input_ids=ids, max_new_tokens=12, do_sample=False).tolist()
    )


def test_a_layer_dropped_from_unlike_layers(tiny_model):
    model = removed(lively(tiny_model(vocabulary=VOCABULARY)), UNLIKE)
    expected = copy.deepcopy(model)
    keep_layers(model, {"encoder": [1]})
    with torch.no_grad():
        for name, parameter in expected.named_parameters():
            if name.startswith("encoder.block.0.") and name.endswith(("o.weight", "wo.weight")):
                parameter.zero_()
        close(*(flat_states(one, flat_batch(EXAMPLES, 0)) for one in (model, expected)))
    table = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    assert table.shape == (32, 3)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_encoders(kind):
    model = lively(encoder(kind))
    prefix = f"{kind}.encoder.layer"
    kept = {f"{prefix}.0.attention": [1, 2], f"{prefix}.1.attention": [0], f"{prefix}.0.intermediate": [*range(7, 30)]}
    small, large = pair(model, kept)
    ids = torch.tensor([INPUTS[1], INPUTS[2][:9]])
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    with torch.no_grad():
        close(*(one(input_ids=ids, attention_mask=attention).logits for one in (small, large)))
    assert (
        sum(p.numel() for p in small.parameters())
        == sum(p.numel() for p in model.parameters()) - (2 + 3) * 8 * (4 * 32 + 3) - 41 * 65
    )
    assert set(pruned_section(small)["pruned"]) == {"heads", "neurons"}
    keep_layers(small, {"encoder": [1]})
    assert small.config.num_hidden_layers == 1
    assert small(input_ids=ids).logits.shape == (2, 9, VOCABULARY)


def test_the_last_unit_of_a_layer_cannot_be_removed(tiny_model):
    with pytest.raises(InputError, match="No heads would stay"):
        remove_units(tiny_model(), {LAYER.format("encoder", 0, 0, SELF): []})
    with pytest.raises(InputError, match="cannot stay"):
        keep_layers(tiny_model(), {"decoder": []})


def test_other_models_are_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(InputError, match="'gpt2' model cannot be pruned"):
        units_of(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20)))


@pytest.mark.parametrize("section", [{"heads": {"encoder.block.7.layer.0.SelfAttention": 2}}, {"heads": {}, "neurons": {}}])
def test_a_section_of_another_model_is_refused(tiny_model, tokenizer, section, tmp_path):
    model = tiny_model()
    write_checkpoint(tmp_path / "c", lambda folder: save_model(model, folder), tokenizer, {"pruned": section}, "")
    with pytest.raises(InputError, match="does not fit"):
        load_model(tmp_path / "c")


def test_missing_weights_are_named(tiny_model, tokenizer, tmp_path):
    small = removed(tiny_model(), UNLIKE)
    save_checkpoint(tmp_path / "c", small, tokenizer, {})
    manifest = json.loads((tmp_path / "c" / "mengzi_mt.json").read_text())
    manifest["pruned"]["neurons"][LAYER.format("encoder", 1, 1, DENSE)] = 9
    (tmp_path / "c" / "mengzi_mt.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="size mismatch"):
        load_model(tmp_path / "c")
