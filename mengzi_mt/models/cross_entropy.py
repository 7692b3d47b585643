"""Cross-entropy of a linear head without ever holding the logits of a whole batch.

The logits of T5's 32,128 pieces are the largest tensor of a step. Here they are made for a few hundred tokens at a time,
turned into the gradients at once and thrown away (the idea of fused linear cross-entropy, Hsu et al., arXiv:2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
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


TokenLoss = Callable[[slice, Tensor, bool], tuple[Tensor, Tensor]]
"""The losses of some of the tokens from their logits ``(tokens, vocabulary)`` in float32 or float64: each token's loss, and what is
told of each. Where asked for by the flag, the loss's gradients stand in the logits' place afterwards; else anything may."""


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
    return linear_loss(states, weight, weights, lambda part, logits, needed: into_gradients(logits, labels[part], settings, needed))


def linear_loss(states: Tensor, weight: Tensor, weights: Tensor, loss: TokenLoss) -> tuple[Tensor, Tensor]:
    """Weighted sum of any losses of the logits ``states @ weight.T``, a scalar with gradient, and what is told of each token."""
    total, told = _LinearLoss.apply(states, weight, weights, loss)
    return total, told


def into_gradients(logits: Tensor, labels: Tensor, settings: LossSettings, needed: bool) -> tuple[Tensor, Tensor]:
    """The losses against ``labels`` and the plain cross-entropies, as a :data:`TokenLoss`."""
    norm = torch.logsumexp(logits, dim=-1)
    losses = norm - logits.gather(1, labels[:, None])[:, 0]
    smooth = settings.label_smoothing
    value = (1 - smooth) * losses + settings.z_loss * norm**2
    if smooth:
        value = value + smooth * (norm - logits.mean(dim=-1))
    if needed:
        logits.sub_(norm[:, None]).exp_()
        if settings.z_loss:
            logits.mul_((1 + 2 * settings.z_loss * norm)[:, None])
        if smooth:
            logits.sub_(smooth / logits.shape[1])
        logits.scatter_add_(1, labels[:, None], torch.full_like(norm[:, None], smooth - 1))
    return value, losses


class _LinearLoss(torch.autograd.Function):
    """The gradients are ready after the forward pass, as the sum is linear in the token losses."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, states: Tensor, weight: Tensor, weights: Tensor, loss: TokenLoss
    ) -> tuple[Tensor, Tensor]:
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        with torch.autocast(device, enabled=False), torch.no_grad():
            head, hidden = weight.to(dtype), states.to(dtype)
            state_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
            weight_grad = torch.zeros(weight.shape, dtype=exact, device=weight.device) if ctx.needs_input_grad[1] else None
            needed = state_grad is not None or weight_grad is not None
            told = torch.empty(len(states), dtype=exact, device=states.device)
            total = torch.zeros((), dtype=exact, device=states.device)
            rows = max(1, CHUNK_BYTES // (4 * len(weight)))
            for begin in range(0, len(states), rows):
                part = slice(begin, begin + rows)
                weighing = weights[part].to(exact)
                logits = (hidden[part] @ head.T).to(exact)
                value, told[part] = loss(part, logits, needed)
                total += (value * weighing).sum()
                if needed:
                    grad = logits.mul_(weighing[:, None]).to(head.dtype)
                    _propagate(grad, hidden[part], head, None if state_grad is None else state_grad[part], weight_grad)
        kept = None if state_grad is None else state_grad.to(states.dtype)
        ctx.save_for_backward(kept, None if weight_grad is None else weight_grad.to(weight.dtype))
        ctx.mark_non_differentiable(told)
        return total, told

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        state_grad, weight_grad = ctx.saved_tensors
        return (
            None if state_grad is None else state_grad * grad.to(state_grad.dtype),
            None if weight_grad is None else weight_grad * grad.to(weight_grad.dtype),
            None, None,
        )  # fmt: skip


def _propagate(grad: Tensor, hidden: Tensor, head: Tensor, state_grad: Tensor | None, weight_grad: Tensor | None) -> None:
    """From the gradients of some tokens' logits to those of their states, and into the head's."""
    if state_grad is not None:
        torch.matmul(grad, head, out=state_grad)
    if weight_grad is not None:
        if weight_grad.dtype == grad.dtype:
            weight_grad.addmm_(grad.T, hidden)
        else:
            weight_grad.add_(grad.T @ hidden)
