"""Learning from the teacher's distributions over the next token, without ever holding the logits of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mengzi_mt.models.cross_entropy import LossSettings, into_gradients, linear_loss


@dataclass(frozen=True)
class TaughtTokens:
    """The teacher's side of a batch's target tokens.

    Attributes:
        states: ready for its head (scaled where it scales), ``(tokens, width)``, in the type that its products are made in.
        head: ``(pieces, width)`` in the same type: of the pieces that the tokenizer has; rows beyond these stand for nothing.
    """

    states: Tensor
    head: Tensor


def distillation_loss(
    states: Tensor,
    weight: Tensor,
    labels: Tensor,
    weights: Tensor,
    teacher: TaughtTokens,
    *,
    hard: float,
    soft: float,
    temperature: float,
    terms: LossSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """``Σ_t w_t (hard · CE_t + soft · τ² KL(softmax(teacher_t / τ) ‖ softmax(student_t / τ)))`` (arXiv:1503.02531, section 2).

    Both sides' logits are made for some hundred tokens at a time, once.

    Args:
        states: the student's, ready for its head, ``(tokens, width)``.
        weight: of its head.
        labels: ``(tokens,)``.
        weights: w, ``(tokens,)``.
        teacher: without gradients.
        hard: weight of the cross-entropy.
        soft: weight of the divergence.
        temperature: τ.
        terms: label smoothing and z-loss of the cross-entropy.

    Returns:
        The sum, a scalar with gradient; and of each token without gradient its cross-entropy and its divergence τ² KL.
    """
    pieces = len(teacher.head)
    apart = torch.empty(len(states), dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32, device=states.device)

    def mixed(part: slice, logits: Tensor, needed: bool) -> tuple[Tensor, Tensor]:
        own = functional.log_softmax(logits[:, :pieces] / temperature, dim=-1)
        target = functional.log_softmax((teacher.states[part] @ teacher.head.T).to(logits.dtype) / temperature, dim=-1)
        shares = target.exp()
        apart[part] = temperature**2 * (shares * target.sub_(own)).sum(-1)
        value, losses = into_gradients(logits, labels[part], terms, needed)
        if needed:  # of τ² KL(p ‖ q): τ (q - p)
            logits.mul_(hard)
            logits[:, :pieces].add_(own.exp_().sub_(shares), alpha=soft * temperature)
        return hard * value + soft * apart[part], losses

    total, losses = linear_loss(states, weight, weights, mixed)
    return total, losses, apart
