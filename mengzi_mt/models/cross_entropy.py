"""Cross-entropy of a linear head without ever holding the logits of a whole batch.

The logits of T5's 32,128 pieces are the largest tensor of a step. Here they are made for a few hundred tokens at a time,
turned into the gradients at once and thrown away (the idea of fused linear cross-entropy, Hsu et al., arXiv:2410.10989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Float32 logits held at a time."""


@dataclass(frozen=True)
class LossSettings:
    """Label smoothing (uniform over the vocabulary), and the weight of the squared log-normaliser (z-loss, PaLM's 1e-4)."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


def linear_cross_entropy(
    states: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses of ``states @ weight.T`` against ``labels``, and the plain cross-entropies.

    Args:
        states: ``(tokens, width)``.
        weight: of the head, ``(vocabulary, width)``.
        labels: ``(tokens,)``.
        weights: of each token, ``(tokens,)``.
        settings: smoothing and z-loss, which the sum holds and the cross-entropies do not.

    Returns:
        A scalar with gradient in float32, and ``(tokens,)`` cross-entropies in float32 without.
    """
    total, losses = _LinearCrossEntropy.apply(states, weight, labels, weights, settings)
    return total, losses


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are ready after the forward pass, as the loss is linear in the token losses."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, settings: LossSettings
    ) -> tuple[Tensor, Tensor]:
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        with torch.autocast(device, enabled=False), torch.no_grad():
            head, hidden = weight.to(dtype), states.to(dtype)
            state_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
            weight_grad = torch.zeros(weight.shape, dtype=exact, device=weight.device) if ctx.needs_input_grad[1] else None
            losses = torch.empty(len(labels), dtype=exact, device=states.device)
            total = torch.zeros((), dtype=exact, device=states.device)
            rows = max(1, CHUNK_BYTES // (4 * len(weight)))
            for begin in range(0, len(labels), rows):
                part = slice(begin, begin + rows)
                total += _chunk(
                    hidden[part], head, labels[part], weights[part].to(exact), settings, losses[part],
                    None if state_grad is None else state_grad[part], weight_grad, exact,
                )  # fmt: skip
        kept = None if state_grad is None else state_grad.to(states.dtype)
        ctx.save_for_backward(kept, None if weight_grad is None else weight_grad.to(weight.dtype))
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        state_grad, weight_grad = ctx.saved_tensors
        return (
            None if state_grad is None else state_grad * grad.to(state_grad.dtype),
            None if weight_grad is None else weight_grad * grad.to(weight_grad.dtype),
            None, None, None,
        )  # fmt: skip


def _chunk(
    hidden: Tensor, head: Tensor, labels: Tensor, weights: Tensor, settings: LossSettings, losses: Tensor,
    state_grad: Tensor | None, weight_grad: Tensor | None, exact: torch.dtype,
) -> Tensor:  # fmt: skip
    """Losses of a few tokens into ``losses``, their gradients into the others; returns the weighted sum."""
    logits = (hidden @ head.T).to(exact)
    norm = torch.logsumexp(logits, dim=-1)
    target = logits.gather(1, labels[:, None])[:, 0]
    torch.sub(norm, target, out=losses)
    smooth = settings.label_smoothing
    value = (1 - smooth) * losses + settings.z_loss * norm**2
    if smooth:
        value = value + smooth * (norm - logits.mean(dim=-1))
    if state_grad is not None or weight_grad is not None:
        logits.sub_(norm[:, None]).exp_()
        if settings.z_loss:
            logits.mul_((1 + 2 * settings.z_loss * norm)[:, None])
        if smooth:
            logits.sub_(smooth / logits.shape[1])
        logits.scatter_add_(1, labels[:, None], torch.full_like(norm[:, None], smooth - 1))
        grad = logits.mul_(weights[:, None]).to(head.dtype)
        if state_grad is not None:
            torch.matmul(grad, head, out=state_grad)
        if weight_grad is not None:
            if weight_grad.dtype == grad.dtype:
                weight_grad.addmm_(grad.T, hidden)
            else:
                weight_grad.add_(grad.T @ hidden)
    return (value * weights).sum()
