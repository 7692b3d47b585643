import pytest
import torch

from mengzi_mt.data.choice_trees import choice_tree
from mengzi_mt.errors import InputError
from mengzi_mt.models.decoding import Decoder
from mengzi_mt.runtimes.onnx_model import OnnxModel, OnnxSearch, write_onnx

from .conftest import drawn_inputs, examples_of, flat, torch_scores

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Taking:
    """Any token of an even id, or the end."""

    stopped = False
    allowed = (1, *range(2, 2_400, 2))

    def after(self, token):
        return self


def compared(model, runtime):
    """Scores, greedy answers, beams and constrained answers of both at lengths that were not traced."""
    search, plain = OnnxSearch(runtime, end=1, steps=9), Decoder(model, end=1, steps=9)
    for lengths in ([1], [2, 3], [4, 9, 9, 30], [150, 300]):
        inputs = drawn_inputs(lengths)
        examples = [*examples_of(inputs), (inputs[0], choice_tree([(7, 1)], 0))]
        assert (flat(runtime.score_trees(examples)) - flat(torch_scores(model, examples))).abs().max() < 1e-3
        for ours, theirs in zip(plain.greedy(inputs), search.greedy(inputs), strict=True):
            assert theirs.tokens == ours.tokens and theirs.finished == ours.finished
            assert theirs.log_probability == pytest.approx(ours.log_probability, abs=1e-3)
        for ours, theirs in zip(plain.beam_search(inputs, 3), search.beam_search(inputs, 3), strict=True):
            assert [one.tokens for one in theirs] == [one.tokens for one in ours]
    found = search.greedy(inputs, [Taking()] * len(inputs))
    assert [one.tokens for one in found] == [one.tokens for one in plain.greedy(inputs, [Taking()] * len(inputs))]
    assert all(token in Taking.allowed for one in found for token in one.tokens)


@pytest.mark.slow
def test_float32_is_torch_at_other_lengths_than_the_traced_ones(make_model, tmp_path):
    model = make_model(True)
    write_onnx(model, tmp_path, "float32")
    compared(model, OnnxModel(tmp_path))
    with pytest.raises(InputError, match="CPU alone"):
        OnnxModel(tmp_path, "cuda")
    (tmp_path / "onnx" / "decoder.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot load"):
        OnnxModel(tmp_path)


@pytest.mark.slow
def test_float32_with_a_head_of_its_own(make_model, tmp_path):
    model = make_model(False)
    write_onnx(model, tmp_path, "float32")
    compared(model, OnnxModel(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_int8_is_near(tied, make_model, tmp_path):
    model = make_model(tied)
    write_onnx(model, tmp_path, "int8")
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"encoder.onnx", "decoder.onnx"} | (
        set() if tied else {"embedding.safetensors"}
    )
    examples = examples_of(drawn_inputs([4, 9, 30]))
    runtime = OnnxModel(tmp_path)
    difference = (flat(runtime.score_trees(examples)) - flat(torch_scores(model, examples))).abs()
    # without VNNI products of 8 bits are summed in 16, and these random weights are large enough to overflow them
    assert 0 < difference.max() < (1.5 if torch.cpu._is_vnni_supported() else float("inf"))
    torch.testing.assert_close(runtime.table.whole(), model.shared.weight.detach(), atol=0.1, rtol=0)
