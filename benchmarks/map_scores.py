"""How far fitted skin maps are from the true ones, and what may be said of the difference between two ways to fit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import metrics
from nextface.fitting.losses import encode
from nextface.fitting.observation import Observation
from nextface.fitting.surface import Surface
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene
from nextface.textures import LaplacianTexture, SkinMaps, resized

Array = NDArray[np.float64]

MEASURED = 0.75
"""Confidence from which a texel counts as shown by the photo."""
ROUNDS = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True)
class MapScore:
    """One photo's errors, over the texels of the face's skin that it shows.

    albedo:   dB, linear Rec.709, after the one scale that brings it nearest to the truth
    whole:    the same over all of the face's skin
    specular: root mean square error of the weight; roughness: likewise
    normal:   mean angle between tangent-space normals, degrees
    residual: root mean square difference of the drawn skin from the photo, on the scale of `losses.encode`
    """

    albedo: float
    whole: float
    specular: float
    roughness: float
    normal: float
    residual: float

    def values(self) -> dict[str, float]:
        return asdict(self)


def shown_skin(maps: SkinMaps, face: Tensor) -> Tensor:
    """Texels of the face's skin that the photo showed. face: bool [T, T] -> bool [T, T]"""
    return face & (resized(maps.confidence, len(face))[0, ..., 0] > MEASURED)


def map_score(fit: SkinMaps, truth: SkinMaps, face: Tensor, residual: float) -> MapScore:
    """Maps of one resolution T; face: bool [T, T]"""
    shown = shown_skin(fit, face)
    found, true = fit.images(), truth.images()

    def rms(name: str) -> float:
        return float((found[name] - true[name])[0][shown].square().mean().sqrt())

    cosine = (found["normal"] * true["normal"])[0][shown].sum(-1).clamp(-1.0, 1.0)
    return MapScore(
        albedo=metrics.psnr(found["diffuse"][0][shown], true["diffuse"][0][shown], scaled=True),
        whole=metrics.psnr(found["diffuse"][0][face], true["diffuse"][0][face], scaled=True),
        specular=rms("specular"),
        roughness=rms("roughness"),
        normal=float(torch.rad2deg(torch.arccos(cosine)).mean()),
        residual=residual,
    )


def photo_residual(scene: Scene, observation: Observation, model: MorphableModel, self_shadowing: bool) -> float:
    """Root mean square difference of a fitted scene from its photo where it shows measured skin, on `losses.encode`'s scale."""
    assert scene.maps is not None
    maps = torch.cat([texture.full() for texture in scene.maps.textures().values()] + [scene.maps.confidence], -1)
    with torch.no_grad():
        surface = Surface.of(replace(scene, maps=None), model, maps.shape[1], self_shadowing)
        values = surface.lookup.lookup(LaplacianTexture.from_image(maps))
        skin = surface.seen.interpolate(metrics.face_vertices(model).float()[None, :, None])[:, 0]
        measured = (values[:, -1] > MEASURED) & (skin > 0.99)
        difference = encode(surface.shade(values[:, :-1])) - encode(surface.seen.pixels.pack(observation.image))
        return float(difference[measured].square().mean().sqrt())


@dataclass(frozen=True)
class Interval:
    """A statistic and the 95% interval of its bootstrap."""

    value: float
    low: float
    high: float

    def text(self, form: str) -> str:
        """Each number formatted by `form`."""
        return f"{format(self.value, form)} [{format(self.low, form)}, {format(self.high, form)}]"


def gain(one: Array, other: Array) -> Array:
    """Mean difference, along the last axis."""
    return (one - other).mean(-1)


def change(one: Array, other: Array) -> Array:
    """How much larger the mean of the one is than that of the other, as a share; along the last axis."""
    return one.mean(-1) / other.mean(-1) - 1.0


def root_change(one: Array, other: Array) -> Array:
    """`change` of the roots of mean squares, given squares."""
    return np.sqrt(one.mean(-1) / other.mean(-1)) - 1.0


def paired(statistic: Callable[[Array, Array], Array], one: Array, other: Array, seed: int = 0) -> Interval:
    """A statistic of pairs and its percentile interval over resampled pairs (Efron & Tibshirani 1993).

    statistic: of columns `[..., N]`, along the last axis; one, other: [N]
    """
    rows = np.random.default_rng(seed).integers(0, len(one), (ROUNDS, len(one)))
    low, high = np.percentile(statistic(one[rows], other[rows]), (2.5, 97.5))
    return Interval(float(statistic(one, other)), float(low), float(high))


@dataclass(frozen=True)
class Spread:
    """How recovered albedo varies. within: mean variance over the lights of each subject, [S]; between: mean variance over the
    subjects of their means over the lights"""

    within: Array
    between: float

    @property
    def ratio(self) -> float:
        return self.between / float(self.within.mean())


def spread(albedo: Tensor, shown: Tensor) -> Spread:
    """Of S subjects under L lights each. albedo: linear, each brought to its truth's scale, [S, L, N, 3]; shown: the texels
    that all photos of a subject show, [S, N]. Between subjects those texels count that two or more of them show."""
    share = shown.to(albedo)
    within = (albedo.var(1).mean(-1) * share).sum(1) / share.sum(1)
    means, count = albedo.mean(1), share.sum(0)
    common = (means * share[..., None]).sum(0) / count.clamp_min(1.0)[:, None]
    squares = ((means - common).square().mean(-1) * share).sum(0) / (count - 1.0).clamp_min(1.0)
    return Spread(within.double().numpy(), float(squares[count > 1.0].mean()))
