"""Stage 2: light, statistical albedo, shape, expression and pose from the photo, coarse to fine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor

from nextface.config import OptimConfig
from nextface.fitting import per_image
from nextface.fitting.appearance import Painter
from nextface.fitting.ladder import START, Rung, climb, rung
from nextface.fitting.landmark_loss import LandmarkLoss
from nextface.fitting.last_good import LastGood
from nextface.fitting.light import LightPrior, light_prior, linear_start
from nextface.fitting.losses import encode, perceptual, robust
from nextface.fitting.observation import Observation
from nextface.fitting.outliers import fit_trust, inlier_weight, skin_image
from nextface.fitting.progress import Progress
from nextface.fitting.skin_tone import SkinTone
from nextface.morphable.model import MorphableModel
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments
from nextface.rendering.render import to_view, viewing_directions
from nextface.scene import Scene

MOVES = ("light", "exposure", "white_balance", "albedo", "shape", "expression", "rotation", "translation", "focal")

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
_SHADOWS_EVERY = 40
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


def fit_statistical(
    scene: Scene, observation: Observation, model: MorphableModel, config: OptimConfig, progress: Progress
) -> Scene:
    """Move `MOVES` so that the drawn head meets the photo.

    The objective is a negative log posterior: robust photo residuals on a perceptual scale, landmarks, and Gaussian
    priors of coefficients, light, exposure and white balance.
    """
    painter = Painter(model, rasterizer_for(scene.shape.device))
    prior = light_prior(scene.bands).to(scene.device)
    scene = scene.detached()
    trust = fit_trust(model)
    skin = SkinTone.of(model, trust)
    unknowns = _start(scene, observation, painter, prior, trust, skin)
    landmarks = LandmarkLoss(model, observation)
    landmarks.rechoose(scene.vertices_camera(model), Camera.of(scene))
    leaves = [getattr(unknowns, name).requires_grad_(True) for name in _RATES]
    optimiser = torch.optim.Adam(
        [{"params": [leaf], "lr": rate, "base": rate} for leaf, rate in zip(leaves, _RATES.values(), strict=True)],
        betas=(0.9, 0.95),
    )
    fates = LastGood(leaves)
    for number, level, first in climb(observation, config.iter_step2):
        if first:
            fates.keep()
        light_only = number < _LIGHT_ONLY * config.iter_step2
        decay = _decay(number / config.iter_step2)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * decay
        current = unknowns.scene(scene, prior, skin, config)
        if config.self_shadowing and (number % _SHADOWS_EVERY == 0 or first):
            painter.update_shadows(current)
        with torch.set_grad_enabled(not light_only):
            vertices = current.vertices_camera(model)
        colour, seen, normal = painter.draw(current, level.camera(current), vertices)
        residual = perceptual(encode(colour) - encode(seen.pixels.pack(level.image)))
        if level.skin is None:
            level.skin = skin_image(seen.pixels, level.image, observation, level.scale)
        believed = _believed(seen, trust, normal.detach(), level, level.camera(scene)) * seen.pixels.pack(level.skin)
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
        progress.step(fates.judge(loss), lambda: unknowns.scene(scene, prior, skin, config).detached())
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        if light_only:
            for name in _GEOMETRY:
                getattr(unknowns, name).grad = None
        unknowns.zoom.grad = _where_free(unknowns.zoom.grad, observation)
        optimiser.step()
        with torch.no_grad():
            unknowns.expression.clamp_(model.expression_lower, model.expression_upper)
            fates.judge_state()
            fates.restore()
            if number % _INLIER_EVERY == _INLIER_EVERY - 1:
                if fates.all_lost():
                    break
                landmarks.rechoose(vertices.detach(), Camera.of(current))
    progress.diverged(fates.lost(), "scene")
    return unknowns.scene(scene, prior, skin, config).detached()


def _start(
    scene: Scene, observation: Observation, painter: Painter, prior: LightPrior, trust: Tensor, skin: SkinTone
) -> _Unknowns:
    """Light and gains by linear least squares on the mean albedo, everything else from the scene."""
    model = painter.model
    with torch.no_grad():
        level = rung(observation, START)
        camera = level.camera(scene)
        vertices = scene.vertices_camera(model)
        _, seen, normal = painter.draw(scene, camera, vertices)
        own = skin_image(seen.pixels, level.image, observation, level.scale)
        believed = _believed(seen, trust, normal, level, camera) * seen.pixels.pack(own)
        albedo = seen.interpolate(model.diffuse(scene.albedo).expand(scene.batch, -1, -1))
        observed = seen.pixels.pack(level.image)
        latent, gains = linear_start(prior, normal, albedo, observed, believed, seen.pixels)
        latent, gains = (torch.where(torch.isfinite(found), found, 0.0) for found in (latent, gains))
    return _Unknowns(
        latent=latent,
        tone=gains + skin.log_albedo(scene.albedo),
        albedo=scene.albedo.clone(),
        shape=scene.shape.clone(),
        expression=scene.expression.clone(),
        rotation=scene.rotation.clone(),
        translation=torch.zeros_like(scene.translation),
        zoom=torch.zeros_like(scene.focal),
        pivot=(trust / trust.sum() * model.mean).sum(0),
    )


def _believed(seen: Fragments, trust: Tensor, normal: Tensor, level: Rung, camera: Camera) -> Tensor:
    """Skin, seen not too obliquely, of usable pixels. [P]"""
    with torch.no_grad():
        pixels = seen.pixels
        region = seen.interpolate(trust[None])[:, 0].clamp(0.0, 1.0)
        facing = (normal * viewing_directions(pixels, camera)).sum(-1)
        low, high = _GRAZING
        frontal = ((facing - low) / (high - low)).clamp(0.0, 1.0)
        usable = pixels.pack(level.usable)
        return region * frontal * usable * (usable > 0.5)


def _photo_cost(residual: Tensor, weight: Tensor, seen: Fragments) -> Tensor:
    """Negative log likelihood of each photo, with the size of its errors estimated along with the rest. [B]

    With errors of unknown size the likelihood of n pixels is n/2 · log of their mean square (here: their mean robust cost).
    A photo that the model can explain well thus speaks louder than one with beard, make-up and hard shadows.
    """
    cost = robust(residual.square().sum(-1), _ROBUST_SCALE)
    return 0.5 * _INDEPENDENT * (per_image.mean(cost, weight, seen.pixels) / _SMALLEST).log1p()


def _prior_cost(unknowns: _Unknowns, start: Scene, observation: Observation, config: OptimConfig) -> Tensor:
    """Half squared standard deviations of everything that has a prior. start: what the pose stage left. [B]"""
    focal = ((start.focal / observation.focal).log() + unknowns.zoom) / observation.focal_sd.clamp_min(1e-3)
    return 0.5 * (
        _LIGHT_TRUST * unknowns.latent.square().sum(-1)
        + focal.square()
        + config.weight_albedo_reg / _STOCK * unknowns.albedo.square().sum(-1)
        + config.weight_shape_reg / _STOCK * unknowns.shape.square().sum(-1)
        + config.weight_expression_reg
        / _STOCK
        * ((unknowns.expression - start.expression) / _EXPRESSION_SD).square().sum(-1)
    )


def _decay(share: float) -> float:
    """Full rate for the first half, then a cosine down to a tenth."""
    return 1.0 if share < 0.5 else 0.55 + 0.45 * math.cos(math.pi * (2.0 * share - 1.0))


def _where_free(gradient: Tensor | None, observation: Observation) -> Tensor | None:
    """The focal length's gradient, zero where the focal length is to stay."""
    return None if gradient is None else gradient * (observation.focal_sd > 0)
