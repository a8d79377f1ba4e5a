"""Region weights of a face mesh from a few named points on it (the names of the Basel Face Model's own landmarks)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nextface.morphable.model import REGIONS

Floats = NDArray[np.float64]
Points = Mapping[str, Floats]

NEEDED = (
    "center.chin.tip",
    "center.front.trichion",
    "center.lips.lower.outer",
    "center.lips.upper.outer",
    "left.eye.corner_inner",
    "left.eye.corner_outer",
    "left.eye.top",
    "left.eye.bottom",
    "left.eyebrow.bend.lower",
    "left.eyebrow.bend.upper",
    "left.eyebrow.inner_lower",
    "left.eyebrow.inner_upper",
    "left.ear.helix.attachement",
    "left.ear.helix.outer",
    "left.ear.helix.top",
    "left.ear.lobule.tip",
    "left.ear.tragus.tip",
    "left.lips.corner",
    "left.lips.philtrum_ridge",
)
"""Points that must be there, spelt as in the file; those of the left side also for the right."""

_INTEROCULAR = 63.0


def needed_points() -> tuple[str, ...]:
    """All names that `face_regions` reads."""
    right = tuple(name.replace("left.", "right.", 1) for name in NEEDED if name.startswith("left."))
    return NEEDED + right


def face_regions(vertices: Floats, points: Points) -> dict[str, NDArray[np.float32]]:
    """Soft masks of the regions, 0..1, `skin` being what the others leave.

    vertices: [V, 3] mm, x to the subject's left, y up, z out of the face; points: model space, [3] each.
    The mesh has no inner mouth: that mask is zero. Widths are for an interocular distance of 63 mm and scale with it.
    """
    pupils = [
        0.5 * (points[f"{side}.eye.corner_inner"] + points[f"{side}.eye.corner_outer"]) for side in ("left", "right")
    ]
    unit = float(np.linalg.norm(pupils[0] - pupils[1])) / _INTEROCULAR
    sides = [{name: point for name, point in points.items() if name.startswith(side)} for side in ("left.", "right.")]
    left, right = ({name.split(".", 1)[1]: point for name, point in side.items()} for side in sides)
    masks = {
        "lips": _lips(vertices, points, left, right, unit),
        "eyes": np.maximum(_eye(vertices, left, unit), _eye(vertices, right, unit)),
        "eyebrows": np.maximum(_eyebrow(vertices, left, unit), _eyebrow(vertices, right, unit)),
        "ears": np.maximum(_ear(vertices, left, unit), _ear(vertices, right, unit)),
        "mouth_interior": np.zeros(len(vertices)),
    }
    hairline = _above(
        vertices, points["center.front.trichion"], left["ear.helix.attachement"], right["ear.helix.attachement"]
    )
    masks["scalp"] = _ramp(hairline, -4.0 * unit, 4.0 * unit) * (1 - masks["ears"])
    under_chin = points["center.chin.tip"] - np.array([0.0, 18.0, 12.0]) * unit
    jaw = _above(vertices, under_chin, left["ear.lobule.tip"], right["ear.lobule.tip"])
    masks["neck"] = _ramp(-jaw, -4.0 * unit, 6.0 * unit) * (1 - masks["ears"])
    taken = np.max([masks[name] for name in masks], axis=0)
    masks["skin"] = 1.0 - taken
    return {name: masks[name].astype(np.float32) for name in REGIONS}


def _ramp(value: Floats, low: float, high: float) -> Floats:
    """0 at `low`, 1 at `high` (or the reverse), smooth between."""
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3 - 2 * share)


def _above(vertices: Floats, front: Floats, left: Floats, right: Floats) -> Floats:
    """Signed distance above the plane through three points. [V]"""
    normal = np.cross(left - front, right - front)
    normal *= np.sign(normal[1]) / np.linalg.norm(normal)
    return (vertices - front) @ normal


def _eye(vertices: Floats, side: Points, unit: float) -> Floats:
    """An ellipse through the corners and lids, seen from the front."""
    inner, outer = side["eye.corner_inner"], side["eye.corner_outer"]
    centre = 0.25 * (inner + outer + side["eye.top"] + side["eye.bottom"])
    axis = (outer - inner)[:2] / np.linalg.norm((outer - inner)[:2])
    offset = vertices[:, :2] - centre[:2]
    along, across = offset @ axis, offset @ np.array([-axis[1], axis[0]])
    width = 0.5 * float(np.linalg.norm((outer - inner)[:2]))
    height = 0.5 * np.linalg.norm((side["eye.top"] - side["eye.bottom"])[:2])
    radius = np.hypot(along / width, across / height)
    near = _ramp(vertices[:, 2], centre[2] - 30 * unit, centre[2] - 20 * unit)
    return _ramp(radius, 1.25, 0.95) * near


def _lips(vertices: Floats, points: Points, left: Points, right: Points, unit: float) -> Floats:
    """Between an upper bow (corner, philtrum ridge, middle) and a lower parabola, seen from the front."""
    corners = 0.5 * (left["lips.corner"] + right["lips.corner"])
    half = 0.5 * (left["lips.corner"] - right["lips.corner"])[0]
    ridge = 0.5 * (left["lips.philtrum_ridge"] + right["lips.philtrum_ridge"])
    ridge_at = 0.5 * (left["lips.philtrum_ridge"] - right["lips.philtrum_ridge"])[0] / half
    at = np.abs(vertices[:, 0] - corners[0]) / half
    upper = np.interp(at, [0.0, ridge_at, 1.0], [points["center.lips.upper.outer"][1], ridge[1], corners[1]])
    lower = corners[1] + (points["center.lips.lower.outer"][1] - corners[1]) * np.maximum(1 - at * at, 0.0)
    inside = np.minimum(upper - vertices[:, 1], vertices[:, 1] - lower)
    inside = np.minimum(inside, (1 - at) * half)
    near = _ramp(vertices[:, 2], corners[2] - 30 * unit, corners[2] - 20 * unit)
    return _ramp(inside, -1.5 * unit, 1.5 * unit) * near


def _eyebrow(vertices: Floats, side: Points, unit: float) -> Floats:
    """A band along inner end, bend and a tail above the outer corner of the eye."""
    inner = 0.5 * (side["eyebrow.inner_lower"] + side["eyebrow.inner_upper"])
    bend = 0.5 * (side["eyebrow.bend.lower"] + side["eyebrow.bend.upper"])
    outward = np.sign(bend[0] - inner[0])
    tail = np.array([bend[0] + 11 * unit * outward, bend[1] - 6 * unit, bend[2]])
    half = 0.5 * float(np.linalg.norm(side["eyebrow.bend.upper"] - side["eyebrow.bend.lower"]))
    distance = np.minimum(_to_segment(vertices, inner, bend), _to_segment(vertices, bend, tail))
    near = _ramp(vertices[:, 2], bend[2] - 40 * unit, bend[2] - 30 * unit)
    return _ramp(distance, half + 2.0 * unit, half - 0.5 * unit) * near


def _to_segment(vertices: Floats, start: Floats, end: Floats) -> Floats:
    """Distance to a segment, seen from the front. [V]"""
    way = (end - start)[:2]
    share = np.clip((vertices[:, :2] - start[:2]) @ way / (way @ way), 0.0, 1.0)
    return np.linalg.norm(vertices[:, :2] - start[:2] - share[:, None] * way, axis=1)


def _ear(vertices: Floats, side: Points, unit: float) -> Floats:
    """Behind the tragus, between the top of the helix and the lobule, outside the side of the head."""
    top, lobule, tragus, outer = (
        side[name] for name in ("ear.helix.top", "ear.lobule.tip", "ear.tragus.tip", "ear.helix.outer")
    )
    outward = np.sign(outer[0])
    inner_x = min(abs(lobule[0]), abs(tragus[0])) - 4.0 * unit
    beyond = _ramp(vertices[:, 0] * outward, inner_x, inner_x + 5.0 * unit)
    behind = _ramp(vertices[:, 2], tragus[2] + 5.0 * unit, tragus[2] + 1.0 * unit)
    below = _ramp(vertices[:, 1], top[1] + 12.0 * unit, top[1] + 7.0 * unit)
    above = _ramp(vertices[:, 1], lobule[1] - 6.0 * unit, lobule[1] - 2.0 * unit)
    before = _ramp(vertices[:, 2], outer[2] - 12.0 * unit, outer[2] - 8.0 * unit)
    return beyond * behind * before * below * above
