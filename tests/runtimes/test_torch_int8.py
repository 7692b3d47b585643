import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from mengzi_mt.data.choice_trees import tree_batch
from mengzi_mt.errors import InputError
from mengzi_mt.models.decoding import Decoder
from mengzi_mt.models.fake_int8 import fake_int8
from mengzi_mt.models.int8 import WEIGHT_LEVELS, Int8Linear, activation_levels
from mengzi_mt.models.t5 import save_config
from mengzi_mt.models.tree import TreeDecoder
from mengzi_mt.runtimes.torch_int8 import WEIGHTS, load_int8, write_int8

from .conftest import CHOICES, drawn_inputs, examples_of, flat, torch_scores


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def stored(request, make_model, tmp_path):
    model = make_model(request.param)
    save_config(model, tmp_path)
    write_int8(model, tmp_path)
    return model, tmp_path


def test_integers_on_disk_and_no_float_matrix_in_memory(stored):
    model, folder = stored
    tensors = load_file(folder / WEIGHTS)
    assert {str(one.dtype) for name, one in tensors.items() if f"{name}.scale" in tensors} == {"torch.int8"}
    assert ("lm_head.weight" in tensors) == (model.lm_head.weight is not model.shared.weight)
    loaded = load_int8(folder)
    largest = max(one.numel() for one in [*loaded.parameters(), *loaded.buffers()])
    assert largest <= model.config.relative_attention_num_buckets * model.config.num_heads
    assert sum(isinstance(layer, Int8Linear) for layer in loaded.modules()) == 2 * 7 + 2 * 11 + 1


@torch.inference_mode()
def test_scores_are_those_of_the_faked_model_in_transformers(stored):
    """The reference is transformers' own forward pass, a row a choice, over a model that rounds as it goes."""
    model, folder = stored
    inputs = drawn_inputs([4, 9, 9, 30])
    examples = examples_of(inputs)
    found = TreeDecoder(load_int8(folder))(tree_batch(examples, 1.0))
    faked = copy.deepcopy(model)
    fake_int8(faked)
    for place, ids in enumerate(inputs):
        for choice, score in zip(CHOICES[place % 3], found[place], strict=True):
            logits = faked(input_ids=torch.tensor([ids]), labels=torch.tensor([choice])).logits[0].log_softmax(-1)
            assert score == pytest.approx(float(logits.gather(1, torch.tensor(choice)[:, None]).sum()), abs=0.02)
    rounding = WEIGHT_LEVELS / activation_levels()  # twice as coarse on a processor without VNNI
    assert (flat(found) - flat(torch_scores(model, examples))).abs().max() < rounding


def test_scores_do_not_depend_on_the_batch(stored):
    decoder = TreeDecoder(load_int8(stored[1]))
    examples = examples_of(drawn_inputs([4, 9, 9, 30]))
    together = decoder(tree_batch(examples, 1.0))
    alone = [decoder(tree_batch([one], 1.0))[0] for one in examples]
    assert flat(together).tolist() == pytest.approx(flat(alone).tolist(), abs=1e-3)


def test_generation_is_that_of_the_faked_model(stored):
    model, folder = stored
    inputs = drawn_inputs([5, 8, 8, 12])
    faked = copy.deepcopy(model)
    fake_int8(faked)
    found = Decoder(load_int8(folder), end=1, steps=8).greedy(inputs)
    same = 0
    for ids, output in zip(inputs, found, strict=True):
        expected = faked.generate(input_ids=torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, 1:].tolist()
        same += list(output.tokens) == expected
    assert same >= 3  # tokens as good as each other may change places by the head's rounding of states
    beams = Decoder(load_int8(folder), end=1, steps=8).beam_search(inputs, 3)
    assert all(one[0].log_probability >= one[-1].log_probability * 8 for one in beams)


def test_damaged_files_and_other_devices_are_refused(stored):
    _, folder = stored
    with pytest.raises(InputError, match="CPU alone"):
        load_int8(folder, "cuda")
    tensors = load_file(folder / WEIGHTS)
    tensors.pop("encoder.final_layer_norm.weight")
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(InputError, match="final_layer_norm"):
        load_int8(folder)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_int8(folder)
