"""Landmarks that annotate themselves: the mean head is drawn from several sides, and what a detector finds is put back on it.

No table of vertex numbers is needed for any pair of detector and model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import normalize

from nextface.errors import ModelError
from nextface.landmarks.contour_points import ibug68
from nextface.landmarks.detect import Detector, detector
from nextface.landmarks.drawn_head import draw_head
from nextface.landmarks.points import JAW, POINT_COUNTS, Landmarks
from nextface.landmarks.reliability import weigh
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.normals import vertex_normals
from nextface.scene import Scene, to_camera

logger = logging.getLogger(__name__)

SLIDING = {"ibug68": JAW}
"""Points of a 2D-type convention that lie on the silhouette, wherever that is."""

VIEWS = ((0, 0), (-10, 0), (10, 0), (-20, 0), (20, 0), (-35, 0), (35, 0), (-50, 0), (50, 0), (0, 15), (0, -15))
"""Yaw and pitch of the drawn heads in degrees, in pairs that mirror each other."""

_TOLERANCE = 4.0
"""Distance between a point and its detection beyond which a view counts as mistaken, mm."""
_HIDDEN = 0.6
"""Cost of a view from which the place cannot be seen, between a perfect match (0) and a miss (1)."""
_GRAZING = -0.15
"""Cosine down to which a surface counts as visible: contour points lie on the silhouette itself."""
_DOUBT = 3.0
"""Scatter between views at which a point's weight is a half, mm."""
_NEAR = 24
"""Triangles around the best vertex that are searched for the best place."""
_CHUNK = 16


@dataclass(frozen=True)
class View:
    """What the detector saw of one drawn head.

    found:     points in pixels; missing ones are 0. [N, 2]
    trust:     confidence of the points times the view's own weight; 0 where missing. [N]
    triangle:  visible triangle at each pixel, -1 for background. [H, W]
    """

    yaw: float
    scene: Scene
    found: Tensor
    trust: Tensor
    triangle: Tensor


def place(model: MorphableModel, convention: str, landmarks_model: str = "") -> LandmarkEmbedding:
    """The embedding of a convention, by the detector that speaks it, whichever one the settings name.

    The 68 points of files ("ibug68") follow from MediaPipe's. landmarks_model: a face_landmarker.task for MediaPipe. Raises
    ModelError for an unknown convention.
    """
    if convention == "ibug68":
        found = model.landmarks.get("mediapipe") or place(model, "mediapipe", landmarks_model)
        return ibug68(model, found)
    if convention not in ("mediapipe", "fan"):
        raise ModelError(
            f"{model.name}: {convention!r} landmarks cannot be placed on it; give 478 mediapipe or 68 ibug68 points"
        )
    return annotate(model, detector(convention, landmarks_model))


def annotate(
    model: MorphableModel, detector: Detector, views: Sequence[tuple[float, float]] = VIEWS
) -> LandmarkEmbedding:
    """Where the detector's points lie on the model: the place of the surface that projects best onto the detections of all
    views that can see it.

    views: (yaw, pitch) in degrees; yaw turns the face to the viewer's right. Raises ModelError when the detector sees no
    face on the mean head.
    """
    count = POINT_COUNTS[detector.convention][0]
    seen = [view for yaw, pitch in views if (view := _look(model, detector, yaw, pitch, count)) is not None]
    if len(seen) < max(1, len(views) // 3):
        raise ModelError(
            f"{model.name}: the detector {detector.convention!r} finds a face on {len(seen)} of {len(views)} views of the "
            "mean head; its landmarks cannot be placed: choose another detector or another model"
        )
    sliding = set(SLIDING.get(detector.convention, ()))
    index = [number for number in range(count) if any(float(view.trust[number]) > 0 for view in seen)]
    fixed = [number for number in index if number not in sliding]
    surface = _Surface(model, seen)
    placed = dict(zip(fixed, surface.best_places(fixed), strict=True))
    candidates, weights = [], []
    for number in index:
        if number in sliding:
            ordered = sorted((view for view in seen if float(view.trust[number]) > 0), key=lambda view: view.yaw)
            candidates.append(_distinct([_through_pixel(model, view, number) for view in ordered]))
            weights.append(1.0)
        else:
            triangle, barycentric, spread = placed[number]
            candidates.append([(triangle, barycentric)])
            weights.append(1.0 / (1.0 + (spread / _DOUBT) ** 2))
    logger.info("%s: %d of %d %s points placed", model.name, len(index), count, detector.convention)
    widest = max(len(row) for row in candidates)
    padded = [row + row[-1:] * (widest - len(row)) for row in candidates]
    embedding = LandmarkEmbedding(
        index=torch.tensor(index),
        triangle=torch.tensor([[triangle for triangle, _ in row] for row in padded]),
        barycentric=torch.stack([torch.stack([barycentric for _, barycentric in row]) for row in padded]),
        count=torch.tensor([len(row) for row in candidates]),
        weight=torch.tensor(weights),
    )
    return weigh(model, detector, embedding)


def _look(model: MorphableModel, detector: Detector, yaw: float, pitch: float, count: int) -> View | None:
    image, scene = draw_head(model, yaw, pitch)
    faces = detector.faces(image)
    return view_of(model, scene, faces[0], yaw, pitch, count) if faces else None


def view_of(model: MorphableModel, scene: Scene, face: Landmarks, yaw: float, pitch: float, count: int) -> View:
    """A drawn head together with the landmarks found on it. Oblique views weigh less: detectors slip there."""
    pixels = rasterizer_for(model.mean.device).visible_triangles(
        scene.vertices_camera(model), model.triangles, Camera.of(scene)
    )
    triangle = torch.full((scene.height, scene.width), -1, dtype=torch.int64)
    triangle[pixels.row, pixels.column] = pixels.triangle
    found, trust = torch.zeros(count, 2), torch.zeros(count)
    found[face.index] = face.points
    trust[face.index] = face.confidence * math.cos(math.radians(yaw)) * math.cos(math.radians(pitch))
    return View(yaw, scene, found, trust, triangle)


class _Surface:
    """Places on the triangles that any view shows, scored against all views."""

    def __init__(self, model: MorphableModel, views: list[View]) -> None:
        self.model = model
        self.triangles = torch.unique(torch.cat([view.triangle[view.triangle >= 0] for view in views]))
        self.normals = vertex_normals(model.mean[None], model.triangles)[0]
        self.found = torch.stack([view.found for view in views])
        self.trust = torch.stack([view.trust for view in views])
        self.rotation = torch.cat([view.scene.head_rotation() for view in views])
        self.translation = torch.cat([view.scene.translation for view in views])
        focal, principal = (torch.cat([getattr(view.scene, name) for view in views]) for name in ("focal", "principal"))
        self.camera = Camera(focal, principal, views[0].scene.height, views[0].scene.width)
        self.pixels_per_mm = focal / self.translation[:, 2]

    def best_places(self, numbers: list[int]) -> list[tuple[int, Tensor, float]]:
        """Triangle, barycentric coordinates [3] and scatter between views in mm of each landmark.

        First the best vertex, then the best place on a fine grid over the triangles around it.
        """
        vertices = torch.unique(self.model.triangles[self.triangles])
        projected, facing = self._seen_from(self.model.mean[vertices], self.normals[vertices])
        chunks = [numbers[first : first + _CHUNK] for first in range(0, len(numbers), _CHUNK)]
        starts = torch.cat([self._cost(projected[:, None], facing[:, None], chunk).argmin(1) for chunk in chunks])
        around = cKDTree(self.model.mean[self.model.triangles[self.triangles]].mean(1).numpy())
        _, nearest = around.query(self.model.mean[vertices[starts]].numpy(), k=min(_NEAR, len(self.triangles)))
        near = self.triangles[torch.from_numpy(nearest)]
        grid = _barycentric_grid(4)
        corners = self.model.triangles[near]
        points = torch.einsum("gk,ntkc->ntgc", grid, self.model.mean[corners]).flatten(1, 2)
        normals = normalize(torch.einsum("gk,ntkc->ntgc", grid, self.normals[corners]).flatten(1, 2), dim=-1)
        projected, facing = self._seen_from(points.flatten(0, 1), normals.flatten(0, 1))
        projected, facing = projected.unflatten(1, points.shape[:2]), facing.unflatten(1, points.shape[:2])
        best = self._cost(projected, facing, numbers).argmin(1)
        rows = torch.arange(len(numbers))
        spread = self._scatter(projected[:, rows, best], facing[:, rows, best], numbers)
        triangle = near[rows, best // len(grid)]
        return [
            (int(triangle[row]), grid[int(best[row]) % len(grid)], float(spread[row])) for row in range(len(numbers))
        ]

    def _seen_from(self, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Projections [views, M, 2] of surface points, and cosines between their normals and the ways to the camera [views, M]."""
        camera_points = to_camera(points[None], self.rotation, self.translation)
        camera_normals = to_camera(normals[None], self.rotation, torch.zeros_like(self.translation))
        facing = -(camera_normals * normalize(camera_points, dim=-1)).sum(-1)
        return self.camera.project(camera_points), facing

    def _cost(self, projected: Tensor, facing: Tensor, numbers: list[int]) -> Tensor:
        """Robust mismatch of places with the detections of landmarks: Geman-McClure, summed over the views.

        projected: [views, N|1, M, 2], facing: [views, N|1, M] -> [N, M]
        """
        square = (self.found[:, numbers, None] - projected).square().sum(-1)
        tolerance = (_TOLERANCE * self.pixels_per_mm)[:, None, None]
        miss = square / (square + tolerance**2)
        cost = torch.where(facing > _GRAZING, miss, _HIDDEN + (1.0 - _HIDDEN) * miss)
        return (self.trust[:, numbers, None] * cost).sum(0)

    def _scatter(self, projected: Tensor, facing: Tensor, numbers: list[int]) -> Tensor:
        """Root mean square mismatch over the views that see each place, mm. projected: [views, N, 2] -> [N]"""
        away = (self.found[:, numbers] - projected).norm(dim=-1) / self.pixels_per_mm[:, None]
        weight = self.trust[:, numbers] * (facing > _GRAZING)
        return ((weight * away.square()).sum(0) / weight.sum(0).clamp_min(1e-6)).sqrt()


def _through_pixel(model: MorphableModel, view: View, number: int) -> tuple[int, Tensor]:
    """The surface point seen at a detection, or at the silhouette's pixel nearest to it."""
    rows, columns = torch.nonzero(view.triangle >= 0, as_tuple=True)
    centres = torch.stack([columns, rows], -1) + 0.5
    nearest = int((centres - view.found[number]).square().sum(-1).argmin())
    triangle = int(view.triangle[rows[nearest], columns[nearest]])
    ray = torch.cat([(centres[nearest] - view.scene.principal[0]) / view.scene.focal, torch.ones(1)]).double()
    corners = view.scene.vertices_camera(model)[0, model.triangles[triangle]].double()
    offsets = corners[:, :2] - ray[:2] * corners[:, 2:]
    weights = torch.linalg.det(torch.stack([offsets.roll(-1, 0), offsets.roll(-2, 0)], 1))
    barycentric = (weights / weights.sum()).clamp(0.0, 1.0)
    return triangle, (barycentric / barycentric.sum()).float()


def _barycentric_grid(steps: int) -> Tensor:
    """Evenly spaced places within a triangle. [G, 3]"""
    return torch.tensor(
        [(i / steps, j / steps, (steps - i - j) / steps) for i in range(steps + 1) for j in range(steps + 1 - i)]
    )


def _distinct(places: list[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    """The list without a place that repeats the one before."""
    kept = places[:1]
    for triangle, barycentric in places[1:]:
        if triangle != kept[-1][0] or (barycentric - kept[-1][1]).abs().max() > 0.05:
            kept.append((triangle, barycentric))
    return kept
