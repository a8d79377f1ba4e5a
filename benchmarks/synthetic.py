"""Synthetic photos whose answer is known: who, where, which light, which camera, and the skin's own detail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial.transform import Rotation
from torch import Tensor

from benchmarks import metrics
from benchmarks.skin import person_maps
from nextface.color import linear_to_srgb, luminance
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.rendering.transport import Transport
from nextface.scene import Scene, to_camera
from nextface.textures import SkinMaps

Array = NDArray[np.float32]

LIGHTS = Path(__file__).parent / "data" / "heldout_lights.npz"
BANDS = 9
SUPERSAMPLING = 2
ASPECT = 0.8
HEAD_MM, HEAD_PIXELS = 265.0, 440
LENS_MM, LENS_SPREAD = 50.0, 0.4
DISTANCE_MM, DISTANCE_SPREAD = 1000.0, 0.4
"""Medians and logarithmic spreads of the 35 mm equivalent focal length and of the distance."""
SMALLEST_SHARE, LARGEST_SHARE = 0.2, 0.8
"""Of the frame's height that the head takes."""
FULL_FRAME_DIAGONAL_MM = 43.27
COARSE = 4
"""Pixels of the frame per pixel of the background, which is out of focus."""
TONES = (60.0, 48.0, 35.0, 20.0, 0.0, -20.0, -45.0)
"""Typology angles that the people are drawn to, degrees: very light to dark."""
YAW_LIMIT, PITCH_LIMIT, ROLL_LIMIT = 40.0, 14.0, 12.0
METERED = 0.4
"""Share of the face in what the camera meters: how far the exposure makes up for dark and light skin."""
SKIN_HUE, SKIN_HUE_SD = (11.0, 16.0), (3.0, 3.0)
"""CIELAB a* and b* of facial skin of all tones and their spread."""
SHADOW_DIRECTIONS = 512
READ_NOISE, SHOT_NOISE = 0.002, 1e-4


@dataclass(frozen=True)
class SyntheticPhoto:
    """A photo and its answer.

    pixels:  8-bit sRGB [H, W, 3]
    scene:   the truth at the photo's full frame, with skin maps
    relight: a light that the photo does not show, SH of the view frame. [1, L, 3]
    light:   name of the environment, "side" appended where the strongest light comes from the side
    tone:    typology angle of the mean face skin, degrees
    yaw:     of the head, degrees
    """

    name: str
    pixels: NDArray[np.uint8]
    scene: Scene
    relight: Tensor
    light: str
    tone: float
    yaw: float


Skin = Callable[[MorphableModel, Tensor, int, np.random.Generator], SkinMaps]
"""Makes a person's maps: albedo coefficients [1, Ka] of about their tone, side of the maps."""

Draw = Callable[[Scene, MorphableModel], tuple[Tensor, Tensor]]
"""Draws a scene: mask [H, W] bool, and linear picture [H, W, 3] without exposure."""


def draw_shadowed(scene: Scene, model: MorphableModel) -> tuple[Tensor, Tensor]:
    """By the renderer itself, with fine self-shadowing."""
    drawn = render(scene, model, transport=Transport.of_head(scene, model, SHADOW_DIRECTIONS))
    return drawn.mask[0], drawn.image[0]


def make(
    model: MorphableModel,
    number: int,
    *,
    texture: int = 1024,
    scale: float = 1.0,
    light: tuple[str, Tensor] | None = None,
    detail: bool = True,
    skin: Skin = person_maps,
    draw: Draw = draw_shadowed,
) -> SyntheticPhoto:
    """Photo `number` of an endless series: neighbours differ in yaw, tone and light. Same number, same photo.

    texture: of the person's skin maps; scale: of the picture, 1 for a head of `HEAD_PIXELS`; light: name and SH coefficients
    [1, L, 3] of another light than the series has there; detail: freckles, moles, pores and wrinkles, else the statistical skin alone; skin: what makes the
    person's maps; draw: what draws the picture
    """
    rng = np.random.default_rng([20, number])
    # Steps that share no factor with the cycle lengths spread the three over one another.
    yaw = YAW_LIMIT * ((number * 7 % 16 + rng.random()) / 16.0) * (1.0 if number % 2 else -1.0)
    albedo = _albedo(model, TONES[number * 3 % len(TONES)], rng)
    shape = torch.from_numpy(np.clip(rng.standard_normal((1, model.shape_basis.shape[0])), -2.5, 2.5)).float() * 0.8
    expression = _expression(model, rng)
    rotation = _rotation(yaw, rng.uniform(-1, 1) * PITCH_LIMIT, rng.uniform(-1, 1) * ROLL_LIMIT)
    name, radiance, relight = lights_of(number, rng)
    if light is not None:
        name, radiance = light
    focal, principal, translation, height, width = _camera(
        model, model.vertices(shape, expression), rotation, scale, rng
    )
    scene = Scene(
        shape=shape,
        albedo=albedo,
        expression=expression,
        rotation=rotation,
        translation=translation,
        focal=focal,
        principal=principal,
        light=radiance,
        exposure=torch.zeros(1),
        white_balance=torch.from_numpy(rng.normal(0.0, 0.06, (1, 2))).float(),
        height=height,
        width=width,
        maps=skin(model, albedo, texture, rng) if detail else None,
    )
    pixels, exposure = _photograph(scene, model, rng, draw)
    scene = replace(scene, exposure=torch.tensor([exposure]))
    tone = float(metrics.typology_angle(model.diffuse(albedo)[0, metrics.face_vertices(model)].mean(0)))
    return SyntheticPhoto(f"synthetic_{number:02d}", pixels, scene, relight, name, tone, yaw)


def seen_through(truth: Scene, left: float, top: float, scale: float, height: int, width: int) -> Scene:
    """The truth in a crop of its frame: crop = (full - (left, top)) · scale."""
    return replace(
        truth,
        focal=truth.focal * scale,
        principal=(truth.principal - truth.principal.new_tensor([left, top])) * scale,
        height=height,
        width=width,
    )


def _albedo(model: MorphableModel, tone: float, rng: np.random.Generator) -> Tensor:
    """Coefficients [1, Ka] of a random person whose mean face skin has nearly the typology angle `tone`.

    Far from the model's mean a Gaussian also draws colours that no skin has: of the people of that tone, one of the more
    likely ones is taken, and none that is out of range or off the range of hues measured on skin (Xiao et al. 2017).
    """
    face = metrics.face_vertices(model)
    basis = model.diffuse_basis[:, face][:, ::7]
    candidates = torch.from_numpy(rng.standard_normal((4000, len(basis)))).float() * 1.2
    means = model.diffuse_mean[face].mean(0) + candidates @ basis.mean(1)
    angles = metrics.typology_angle(means.clamp_min(1e-3))
    hues = metrics.lab(means.clamp_min(1e-3))[:, 1:]
    unlikely = candidates.square().mean(-1) + (
        (hues - hues.new_tensor(SKIN_HUE)) / hues.new_tensor(SKIN_HUE_SD)
    ).square().sum(-1)
    unlikely = unlikely + 10.0 * ((angles - tone).abs() > 5.0) + ((angles - tone).abs() / 5.0)
    for best in unlikely.argsort()[rng.permutation(12)]:
        colours = model.diffuse_mean[face][::7] + (candidates[best] @ basis.flatten(1)).unflatten(0, (-1, 3))
        if float((colours.amin(-1) < 0.004).float().mean()) < 0.02:
            break
    return candidates[best][None]


def _expression(model: MorphableModel, rng: np.random.Generator) -> Tensor:
    """One to four units at moderate strength, mostly with their mirror twins. [1, Ke]"""
    basis = model.expression_basis
    mirrored = basis[:, model.mirror] * basis.new_tensor([-1.0, 1.0, 1.0])
    distance = (basis[:, None] - mirrored[None]).square().sum((-1, -2)) if len(basis) < 64 else None
    upper = model.expression_upper.clamp(max=2.5)
    lower = model.expression_lower.clamp(min=-2.5)
    coefficients = torch.zeros(1, len(basis))
    for unit in rng.choice(len(basis), rng.integers(1, 5), replace=False):
        strength = rng.uniform(0.15, 0.6)
        value = strength * (float(lower[unit]) if rng.random() < 0.5 and lower[unit] < 0 else float(upper[unit]))
        coefficients[0, unit] = value
        if distance is not None and rng.random() < 0.8:
            coefficients[0, int(distance[unit].argmin())] = value
    return coefficients


def _rotation(yaw: float, pitch: float, roll: float) -> Tensor:
    """Rotation vector [1, 3] in the view frame: roll after pitch after yaw, degrees."""
    turned = Rotation.from_euler("yxz", [yaw, pitch, roll], degrees=True)
    return torch.from_numpy(turned.as_rotvec()[None]).float()


def lights_of(number: int, rng: np.random.Generator) -> tuple[str, Tensor, Tensor]:
    """Name, light of the photo and another environment's light for relighting, both of unit frontal irradiance. [1, L, 3]

    Every third photo is lit from the side. Views in which most light comes from behind the head are passed over.
    """
    with np.load(LIGHTS, allow_pickle=False) as file:
        lights, names = torch.from_numpy(file["light"])[:, :, : BANDS**2], file["name"]
    count, yaws = lights.shape[:2]
    toward = luminance(lights[:, :, 1:4])  # y, z, x components of the first band
    chosen, other = number % count, (number + 1 + number // count % (count - 1)) % count
    picks = []
    for environment, side in ((chosen, number % 3 == 1), (other, False)):
        frontal = torch.nonzero(toward[environment, :, 1] > -0.7)[:, 0]
        sideways = toward[environment, frontal, 2].abs()
        order = sideways.argsort(descending=True)
        pool = order[: max(2, len(order) // 6)] if side else order[len(order) // 6 :]
        picks.append(lights[environment, frontal[pool[int(rng.integers(len(pool)))]]][None])
    return f"{names[chosen]}{' side' if number % 3 == 1 else ''}", picks[0], picks[1]


def _camera(
    model: MorphableModel, vertices: Tensor, rotation: Tensor, scale: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Focal [1], principal [1, 2], translation [1, 3], height and width of a frame of aspect 4:5.

    Lens and distance are drawn apart from one another, as in people's albums; the frame has as many pixels as the head
    needs to be `HEAD_PIXELS` tall.
    """
    turned = to_camera(vertices, roma.rotvec_to_rotmat(rotation), torch.zeros(1, 3))[0]
    share = 0.0
    while not SMALLEST_SHARE < share < LARGEST_SHARE:
        lens = float(np.exp(rng.normal(np.log(LENS_MM), LENS_SPREAD)))
        distance = float(np.exp(rng.normal(np.log(DISTANCE_MM), DISTANCE_SPREAD)))
        focal_heights = lens / FULL_FRAME_DIAGONAL_MM * float(np.hypot(1.0, ASPECT))
        share = focal_heights * HEAD_MM / distance
    height = round(HEAD_PIXELS * scale / share)
    width = round(height * ASPECT)
    focal = focal_heights * height
    room = 0.3 * (1.0 - share)
    pixel = torch.tensor([width * (0.5 + room * rng.uniform(-1, 1)), height * (0.5 + room * rng.uniform(-1, 0.5))])
    principal = torch.tensor([width / 2.0, height / 2.0])
    ray = torch.cat([(pixel - principal) / focal, torch.ones(1)])
    middle = (turned.amax(0) + turned.amin(0)) / 2.0
    centre = torch.stack([middle[0], middle[1], turned[metrics.face_vertices(model), 2].mean()])
    return torch.tensor([focal]), principal[None], (distance * ray - centre)[None].float(), height, width


def _photograph(
    scene: Scene, model: MorphableModel, rng: np.random.Generator, draw: Draw
) -> tuple[NDArray[np.uint8], float]:
    """Expose, lay over a background, add the sensor's noise and quantise. Returns 8-bit sRGB and the log exposure."""
    left, top, right, bottom = _head_window(scene, model)
    window = (slice(top, bottom), slice(left, right))
    close = seen_through(
        scene, left, top, SUPERSAMPLING, (bottom - top) * SUPERSAMPLING, (right - left) * SUPERSAMPLING
    )
    covered, image = draw(close, model)
    mask = np.zeros((scene.height, scene.width, 1), np.float32)
    mask[window] = _shrink(covered[..., None].float()).numpy()
    bright = luminance(image[covered])
    # A centre-weighted meter corrects for the subject in part; the 98th percentile stays below white.
    exposure = METERED * np.log(0.30 / float(bright.mean())) + rng.normal(0.0, 0.15)
    exposure = float(min(exposure, np.log(0.92 / float(bright.sort().values[int(0.98 * len(bright))]))))
    white_balance = np.exp(np.array([scene.white_balance[0, 0], 0.0, scene.white_balance[0, 1]], np.float32))
    picture = (1.0 - mask) * _background(scene, mask[..., 0], white_balance, rng)
    picture[window] += _shrink(image).numpy() * np.exp(exposure)
    noise = rng.standard_normal(picture.shape, np.float32) * np.sqrt(READ_NOISE**2 + SHOT_NOISE * picture.clip(0.0))
    encoded = linear_to_srgb(torch.from_numpy(picture + noise).float())
    return (encoded * 255.0).round().to(torch.uint8).numpy(), exposure


def _head_window(scene: Scene, model: MorphableModel) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels that the head covers, within the frame."""
    points = Camera.of(scene).project(scene.vertices_camera(model))[0]
    (left, top), (right, bottom) = (points.amin(0) - 2).int().tolist(), (points.amax(0) + 3).int().tolist()
    return max(left, 0), max(top, 0), min(right, scene.width), min(bottom, scene.height)


def _shrink(image: Tensor) -> Tensor:
    """Area average by the supersampling factor. `[H, W, C]`"""
    channels_first = image.permute(2, 0, 1)[None]
    return torch.nn.functional.avg_pool2d(channels_first, SUPERSAMPLING)[0].permute(1, 2, 0)


def _background(scene: Scene, mask: Array, white_balance: Array, rng: np.random.Generator) -> Array:
    """Out-of-focus blotches of colour, with shoulders in a plain cloth before them. [H, W, 3] linear"""
    height, width = scene.height // COARSE, scene.width // COARSE
    picture = np.ones((height, width, 3)) * rng.uniform(0.08, 0.5) * rng.uniform(0.9, 1.1, 3)
    for cells, strength in ((3, 0.5), (8, 0.35), (20, 0.2)):
        field = rng.standard_normal((cells + 3, cells + 3, 3))
        grown = zoom(field, (height / cells, width / cells, 1), order=3)[:height, :width]
        picture *= np.exp(strength * (grown.mean(-1, keepdims=True) + 0.05 * grown))
    rows, columns = np.nonzero(mask[::COARSE, ::COARSE][:height, :width] > 0.5)
    tall, bottom = np.ptp(rows), rows.max()
    middle = columns[rows > bottom - 0.05 * tall].mean()
    y, x = np.mgrid[:height, :width]
    shoulders = y > bottom - 0.17 * tall + 0.4 * tall * ((x - middle) / (0.65 * tall)) ** 2
    cloth = rng.uniform(0.03, 0.5) * rng.uniform(0.6, 1.4, 3)
    picture = gaussian_filter(np.where(shoulders[..., None], cloth, picture), (1.0, 1.0, 0)) * white_balance
    channels_first = torch.from_numpy(picture.clip(0.0, 1.2)).float().permute(2, 0, 1)[None]
    grown = torch.nn.functional.interpolate(channels_first, (scene.height, scene.width), mode="bilinear")
    return grown[0].permute(1, 2, 0).numpy()
