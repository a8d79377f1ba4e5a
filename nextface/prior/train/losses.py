"""The terms that the prior's networks minimise (ID2Reflectance, Ren et al. 2024; VQGAN, Esser et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, relu


def pixel_loss(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over images of mean|image − target| over the pixels of the mask. [B, 3, S, S], mask [B, 1, S, S] -> []"""
    error = (image - target).abs().mean(1, keepdim=True)
    if mask is None:
        return error.mean()
    return ((error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1.0)).mean()


def inside(image: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """The image, with the target where the mask is 0: a comparison of the two sees no difference there."""
    return image if mask is None else torch.lerp(target, image, mask)


def fooling(logits: Tensor) -> Tensor:
    """What the generator minimises: −mean D. Logits of made images, any shape -> []"""
    return -logits.mean()


def telling_apart(real: Tensor, made: Tensor) -> Tensor:
    """What the discriminator minimises, the hinge: mean relu(1 − D(real)) + mean relu(1 + D(made)). Logits -> []"""
    return relu(1.0 - real).mean() + relu(1.0 + made).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """‖∇reconstruction‖ / (‖∇adversarial‖ + 1e-4), at most 1: of gradients at the last layer's weight (VQGAN). -> []"""
    return (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(0.0, 1.0).detach()


def identity_loss(embedding: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """mean(1 − cosine), 0 for rows that do not count. Unit embeddings [B, E], counted bool [B] -> []"""
    return (counted * (1.0 - (embedding * wanted).sum(1))).mean()


def recognition_loss(
    first: Tensor, second: Tensor, identity: Tensor, scale: float = 16.0, margin: float = 0.2
) -> Tensor:
    """Each embedding must pick the other crop of its person among those of the whole batch.

    Cross-entropy of scaled cosines in both directions (Sohn 2016, "multi-class N-pair loss"; Chen et al. 2020), with
    ArcFace's margin added to the angle of the true pair (Deng et al. 2019). Unlike a classifier it needs no list of
    identities, so it can learn from an endless stream. Other rows of the same person are left out.
    first, second: unit embeddings of two crops of each person, [B, E]; identity: labels, [B] -> []
    """
    cosine = (normalize(first, dim=1) @ normalize(second, dim=1).T).clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    pair = torch.eye(len(first), dtype=torch.bool, device=first.device)
    logits = scale * torch.where(pair, torch.cos(cosine.acos() + margin), cosine)
    logits = logits.masked_fill((identity[:, None] == identity) & ~pair, float("-inf"))
    target = torch.arange(len(first), device=first.device)
    return 0.5 * (cross_entropy(logits, target) + cross_entropy(logits.T, target))
