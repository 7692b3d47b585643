"""Our metrics inside Hugging Face's ``evaluate``, without the hub."""

from __future__ import annotations

import pytest

from mengzi_mt.errors import InputError


def test_metrics_compute_and_combine_offline():
    import evaluate
    from mengzi_mt.evaluation.hf_metrics import metric

    both = evaluate.combine([metric("accuracy"), metric("macro_f1")])
    scores = both.compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0])
    assert scores["accuracy"] == pytest.approx(0.75)
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    text = metric("exact_match").compute(predictions=["北京。", "上海"], references=[["北京"], ["广州", "深圳"]])
    assert text == {"exact_match": 0.5}


def test_an_unknown_metric_names_the_nearest():
    from mengzi_mt.evaluation.hf_metrics import metric

    with pytest.raises(InputError, match="accuracy"):
        metric("acuracy")
