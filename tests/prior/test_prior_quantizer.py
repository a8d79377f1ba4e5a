from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from nextface.prior.quantizer import CodeUsage, VectorQuantizer, perplexity, spread_sample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def codebook(codes: int = 20, channels: int = 4) -> VectorQuantizer:
    quantizer = VectorQuantizer(codes, channels)
    with torch.no_grad():
        quantizer.table.copy_(noise(codes, channels, seed=1))
    return quantizer


def by_hand(quantizer: VectorQuantizer, latent: Tensor) -> Tensor:
    """The nearest code of each position, one by one in double precision."""
    table = quantizer.table.double()
    indices = torch.empty(latent.shape[0], *latent.shape[2:], dtype=torch.long)
    for b in range(latent.shape[0]):
        for y in range(latent.shape[2]):
            for x in range(latent.shape[3]):
                indices[b, y, x] = (table - latent[b, :, y, x].double()).square().sum(1).argmin()
    return indices


def test_start_is_uniform_within_one_over_the_number_of_codes():
    table = VectorQuantizer(64, 100).table
    assert table.abs().max() <= 1 / 64
    assert table.std().item() == pytest.approx(1 / 64 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_codes_are_the_nearest(dtype: torch.dtype):
    quantizer, latent = codebook(), noise(2, 4, 5, 6).to(dtype)
    result = quantizer(latent)
    expected = by_hand(quantizer, latent)
    assert torch.equal(result.indices, expected)
    assert result.codes.dtype == dtype
    torch.testing.assert_close(result.codes, quantizer.table[expected].permute(0, 3, 1, 2).to(dtype))
    nearest = (latent.float() - quantizer.lookup(expected)).square().sum(1)
    torch.testing.assert_close(result.distance, nearest)


def test_autocast_does_not_blur_the_search():
    quantizer, latent = codebook(200, 16), noise(2, 16, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        result = quantizer(latent)
    assert torch.equal(result.indices, by_hand(quantizer, latent))
    assert result.loss.dtype == torch.float32


def test_codes_pass_the_gradient_straight_through():
    quantizer, latent, cotangent = codebook(), noise(2, 4, 3, 3).requires_grad_(), noise(2, 4, 3, 3, seed=2)
    (quantizer(latent).codes * cotangent).sum().backward()
    assert torch.equal(latent.grad, cotangent)
    assert quantizer.table.grad is None


def test_loss_moves_the_encoder_four_times_as_much_as_the_codes():
    """∂/∂z = 2(z − e)/N, ∂/∂e_k = 0.25·Σ 2(e_k − z)/N over the positions that chose k."""
    quantizer, latent = codebook(), noise(2, 4, 3, 3).requires_grad_()
    result = quantizer(latent)
    result.loss.backward()
    gap = latent.detach() - quantizer.lookup(result.indices).detach()
    assert result.loss.item() == pytest.approx(1.25 * gap.square().mean().item(), rel=1e-6)
    torch.testing.assert_close(latent.grad, 2 * gap / gap.numel())
    to_codes = torch.zeros(20, 4).index_add_(0, result.indices.flatten(), -gap.movedim(1, -1).reshape(-1, 4))
    torch.testing.assert_close(quantizer.table.grad, 0.25 * 2 * to_codes / gap.numel())


@pytest.mark.grad
def test_gradient_of_the_distance():
    """Differentiable where no other code is as near: finite steps do not change the choice."""
    quantizer, latent = codebook(), noise(1, 4, 2, 2).double().requires_grad_()
    assert gradcheck(lambda values: quantizer(values).distance, latent)


def test_perplexity_counts_evenly_used_codes():
    assert perplexity(torch.tensor([5, 5, 0, 5, 5])).item() == pytest.approx(4, rel=1e-6)
    assert perplexity(torch.tensor([7, 0, 0])).item() == pytest.approx(1, rel=1e-6)


def test_counts():
    quantizer = codebook(4)
    assert quantizer.counts(torch.tensor([[[0, 3], [3, 3]]])).tolist() == [1, 0, 0, 3]


def test_seeding_from_data_uses_every_code():
    """Latent vectors in clusters far from a fresh codebook, whose codes take several each: then each has its own."""
    centres = 5 * noise(16, 8)
    latent = (centres[torch.arange(256) % 16] + 0.01 * noise(256, 8, seed=1)).view(1, 16, 16, 8).permute(0, 3, 1, 2)
    quantizer = VectorQuantizer(16, 8)
    before = perplexity(quantizer.counts(quantizer.nearest(latent)))
    quantizer.reseed(torch.arange(16), latent, generator())
    after = quantizer(latent)
    assert before < 12
    assert perplexity(quantizer.counts(after.indices)).item() == pytest.approx(16, rel=1e-4)
    assert after.distance.max() < 0.02


def test_dead_codes_restart_where_the_others_are_not():
    quantizer = VectorQuantizer(3, 2)
    with torch.no_grad():
        quantizer.table.copy_(torch.tensor([[0.0, 0.0], [90.0, 90.0], [1.0, 1.0]]))
    latent = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [8.0, 8.0]]).T.reshape(1, 2, 2, 2)
    usage = CodeUsage(3, decay=0.5)
    for _ in range(5):
        usage.update(quantizer.counts(quantizer.nearest(latent)))
    dead = usage.unused()
    assert dead.tolist() == [1]
    quantizer.reseed(dead, latent, generator())
    usage.forget(dead)
    assert quantizer.table.tolist() == [[0, 0], [8, 8], [1, 1]]
    assert len(usage.unused()) == 0


def test_usage_is_a_running_share():
    usage = CodeUsage(4, decay=0.75)
    usage.update(torch.tensor([8, 0, 0, 0]))
    torch.testing.assert_close(usage.share, torch.tensor([0.4375, 0.1875, 0.1875, 0.1875]))
    usage.update(torch.zeros(4))
    assert usage.share.isfinite().all()


def test_seeding_is_reproducible_and_survives_too_few_vectors():
    vectors = noise(5, 3)
    drawn = [spread_sample(vectors, 7, generator(3), vectors[:0]) for _ in range(2)]
    assert torch.equal(*drawn)
    assert {tuple(row) for row in drawn[0].tolist()} == {tuple(row) for row in vectors.tolist()}
