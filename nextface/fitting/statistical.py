"""Stage 2: light, statistical albedo, shape, expression and pose from the photo, coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nextface.config import OptimConfig
from nextface.fitting.appearance import Painter
from nextface.fitting.landmark_loss import LandmarkLoss
from nextface.fitting.light import LightPrior, light_prior, linear_start
from nextface.fitting.losses import encode, perceptual, robust
from nextface.fitting.observation import Observation
from nextface.fitting.outliers import fit_trust, inlier_weight, skin_image, unclipped
from nextface.fitting.progress import Progress
from nextface.fitting.skin_tone import SkinTone
from nextface.morphable.model import MorphableModel
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments
from nextface.rendering.render import to_view
from nextface.scene import Scene

MOVES = ("light", "exposure", "white_balance", "albedo", "shape", "expression", "rotation", "translation", "focal")

# (share of the pixels per side, share of the iterations, weight of the landmarks); no finer than _FINEST pixels: the
# statistical model holds no detail beyond that. Landmarks lead at first and let the photo decide in the end.
_LEVELS = ((0.25, 0.3, 0.5), (0.5, 0.4, 0.1), (1.0, 0.3, 0.04))
_FINEST = 256
_COARSEST = 48
_LIGHT_ONLY = 0.25
"""Share of the iterations in which light and albedo move alone, as in NextFace."""

_ROBUST_SCALE = 0.08
_INDEPENDENT = 250.0
"""Residuals of neighbouring pixels err together: the photo counts as this many independent ones."""
_SMALLEST = 1e-4
"""Mean robust residual below which a better fit means nothing: an error of 1.4% on the perceptual scale."""

_STOCK = 0.001
"""NextFace's own weights of landmarks and regularisers, which stand for those given here."""
_EXPRESSION_SD = 0.3
"""How far the photo may move the expression from the landmarks': beards, wrinkles and make-up shade like expressions."""
_LIGHT_TRUST = 0.4
"""Lights of photos not among the prior's environments lie 1.3 standard deviations out on average."""

_INLIER_EVERY = 20
_GRAZING = (0.1, 0.4)
"""Cosines to the viewer between which a surface begins to count."""

_RATES = {
    "latent": 0.05,
    "tone": 0.01,
    "albedo": 0.05,
    "shape": 0.03,
    "expression": 0.03,
    "rotation": 0.004,
    "translation": 0.0005,
    "zoom": 0.004,
}
"""Adam steps: standard deviations, logs, radians; translation in shares of the distance."""


_GEOMETRY = ("shape", "expression", "rotation", "translation", "zoom")


@dataclass
class _Unknowns:
    """Leaves of the optimisation.

    tone:        log of gain times mean skin albedo per channel, which the photo shows; `SkinTone` shares it out. [B, 3]
    albedo:      coefficients, of which the part counts that leaves the mean skin alone. [B, Ka]
    translation: as a share of the starting distance. [B, 3]
    zoom:        log of the focal length and of the distance over the starting ones, so that the head keeps its size. [B]
    pivot:       middle of the face, about which the head turns: about the model's origin, far behind it, rotation and
                 translation would fight. Fixed. [3]
    """

    latent: Tensor
    tone: Tensor
    albedo: Tensor
    shape: Tensor
    expression: Tensor
    rotation: Tensor
    translation: Tensor
    zoom: Tensor
    pivot: Tensor

    def scene(self, start: Scene, prior: LightPrior, skin: SkinTone, config: OptimConfig) -> Scene:
        albedo = skin.pattern(self.albedo) + skin.share(self.tone.detach(), config.weight_albedo_reg / _STOCK)
        gain = self.tone - skin.log_albedo(albedo.detach())
        return replace(
            start,
            light=prior.light(self.latent),
            exposure=gain[:, 1],
            white_balance=gain[:, ::2] - gain[:, 1:2],
            albedo=albedo,
            shape=self.shape,
            expression=self.expression,
            rotation=self.rotation,
            translation=start.translation
            + (self.translation + self._dolly()) * start.translation[:, 2:]
            + self._held_pivot(start),
            focal=start.focal * self.zoom.exp(),
        )

    def _dolly(self) -> Tensor:
        """Backwards along the optical axis by as much as the focal length grows. [B, 3]"""
        growth = self.zoom.exp() - 1.0
        return torch.stack([torch.zeros_like(growth), torch.zeros_like(growth), growth], -1)

    def _held_pivot(self, start: Scene) -> Tensor:
        """What keeps the pivot in place when the head turns about it instead of about the model's origin. [B, 3]"""
        turned = roma.rotvec_to_rotmat(self.rotation) - start.head_rotation()
        return -to_view(turned @ self.pivot)


@dataclass
class _Level:
    """One rung of the coarse-to-fine ladder."""

    image: Tensor
    usable: Tensor
    camera: Camera
    inlier: Tensor
    skin: Tensor | None = None
    landmarks: float = 1.0


def fit_statistical(
    scene: Scene, observation: Observation, model: MorphableModel, config: OptimConfig, progress: Progress
) -> Scene:
    """Move `MOVES` so that the drawn head meets the photo.

    The objective is a negative log posterior: robust photo residuals on a perceptual scale, landmarks, and Gaussian
    priors of coefficients, light, exposure and white balance.
    """
    painter = Painter(model, rasterizer_for(scene.shape.device))
    prior = light_prior(scene.bands)
    scene = scene.detached()
    trust = fit_trust(model)
    skin = SkinTone.of(model, trust)
    unknowns = _start(scene, observation, painter, prior, trust, skin)
    landmarks = LandmarkLoss(model, observation)
    landmarks.rechoose(scene.vertices_camera(model), Camera.of(scene))
    for name in _RATES:
        getattr(unknowns, name).requires_grad_(True)
    optimiser = torch.optim.Adam(
        [{"params": [getattr(unknowns, name)], "lr": rate, "base": rate} for name, rate in _RATES.items()],
        betas=(0.9, 0.95),
    )
    good = scene
    for number, level, first in _schedule(scene, observation, config.iter_step2):
        if first:
            good = unknowns.scene(scene, prior, skin, config).detached()
        light_only = number < _LIGHT_ONLY * config.iter_step2
        decay = _decay(number / config.iter_step2)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * decay
        current = unknowns.scene(scene, prior, skin, config)
        with torch.set_grad_enabled(not light_only):
            vertices = current.vertices_camera(model)
        camera = Camera.of(current).resized(level.camera.height, level.camera.width)
        colour, seen, normal = painter.draw(current, camera, vertices)
        residual = perceptual(encode(colour) - encode(seen.pixels.pack(level.image)))
        if level.skin is None:
            level.skin = skin_image(seen.pixels, level.image, observation)
        believed = _believed(seen, trust, normal.detach(), level) * seen.pixels.pack(level.skin)
        if number % _INLIER_EVERY == 0 or first:
            level.inlier = seen.pixels.unpack(
                inlier_weight(residual.detach(), believed, seen.pixels)[:, None], background=1.0
            )[..., 0]
        weight = believed * seen.pixels.pack(level.inlier)
        photo = _photo_cost(residual, weight, seen)
        prior_cost = _prior_cost(unknowns, scene, observation, config)
        landmark_weight = level.landmarks * config.weight_landmarks_loss_step2 / _STOCK
        landmark_cost = landmark_weight * landmarks(vertices, Camera.of(current))
        loss = photo + prior_cost + landmark_cost
        if not bool(torch.isfinite(loss)):
            return _stopped(progress, good)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if light_only:
            for name in _GEOMETRY:
                getattr(unknowns, name).grad = None
        unknowns.zoom.grad = _where_free(unknowns.zoom.grad, observation)
        optimiser.step()
        with torch.no_grad():
            unknowns.expression.clamp_(model.expression_lower, model.expression_upper)
            if number % _INLIER_EVERY == _INLIER_EVERY - 1:
                landmarks.rechoose(vertices.detach(), Camera.of(current))
        progress.step(float(loss.detach()), lambda: unknowns.scene(scene, prior, skin, config).detached())
    result = unknowns.scene(scene, prior, skin, config).detached()
    return result if result.is_finite() else _stopped(progress, good)


def _start(
    scene: Scene, observation: Observation, painter: Painter, prior: LightPrior, trust: Tensor, skin: SkinTone
) -> _Unknowns:
    """Light and gains by linear least squares on the mean albedo, everything else from the scene."""
    model = painter.model
    with torch.no_grad():
        level = _level(scene, observation, _share(scene, 0.5))
        vertices = scene.vertices_camera(model)
        _, seen, normal = painter.draw(scene, level.camera, vertices)
        own = skin_image(seen.pixels, level.image, observation)
        believed = _believed(seen, trust, normal, level) * seen.pixels.pack(own)
        albedo = seen.interpolate(model.diffuse(scene.albedo).expand(scene.batch, -1, -1))
        observed = seen.pixels.pack(level.image)
        latents, gains = [], []
        for number in range(scene.batch):
            mine = seen.pixels.image == number
            latent, gain = linear_start(prior, normal[mine], albedo[mine], observed[mine], believed[mine])
            latents.append(latent)
            gains.append(gain)
    return _Unknowns(
        latent=torch.stack(latents),
        tone=torch.stack(gains) + skin.log_albedo(scene.albedo),
        albedo=scene.albedo.clone(),
        shape=scene.shape.clone(),
        expression=scene.expression.clone(),
        rotation=scene.rotation.clone(),
        translation=torch.zeros_like(scene.translation),
        zoom=torch.zeros_like(scene.focal),
        pivot=(trust / trust.sum() * model.mean).sum(0),
    )


def _share(scene: Scene, share: float) -> float:
    """The side of a level relative to the crop's."""
    longest = max(scene.height, scene.width)
    return min(1.0, max(share * min(longest, _FINEST), _COARSEST) / longest)


def _schedule(scene: Scene, observation: Observation, iterations: int) -> Iterator[tuple[int, _Level, bool]]:
    """Every iteration with its level, and whether it is the level's first."""
    ends = [round(iterations * share) for share in _cumulative([share for _, share, _ in _LEVELS])]
    number = 0
    for (share, _, landmarks), end in zip(_LEVELS, ends, strict=True):
        level = replace(_level(scene, observation, _share(scene, share)), landmarks=landmarks)
        first = True
        while number < end:
            yield number, level, first
            first = False
            number += 1


def _cumulative(shares: list[float]) -> list[float]:
    return [sum(shares[: number + 1]) for number in range(len(shares))]


def _level(scene: Scene, observation: Observation, share: float) -> _Level:
    height, width = round(scene.height * share), round(scene.width * share)

    def shrink(images: Tensor) -> Tensor:
        return interpolate(images.permute(0, 3, 1, 2), (height, width), mode="area").permute(0, 2, 3, 1)

    usable = observation.valid & unclipped(observation.image)
    image = shrink(observation.image).contiguous()
    return _Level(
        image=image,
        usable=shrink(usable[..., None].float())[..., 0],
        camera=Camera.of(scene).resized(height, width),
        inlier=torch.ones_like(image[..., 0]),
    )


def _believed(seen: Fragments, trust: Tensor, normal: Tensor, level: _Level) -> Tensor:
    """Skin, seen not too obliquely, of usable pixels. [P]"""
    with torch.no_grad():
        pixels = seen.pixels
        region = seen.interpolate(trust[None])[:, 0].clamp(0.0, 1.0)
        rays = to_view(level.camera.rays(pixels.image, pixels.row, pixels.column))
        facing = -(normal * torch.nn.functional.normalize(rays, dim=-1)).sum(-1)
        low, high = _GRAZING
        frontal = ((facing - low) / (high - low)).clamp(0.0, 1.0)
        usable = pixels.pack(level.usable)
        return region * frontal * usable * (usable > 0.5)


def _photo_cost(residual: Tensor, weight: Tensor, seen: Fragments) -> Tensor:
    """Negative log likelihood of the photo, summed over images, with the size of its errors estimated along with the rest.

    With errors of unknown size the likelihood of n pixels is n/2 · log of their mean square (here: their mean robust cost).
    A photo that the model can explain well thus speaks louder than one with beard, make-up and hard shadows.
    """
    cost = robust(residual.square().sum(-1), _ROBUST_SCALE) * weight
    pixels = seen.pixels
    sums = cost.new_zeros(pixels.batch).index_add(0, pixels.image, cost)
    weights = weight.new_zeros(pixels.batch).index_add(0, pixels.image, weight)
    return 0.5 * _INDEPENDENT * (sums / weights.clamp_min(1.0) / _SMALLEST).log1p().sum()


def _prior_cost(unknowns: _Unknowns, start: Scene, observation: Observation, config: OptimConfig) -> Tensor:
    """Half squared standard deviations of everything that has a prior. start: what the pose stage left"""
    focal = ((start.focal / observation.focal).log() + unknowns.zoom) / observation.focal_sd.clamp_min(1e-3)
    return 0.5 * (
        _LIGHT_TRUST * unknowns.latent.square().sum()
        + focal.square().sum()
        + config.weight_albedo_reg / _STOCK * unknowns.albedo.square().sum()
        + config.weight_shape_reg / _STOCK * unknowns.shape.square().sum()
        + config.weight_expression_reg
        / _STOCK
        * ((unknowns.expression - start.expression) / _EXPRESSION_SD).square().sum()
    )


def _decay(share: float) -> float:
    """Full rate for the first half, then a cosine down to a tenth."""
    return 1.0 if share < 0.5 else 0.55 + 0.45 * math.cos(math.pi * (2.0 * share - 1.0))


def _stopped(progress: Progress, good: Scene) -> Scene:
    progress.stop(f"the statistical stage diverged at iteration {len(progress.losses)}; kept the last good scene")
    return good


def _where_free(gradient: Tensor | None, observation: Observation) -> Tensor | None:
    """The focal length's gradient, zero where the focal length is to stay."""
    return None if gradient is None else gradient * (observation.focal_sd > 0)
