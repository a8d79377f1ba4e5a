"""Lids that lie on the eyeballs and lips that meet, for every identity: linear corrections of mean and bases.

A linear model keeps two surfaces apart only if they move together where they touch. So, near an eyeball, the part of a
displacement across the eyeball's surface is replaced by the eyeball's own motion; where the lips meet, both take their
common mean motion. Expression units may separate the surfaces; lid units are lifted so that the straight path of a
closing lid does not cut through the round eyeball.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from open_head.geometry import HeadTopology
from open_head.regions import smoothstep
from open_head.skin import neighbour_average

LID_CLEARANCE = 0.5
"""Least distance between a lid and an eyeball of the mean head, millimetres."""
LID_NEAR, LID_FAR = 3.0, 9.0
"""Distances from the eyeball up to which its motion is taken over wholly, and from which not at all."""
PATH_CLEARANCE = 0.2
LIP_GAP = 0.05
"""Vertical distance left between closed lips, millimetres."""
CORNER_FADE = 16.0
"""Stretch before the mouth's corners over which the closing fades out."""
CHEEK = 9.0
"""Wished thickness between skin and lining away from the lips, millimetres."""
ROUNDS = 6
"""Passes of the smoothed correction of mouth units."""
LIPS_NEAR, LIPS_FAR, LIPS_SMOOTH = 2.0, 8.0, 2.5


@dataclass(frozen=True)
class EyeSocket:
    """An eyeball (an ellipsoid along the axes) and the skin around it, millimetres.

    centre, radius: [3]; eye, zone: vertex numbers; outward: unit normals of the ellipsoid under the zone [Z, 3];
    distance: of the zone's vertices from the ellipsoid [Z]; share: of the eyeball's motion that the zone takes over [Z]
    """

    centre: np.ndarray
    radius: np.ndarray
    eye: np.ndarray
    zone: np.ndarray
    outward: np.ndarray
    distance: np.ndarray
    share: np.ndarray

    def height(self, points: np.ndarray) -> np.ndarray:
        """Distance outside the ellipsoid, to first order. [..., 3] -> [...]"""
        scaled = (points - self.centre) / self.radius
        length = np.linalg.norm(scaled, axis=-1)
        return (length - 1.0) * length / np.linalg.norm(scaled / self.radius, axis=-1)

    def normal(self, points: np.ndarray) -> np.ndarray:
        direction = (points - self.centre) / self.radius**2
        return direction / np.linalg.norm(direction, axis=-1, keepdims=True)

    def affine_motion(self, vertices: np.ndarray, displacement: np.ndarray) -> np.ndarray:
        """The eyeball's own affine motion, continued to the zone. displacement [..., V, 3] -> [..., Z, 3]"""
        at_eye = np.column_stack([vertices[self.eye] - self.centre, np.ones(len(self.eye))])
        at_zone = np.column_stack([vertices[self.zone] - self.centre, np.ones(len(self.zone))])
        return (at_zone @ np.linalg.pinv(at_eye)) @ displacement[..., self.eye, :]


def eye_socket(topology: HeadTopology, vertices: np.ndarray, side: str) -> EyeSocket:
    """The socket of one side ("left" or "right") of a head. vertices [V, 3] mm"""
    eye = np.flatnonzero(topology.of(f"eye-{side}"))
    low, high = vertices[eye].min(0), vertices[eye].max(0)
    socket = EyeSocket(0.5 * (low + high), 0.5 * (high - low), eye, eye, eye, eye, eye)
    body = np.flatnonzero(topology.of("body"))
    distance = socket.height(vertices[body])
    zone = body[distance < LID_FAR]
    return EyeSocket(
        socket.centre,
        socket.radius,
        eye,
        zone,
        socket.normal(vertices[zone]),
        socket.height(vertices[zone]),
        1.0 - smoothstep(distance[distance < LID_FAR], LID_NEAR, LID_FAR),
    )


def lift_lids(socket: EyeSocket, vertices: np.ndarray) -> np.ndarray:
    """Push the zone out of the eyeball to at least the clearance. Returns moved vertices [V, 3]."""
    lifted = vertices.copy()
    needed = np.clip(LID_CLEARANCE - socket.distance, 0.0, None)
    lifted[socket.zone] += needed[:, None] * socket.outward
    return lifted


def follow_eyeball(socket: EyeSocket, vertices: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Give the zone the eyeball's motion across its surface; motion along it stays. basis [K, V, 3]"""
    followed = basis.copy()
    own = basis[:, socket.zone]
    across = ((socket.affine_motion(vertices, basis) - own) * socket.outward).sum(-1, keepdims=True)
    followed[:, socket.zone] = own + socket.share[:, None] * across * socket.outward
    return followed


def lift_paths(socket: EyeSocket, vertices: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Raise lid units (full activations [K, V, 3]) so that no straight path from rest enters the eyeball.

    The eyeball itself stays in place. The lift of a vertex is the least one that keeps its path clear, spread to
    its neighbours in the zone so that the lid stays smooth.
    """
    raised = units.copy()
    raised[:, socket.eye] = 0.0
    start = vertices[socket.zone]
    steps = np.linspace(0.0, 1.0, 11)[1:, None, None]
    tree = cKDTree(start)
    distance, near = tree.query(start, k=12)
    spread = np.exp(-0.5 * (distance / 1.5) ** 2)
    spread /= spread.sum(1, keepdims=True)
    for unit in raised:
        if np.abs(unit[socket.zone]).max() < 1e-3:
            continue
        moved = unit[socket.zone].copy()
        lift = np.zeros(len(start))
        for _ in range(60):
            path = start + steps * (moved + lift[:, None] * socket.normal(start + moved))
            clearance = np.minimum(PATH_CLEARANCE, socket.distance.clip(LID_CLEARANCE))
            lack = ((clearance - socket.height(path)).clip(0.0) / steps[..., 0]).max(0)
            if lack.max() < 0.01:
                break
            lift += 0.5 * np.maximum(lack, (spread * lack[near]).sum(1))
        smooth = (spread * lift[near]).sum(1)
        unit[socket.zone] = moved + np.maximum(lift, smooth)[:, None] * socket.normal(start + moved)
    return raised


def lip_shares(
    topology: HeadTopology, vertices: np.ndarray, opening: np.ndarray, mouth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which vertices belong to the lower lip, and how near each vertex is to the other lip.

    The share falls off smoothly on the skin around the lips.

    opening: displacement of the unit that drops the jaw [V, 3]; mouth: lips and the front of the mouth's inside [V] bool
    returns: lower [V] bool, share [V] in 0..1
    """
    lower = opening[:, 1] < 0.5 * opening[mouth, 1].min()
    share = np.zeros(len(vertices))
    upper_lip, lower_lip = np.flatnonzero(mouth & ~lower), np.flatnonzero(mouth & lower)
    for own, other in ((upper_lip, lower_lip), (lower_lip, upper_lip)):
        distance, _ = cKDTree(vertices[other]).query(vertices[own])
        share[own] = 1.0 - smoothstep(distance, LIPS_NEAR, LIPS_FAR)
    body = topology.of("body")
    around = np.flatnonzero(body & ~mouth)
    lips = np.flatnonzero(mouth)
    distance, nearest = cKDTree(vertices[lips]).query(vertices[around], distance_upper_bound=LIPS_FAR)
    close = np.isfinite(distance)
    fall = 1.0 - smoothstep(distance[close], 0.0, LIPS_FAR)
    share[around[close]] = share[lips[nearest[close]]] * fall
    return lower, share * body


def close_lips(vertices: np.ndarray, triangles: np.ndarray, lower: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Bring the lips of the mean head together until only `LIP_GAP` is left between them. Returns moved vertices [V, 3]."""
    closed = vertices.copy()
    zone = np.flatnonzero(share > 0)
    touching = (share > 0.5)[triangles].all(1)
    corner = np.abs(vertices[share > 0.99, 0]).max()
    fade = 1.0 - smoothstep(np.abs(vertices[zone, 0]), corner - CORNER_FADE, corner - 1.0)
    for _ in range(4):
        places, gaps = [], []
        for lip, sign in ((lower, 1.0), (~lower, -1.0)):
            facing = triangles[touching & lip[triangles].all(1)]
            own = np.flatnonzero((share > 0.5) & ~lip)
            above = sign * (closed[own, 1] - heights(closed, facing, closed[own], sign))
            met = np.isfinite(above)
            places.append(closed[own[met], 0])
            gaps.append(above[met])
        place, gap = np.concatenate(places), np.concatenate(gaps)
        near = np.abs(closed[zone, 0][:, None] - place) < 1.5
        least = np.where(near, gap, np.inf).min(1)
        least[~np.isfinite(least)] = LIP_GAP
        weight = np.exp(-0.5 * ((closed[zone, 0][:, None] - closed[zone, 0]) / 1.0) ** 2)
        step = np.clip(weight @ least / weight.sum(1) - LIP_GAP, -2.0, 2.0)
        closed[zone, 1] += np.where(lower[zone], 0.5, -0.5) * share[zone] * fade * step
    return closed


def heights(vertices: np.ndarray, triangles: np.ndarray, points: np.ndarray, sign: float) -> np.ndarray:
    """Height y of a surface at the (x, z) of points: the highest for sign 1, the lowest for -1; nan off the surface. [P]"""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    ab, ac = (b - a)[:, [0, 2]], (c - a)[:, [0, 2]]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area = np.where(np.abs(area) < 1e-9, np.inf, area)
    offset = points[:, None, [0, 2]] - a[None, :, [0, 2]]
    u = (offset[..., 0] * ac[:, 1] - offset[..., 1] * ac[:, 0]) / area
    v = (ab[:, 0] * offset[..., 1] - ab[:, 1] * offset[..., 0]) / area
    inside = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6) & np.isfinite(area)
    height = a[:, 1] + u * (b - a)[:, 1] + v * (c - a)[:, 1]
    best = np.where(inside, sign * height, -np.inf).max(1)
    return np.where(np.isfinite(best), sign * best, np.nan)


def _lip_motions(
    vertices: np.ndarray, basis: np.ndarray, lower: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices near the contact [Z], and the smoothed motions of both lips continued to them, [K, Z, 3] each."""
    zone = np.flatnonzero(share > 0)
    motions = []
    for lip in (~lower, lower):
        contact = np.flatnonzero((share > 0.99) & lip)
        distance, near = cKDTree(vertices[contact]).query(vertices[zone], k=24)
        weights = np.exp(-0.5 * (distance**2 - distance[:, :1] ** 2) / LIPS_SMOOTH**2)
        weights /= weights.sum(1, keepdims=True)
        motions.append(np.einsum("zn,kznc->kzc", weights, basis[:, contact][:, near]))
    return zone, motions[0], motions[1]


def move_lips_together(vertices: np.ndarray, basis: np.ndarray, lower: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend each lip's motion into the common one: the mean of both lips' nearby motions. basis [K, V, 3]"""
    together = basis.copy()
    zone, upper_motion, lower_motion = _lip_motions(vertices, basis, lower, share)
    own = basis[:, zone]
    together[:, zone] = own + share[zone][:, None] * (0.5 * (upper_motion + lower_motion) - own)
    return together


def keep_lips_apart(vertices: np.ndarray, units: np.ndarray, lower: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Take from expression units what would press closed lips into each other. Full activations [K, V, 3]

    Where a unit moves the upper lip down relative to the lower lip, or slides one over the other, that part of the
    relative motion is shared out between them; what parts the lips stays.
    """
    apart = units.copy()
    for _ in range(ROUNDS):
        zone, upper_motion, lower_motion = _lip_motions(vertices, apart, lower, share)
        relative = upper_motion - lower_motion
        opening = relative[..., 1].clip(0.0)
        held = 1.0 - smoothstep(opening, 0.0, 3.0)
        excess = relative * held[..., None]
        excess[..., 1] -= opening * held
        sign = np.where(lower[zone], 0.5, -0.5)
        apart[:, zone] += (share[zone] * sign)[:, None] * excess
    return apart


def deepen_lining(
    vertices: np.ndarray, triangles: np.ndarray, lining: np.ndarray, outer: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Give cheeks and lips at least `CHEEK` between the skin and the mouth's lining, so that no identity wears them through.

    lining, outer: vertices of the mouth's lining and of the outer skin [V] bool; share: nearness to the other lip, where
    nothing moves [V]. Returns moved vertices [V, 3].
    """
    deepened = vertices.copy()
    inside = np.flatnonzero(lining)
    distance, nearest = cKDTree(vertices[outer]).query(vertices[inside])
    inward = vertices[inside] - vertices[np.flatnonzero(outer)[nearest]]
    inward /= np.maximum(distance, 1e-6)[:, None]
    push = np.zeros_like(vertices)
    push[inside] = ((CHEEK - distance).clip(0.0) * (1.0 - share[inside]))[:, None] * inward
    average = neighbour_average(triangles, len(vertices))
    for _ in range(6):
        push = average @ push
        push[~lining] = 0.0
    deepened[inside] += push[inside]
    return deepened
