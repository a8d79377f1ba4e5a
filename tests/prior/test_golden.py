"""Networks of the published size, filled by a formula, against numbers measured on the published modules.

The numbers stand for single precision with a tolerance of 2e-3; code indices are exact. Large networks share their
weights and are built once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from golden import fill, sequence, waves
from torch import Tensor, nn
from torch.nn.functional import normalize

from nextface.prior import FusedAutoencoder, FusedReconstruction, FusedSwapper, IdentityEncoder, Swapper, VQAutoencoder
from nextface.prior.autoencoder import Reconstruction
from nextface.prior.discriminators import PatchDiscriminator
from nextface.prior.fusion import DOMAINS
from nextface.prior.identity import identity_crop
from nextface.prior.quantizer import perplexity

TOLERANCE = 2e-3
PIXELS = ((0, 0), (100, 200), (256, 256), (511, 511))


@pytest.fixture(scope="module")
def weights() -> Iterator[dict[str, Tensor]]:
    """Of the fused swapper, which holds those of all the others but the identity encoder and the discriminators."""
    tensors = fill(FusedSwapper()).state_dict()
    yield tensors
    tensors.clear()


@pytest.fixture(scope="module")
def trace() -> dict[str, dict[int, float]]:
    """Standard deviations of the features inside the auto-encoder, by network and block."""
    return {"encoder": {}, "generator": {}}


@pytest.fixture(scope="module")
def autoencoded(weights: dict[str, Tensor], trace: dict[str, dict[int, float]]) -> Reconstruction:
    net = sharing(weights, VQAutoencoder)
    for name, spread in trace.items():
        for index, block in enumerate(net.get_submodule(name).blocks):
            block.register_forward_hook(
                lambda _, __, output, spread=spread, index=index: spread.__setitem__(index, deviation(output))
            )
    with torch.inference_mode():
        return net(waves())


@pytest.fixture(scope="module")
def fused(weights: dict[str, Tensor], autoencoded: Reconstruction) -> FusedReconstruction:
    net = sharing(weights, FusedAutoencoder)
    net.encoder = AlreadyEncoded(autoencoded.latent)
    with torch.inference_mode():
        return net(waves())


class AlreadyEncoded(nn.Module):
    """Stands for an encoder whose output, from the same weights and image, is known: it takes a third of the time."""

    def __init__(self, latent: Tensor) -> None:
        super().__init__()
        self.latent = latent

    def forward(self, image: Tensor) -> Tensor:
        return self.latent


def sharing(weights: dict[str, Tensor], make: Callable[[], nn.Module]) -> nn.Module:
    """A network on weights that it does not copy; strict, so its keys must be among them."""
    with torch.device("meta"):
        net = make()
    net.load_state_dict({key: weights[key] for key in net.state_dict()}, assign=True)
    return net.eval()


def deviation(values: Tensor) -> float:
    return values.double().std(correction=0).item()


def close(values: Tensor, expected: list[float] | list[list[float]] | float) -> None:
    torch.testing.assert_close(values.float(), torch.tensor(expected), atol=TOLERANCE, rtol=0)


def check_image(image: Tensor, mean: float, spread: float, pixels: list[list[float]]) -> None:
    assert image.shape == (1, 3, 512, 512)
    close(image.double().mean(), mean)
    assert deviation(image) == pytest.approx(spread, abs=TOLERANCE)
    close(torch.stack([image[0, :, y, x] for y, x in PIXELS]), pixels)


def test_the_formula():
    assert sequence("encoder.blocks.0.weight", 3).tolist() == pytest.approx(
        [0.15782404, -0.62234108, 0.09808982], abs=1e-8
    )


def test_encoder(autoencoded: Reconstruction, trace: dict[str, dict[int, float]]):
    latent = autoencoded.latent
    assert latent.shape == (1, 256, 16, 16)
    close(latent.mean(), -0.021688)
    assert deviation(latent) == pytest.approx(0.979895, abs=TOLERANCE)
    close(latent[0, :5, 0, 0], [1.01152, 1.37207, -0.41246, 0.02790, 0.26917])
    expected = {0: 0.683867, 2: 1.142200, 3: 1.081672, 17: 2.012159, 22: 2.447149, 23: 1.008540}
    assert {index: trace["encoder"][index] for index in expected} == pytest.approx(expected, abs=TOLERANCE)


def test_shared_codes(autoencoded: Reconstruction):
    indices = autoencoded.quantized.indices
    first = [640, 477, 477, 477, 508, 363, 254, 158, 640, 477, 477, 477, 346, 363, 254, 518]
    assert indices.shape == (1, 16, 16)
    assert indices.flatten()[:16].tolist() == first
    assert len(indices.unique()) == 83
    assert indices.sum() == 117010
    close(autoencoded.quantized.loss, 1.161806)
    close(perplexity(torch.bincount(indices.flatten(), minlength=1024)), 52.8122)


def test_generator(autoencoded: Reconstruction, trace: dict[str, dict[int, float]]):
    expected = {0: 0.280896, 2: 0.778107, 7: 1.610270, 8: 1.550240, 22: 2.539980, 23: 1.001636}
    assert {index: trace["generator"][index] for index in expected} == pytest.approx(expected, abs=TOLERANCE)
    check_image(
        autoencoded.image,
        -0.359092,
        0.856443,
        [
            [-0.02514, -0.25146, -0.30655],
            [0.50085, -0.83291, 0.33045],
            [-1.47409, -0.44548, -2.48702],
            [0.16944, -0.19013, -0.78787],
        ],
    )


@pytest.mark.parametrize(
    ("domain", "first", "total"),
    [
        ("shared", [640, 477, 477, 477, 508, 363], 117010),
        ("diffuse", [555, 691, 691, 157, 361, 1003], 134068),
        ("specular", [262, 754, 562, 796, 211, 600], 131258),
        ("normal", [867, 547, 547, 938, 149, 317], 125454),
        ("roughness", [643, 20, 813, 264, 984, 659], 121918),
    ],
)
def test_domain_codes(fused: FusedReconstruction, domain: str, first: list[int], total: int):
    indices = fused.fused.quantized[DOMAINS.index(domain)].indices
    assert indices.flatten()[:6].tolist() == first
    assert indices.sum() == total


def test_fusion_weights(fused: FusedReconstruction):
    weights = fused.fused.weights
    assert weights.shape == (1, 5, 16, 16)
    close(weights.mean(), 1.638503)
    assert deviation(weights) == pytest.approx(10.226929, abs=TOLERANCE)
    close(weights.mean((0, 2, 3)), [6.03032, -14.53261, 3.80609, 1.11801, 11.77072])
    close(weights[0, :, 0, 0], [-3.26173, 0.07062, -0.87564, -1.25566, -3.15635])


def test_fused_autoencoder(fused: FusedReconstruction):
    check_image(
        fused.image,
        -0.225253,
        1.041106,
        [
            [0.02851, 0.10406, -0.16964],
            [0.08524, -0.93926, -2.48318],
            [0.80340, -2.28988, -1.47050],
            [0.17376, -0.18893, -0.10151],
        ],
    )


def test_swapper(weights: dict[str, Tensor], autoencoded: Reconstruction):
    identity = normalize(sequence("latent", 512), dim=0).float()[None]
    close(identity[0, :3], [-0.028628, 0.044207, 0.010119])
    net = sharing(weights, Swapper)
    net.encoder = AlreadyEncoded(autoencoded.latent)
    with torch.inference_mode():
        swapped = net(waves(), identity)
    check_image(
        swapped.image,
        -0.201752,
        1.014752,
        [
            [-0.16898, -0.17576, -0.28435],
            [0.36092, 0.25638, -0.11574],
            [-1.53630, 0.94152, -2.02760],
            [-0.14578, -0.31904, -0.46573],
        ],
    )


def test_identity_encoder():
    crop = identity_crop(waves())
    assert crop.shape == (1, 3, 112, 112)
    close(crop.mean(), 0.006107)
    assert deviation(crop) == pytest.approx(0.707869, abs=TOLERANCE)
    net = fill(IdentityEncoder(), gain=0.5)
    with torch.inference_mode():
        embedding = net(crop)
        unit = net.embed(waves())
    close(embedding.norm(), 5.357347)
    close(unit[0, :6], [0.016325, -0.014894, -0.003465, 0.016747, 0.036011, 0.041191])
    torch.testing.assert_close(unit, embedding / embedding.norm())


def test_patch_discriminator():
    net = fill(PatchDiscriminator())
    with torch.inference_mode():
        logits = net(waves())
    assert logits.shape == (1, 1, 30, 30)
    close(logits.mean(), -0.056638)
    assert deviation(logits) == pytest.approx(0.059128, abs=TOLERANCE)
    close(logits[0, 0, 0, :4], [-0.10745, -0.02044, -0.03702, -0.04755])
