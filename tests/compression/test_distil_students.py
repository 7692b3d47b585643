import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from mengzi_mt.compression.distil_students import encoder_of_layers, layer_numbers, t5_of_layers
from mengzi_mt.errors import InputError
from mengzi_mt.models.flat import flat_loss
from mengzi_mt.models.t5 import is_tied, load_model, save_model


@pytest.mark.parametrize("tied", [True, False])
def test_all_layers_are_the_teacher(random_t5, batch, tied):
    teacher = random_t5(layers=3, tied=tied)
    student = t5_of_layers(teacher, (0, 1, 2)).double().eval()
    assert is_tied(student) == tied
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(one.data_ptr() != other.data_ptr() for one, other in zip(student.parameters(), teacher.parameters(), strict=True))
    assert torch.equal(flat_loss(student, batch)[1], flat_loss(teacher, batch)[1])


@pytest.mark.parametrize("tied", [True, False])
def test_some_layers_are_a_teacher_whose_other_layers_do_nothing(random_t5, batch, tied, tmp_path):
    teacher = random_t5(layers=4, tied=tied)
    student = t5_of_layers(teacher, (1, 3), (2,)).double().eval()
    assert (student.config.num_layers, student.config.num_decoder_layers) == (2, 1)
    with torch.no_grad():  # a block whose outputs are zero leaves the states as they are
        for stack, kept in ((teacher.encoder, (1, 3)), (teacher.decoder, (2,))):
            for number, block in enumerate(stack.block):
                for name, value in block.named_parameters():
                    if number not in kept and name.endswith((".o.weight", ".wo.weight")):
                        value.zero_()
    torch.testing.assert_close(flat_loss(student, batch)[1], flat_loss(teacher, batch)[1])
    save_model(student, tmp_path)
    torch.testing.assert_close(flat_loss(load_model(tmp_path).double().eval(), batch)[1], flat_loss(student, batch)[1])


def test_a_layer_named_twice_adds_half_twice(random_t5, batch, tmp_path):
    teacher = random_t5(layers=2)
    student = t5_of_layers(teacher, (0, 1, 1), (0, 0, 1)).double().eval()
    assert (student.config.num_layers, student.config.num_decoder_layers) == (3, 3)
    ours, theirs = student.state_dict(), teacher.state_dict()
    for copy in (1, 2):
        torch.testing.assert_close(
            ours[f"encoder.block.{copy}.layer.1.DenseReluDense.wo.weight"],
            theirs["encoder.block.1.layer.1.DenseReluDense.wo.weight"].to(torch.float64) / 2,
        )
        assert torch.equal(
            ours[f"encoder.block.{copy}.layer.0.SelfAttention.q.weight"],
            theirs["encoder.block.1.layer.0.SelfAttention.q.weight"].double(),
        )
    with torch.no_grad():  # what is added is small, so half twice is the whole, to first order
        for model in (teacher, student):
            for name, value in model.named_parameters():
                if name.endswith((".o.weight", ".wo.weight")):
                    value.mul_(1e-3)
    torch.testing.assert_close(flat_loss(student, batch)[1], flat_loss(teacher, batch)[1], rtol=1e-5, atol=1e-5)
    save_model(student, tmp_path)
    torch.testing.assert_close(flat_loss(load_model(tmp_path).double().eval(), batch)[1], flat_loss(student, batch)[1])


def test_an_encoder_of_all_layers_is_the_teacher_and_of_some_has_theirs():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32)
    teacher = BertForMaskedLM(config).eval()
    ids = torch.randint(0, 50, (2, 7))
    same = encoder_of_layers(teacher, (0, 1, 2, 3)).eval()
    assert torch.equal(same(input_ids=ids).logits, teacher(input_ids=ids).logits)
    half = encoder_of_layers(teacher, "even")
    assert half.config.num_hidden_layers == len(half.bert.encoder.layer) == 2
    for new, old in ((0, 0), (1, 2)):
        one, other = half.bert.encoder.layer[new].state_dict(), teacher.bert.encoder.layer[old].state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(half.cls.predictions.decoder.weight, teacher.cls.predictions.decoder.weight)


def test_layers_that_are_not_there_are_refused():
    assert layer_numbers("even", 5, "x") == [0, 2, 4]
    assert layer_numbers((0, 3), 4, "x") == [0, 3]
    assert layer_numbers((0, 1, 1), 4, "x", repeats=True) == [0, 1, 1]
    with pytest.raises(InputError, match="rising"):
        layer_numbers((1, 0, 1), 4, "x", repeats=True)
    for wrong, message in (
        ((0, 4), "no layer 4"),
        ((-1, 2), "no layer -1"),
        ((2, 1), "rising"),
        ((1, 1), "rising"),
        ((), "rising"),
    ):
        with pytest.raises(InputError, match=message):
            layer_numbers(wrong, 4, "student.layers")
