"""Stage 1: pose, focal length, shape and expression from landmarks by a bounded Levenberg-Marquardt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import roma
import torch
from torch import Tensor

from nextface.config import OptimConfig
from nextface.fitting import contours
from nextface.fitting.landmark_loss import ROBUST, inverse_sd
from nextface.fitting.observation import Observation
from nextface.fitting.progress import Progress
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.rendering.camera import Camera
from nextface.scene import Scene, to_camera

MOVES = ("shape", "expression", "rotation", "translation", "focal")

_DISTANCE_MM = 1000.0
_DISTANCE_SD = 0.6
_TOLERANCE = 1e-5
_STALL = 3
_HEAVY = 10.0
"""Damping from which a rejected step says that the minimum is reached: a lightly damped one may only have met the bounds."""
_RECHOOSE = 5
_REFRESHES = 8
"""How often the landmarks' places are chosen anew: pose and visibility could chase each other for ever."""
_TURNED = 0.1
"""Change of a landmark's visibility that is worth another look."""
_POSE = 7
_ROUNDS = 4


@dataclass
class _Problem:
    """Landmark rows of the model and their targets, double precision.

    mean [B, N, 3], basis [B, K, N, 3] (shape, then expression), target [B, N, 2], inverse_sd [B, N]
    """

    mean: Tensor
    basis: Tensor
    target: Tensor
    inverse_sd: Tensor
    observation: Observation
    lower: Tensor
    upper: Tensor


@dataclass
class _State:
    rotation: Tensor
    translation: Tensor
    log_focal: Tensor
    coefficients: Tensor

    def moved(self, step: Tensor, lower: Tensor, upper: Tensor) -> _State:
        return _State(
            roma.rotvec_to_rotmat(step[:, :3]) @ self.rotation,
            self.translation + step[:, 3:6],
            self.log_focal + step[:, 6],
            (self.coefficients + step[:, _POSE:]).clamp(lower, upper),
        )

    def where(self, accepted: Tensor, other: _State) -> _State:
        return _State(
            torch.where(accepted[:, None, None], self.rotation, other.rotation),
            torch.where(accepted[:, None], self.translation, other.translation),
            torch.where(accepted, self.log_focal, other.log_focal),
            torch.where(accepted[:, None], self.coefficients, other.coefficients),
        )


def start(observation: Observation, model: MorphableModel, bands: int) -> Scene:
    """A scene with the mean head placed by a scaled-orthographic fit (DeMenthon & Davis 1995) to the landmarks."""
    embedding = observation.embedding(model)
    batch, device = observation.batch, observation.image.device
    choice = contours.first_choice(embedding, batch)
    corners, weights = contours.picked(embedding, model.triangles, choice)
    points = contours.surface_points(model.mean.expand(batch, -1, -1), corners, weights).double()
    weight = (observation.confidence * embedding.weight).double()[..., None]
    rotation, translation = _scaled_orthographic(points, observation, weight)
    light = torch.zeros(batch, bands * bands, 3, device=device)
    light[:, 0] = torch.pi**0.5 * 2.0
    return Scene(
        shape=torch.zeros(batch, model.shape_basis.shape[0], device=device),
        albedo=torch.zeros(batch, model.diffuse_basis.shape[0], device=device),
        expression=torch.zeros(batch, model.expression_basis.shape[0], device=device),
        rotation=roma.rotmat_to_rotvec(rotation).float(),
        translation=translation.float(),
        focal=observation.focal.clone(),
        principal=observation.principal.clone(),
        light=light,
        exposure=torch.zeros(batch, device=device),
        white_balance=torch.zeros(batch, 2, device=device),
        height=observation.height,
        width=observation.width,
    )


def _scaled_orthographic(points: Tensor, observation: Observation, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation `[B, 3, 3]` (view frame) and translation `[B, 3]` from an affine least-squares fit."""
    total = weight.sum(1, keepdim=True)
    target = (observation.points - observation.principal[:, None]).double()
    middle = (points * weight).sum(1, keepdim=True) / total
    target_middle = (target * weight).sum(1, keepdim=True) / total
    source, aim = points - middle, target - target_middle
    covariance = (source * weight).mT @ source
    ridge = (
        1e-3
        * covariance.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None]
        * torch.eye(3, dtype=torch.float64, device=points.device)
    )
    affine = torch.linalg.solve(covariance + ridge, (source * weight).mT @ aim).mT
    affine = affine * affine.new_tensor([[1.0], [-1.0]])
    first, second = affine[:, 0], affine[:, 1]
    scale = 0.5 * (first.norm(dim=-1) + second.norm(dim=-1))
    rows = torch.stack([first, second, torch.linalg.cross(first, second) / scale[:, None]], 1)
    rotation = roma.special_procrustes(rows)
    focal = observation.focal.double()
    depth = focal / scale
    centre = torch.cat([target_middle[:, 0] * (depth / focal)[:, None], depth[:, None]], -1)
    offset = (middle @ rotation.mT)[:, 0] * middle.new_tensor([1.0, -1.0, -1.0])
    return rotation, centre - offset


def fit_pose(
    scene: Scene, observation: Observation, model: MorphableModel, config: OptimConfig, progress: Progress
) -> Scene:
    """Move `MOVES` so that the projected landmarks meet the detected ones.

    Cost: a Cauchy loss of the pixel distances and Gaussian priors of the coefficients (in standard deviations),
    of log focal length and of log distance. Contour points are chosen anew between solver steps. Every photo goes at its own
    pace: one that has settled stays while the others move on. The host waits for the device a few times per step of the
    whole batch, never per photo.
    """
    embedding = observation.embedding(model)
    choice = contours.first_choice(embedding, scene.batch)
    state = _State(
        scene.head_rotation().double(),
        scene.translation.double(),
        scene.focal.double().log(),
        torch.cat([scene.shape.expand(scene.batch, -1), scene.expression], 1).double(),
    )
    choice, visible = _rechoose(embedding, model, scene, state, choice)
    problem = _problem(embedding, model, observation, choice, visible)
    damping = torch.full((scene.batch,), 1e-3, dtype=torch.float64, device=scene.device)
    cost = _cost(problem, state)
    stalled, refreshes = torch.zeros(2, scene.batch, dtype=torch.int64, device=scene.device)
    for number in range(config.iter_step1):
        active = stalled < _STALL
        trial = state.moved(_step(problem, state, damping), problem.lower, problem.upper)
        trial_cost = _cost(problem, trial)
        better = active & (trial_cost < cost)
        gain = ((cost - trial_cost) / cost.clamp_min(1e-12)).clamp_min(0.0)
        state = trial.where(better, state)
        cost = torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping / 4.0, damping * 5.0).clamp(1e-9, 1e9)
        progress.step(cost.masked_fill(~active, torch.nan), partial(_placed, scene, state, model))
        settled = torch.where(better, gain <= _TOLERANCE, damping > _HEAVY)
        stalled = torch.where(active, torch.where(settled, stalled + 1, 0), stalled)
        due = active & (refreshes < _REFRESHES) & ((stalled == _STALL) | (number % _RECHOOSE == _RECHOOSE - 1))
        any_due, any_active = torch.stack([due.any(), (stalled < _STALL).any()]).tolist()
        if any_due:
            moved, turned = _rechoose(embedding, model, scene, state, choice)
            changed = due & ((moved != choice).any(1) | ((turned - visible).abs().amax(1) > _TURNED))
            choice = torch.where(changed[:, None], moved, choice)
            visible = torch.where(changed[:, None], 0.5 * (visible + turned), visible)
            stalled, refreshes = stalled.masked_fill(changed, 0), refreshes + changed
            problem = _problem(embedding, model, observation, choice, visible)
            cost = torch.where(changed, _cost(problem, state), cost)
            any_active = bool((stalled < _STALL).any())
        if not any_active:
            break
    return _placed(scene, state, model)


def _placed(scene: Scene, state: _State, model: MorphableModel) -> Scene:
    shapes = model.shape_basis.shape[0]
    return replace(
        scene,
        shape=state.coefficients[:, :shapes].float(),
        expression=state.coefficients[:, shapes:].float(),
        rotation=roma.rotmat_to_rotvec(state.rotation).float(),
        translation=state.translation.float(),
        focal=state.log_focal.exp().float(),
    )


def _problem(
    embedding: LandmarkEmbedding, model: MorphableModel, observation: Observation, choice: Tensor, visible: Tensor
) -> _Problem:
    corners, weights = contours.picked(embedding, model.triangles, choice)
    batch = choice.shape[0]
    mean = contours.surface_points(model.mean.expand(batch, -1, -1), corners, weights).double()
    bases = torch.cat([model.shape_basis, model.expression_basis])
    basis = (bases[:, corners] * weights[..., None]).sum(3).transpose(0, 1).double()
    unbounded = torch.full_like(model.shape_basis[:, 0, 0], torch.inf)
    return _Problem(
        mean=mean,
        basis=basis,
        target=observation.points.double(),
        inverse_sd=(visible * inverse_sd(model, observation)).double(),
        observation=observation,
        lower=torch.cat([-unbounded, model.expression_lower]).double(),
        upper=torch.cat([unbounded, model.expression_upper]).double(),
    )


def _project(problem: _Problem, state: _State) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated points in the view frame, points in camera space `[B, N, 3]`, and whitened residuals `[B, N, 2]`."""
    model_points = problem.mean + (state.coefficients[:, :, None, None] * problem.basis).sum(1)
    view = model_points @ state.rotation.mT
    camera = view * view.new_tensor([1.0, -1.0, -1.0]) + state.translation[:, None]
    focal = state.log_focal.exp()[:, None, None]
    pixels = focal * camera[..., :2] / camera[..., 2:].clamp_min(1.0) + problem.observation.principal[:, None].double()
    return view, camera, (pixels - problem.target) * problem.inverse_sd[..., None]


def _priors(problem: _Problem, state: _State) -> tuple[Tensor, Tensor]:
    """Residuals of log focal length and log distance over their standard deviations. [B] each"""
    focal_sd = problem.observation.focal_sd.double().clamp_min(1e-6)
    focal = (state.log_focal - problem.observation.focal.double().log()) / focal_sd
    distance = (state.translation[:, 2].clamp_min(1.0) / _DISTANCE_MM).log() / _DISTANCE_SD
    return focal, distance


def _cost(problem: _Problem, state: _State) -> Tensor:
    """[B]"""
    _, _, residual = _project(problem, state)
    robust = ROBUST**2 * torch.log1p(residual.square().sum(-1) / ROBUST**2)
    focal, distance = _priors(problem, state)
    return 0.5 * (robust.sum(-1) + state.coefficients.square().sum(-1) + focal.square() + distance.square())


def _step(problem: _Problem, state: _State, damping: Tensor) -> Tensor:
    """Damped Gauss-Newton step, re-weighted for the robust loss, within the bounds. [B, 7 + K]

    Coefficients pressed against a bound stay; those that the step takes beyond theirs stop there, and the others are solved
    for again.
    """
    view, camera, residual = _project(problem, state)
    batch, count = view.shape[:2]
    flip = view.new_tensor([1.0, -1.0, -1.0])
    depth = camera[..., 2:].clamp_min(1.0)
    focal = state.log_focal.exp()[:, None, None]
    x, y = (camera[..., :2] / depth).unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    image = torch.stack([torch.stack([one, zero, -x], -1), torch.stack([zero, one, -y], -1)], -2)
    image = image * (focal / depth)[..., None]
    turn = -_cross_matrix(view) * flip[:, None]
    coefficients = torch.einsum("bij,bknj->bnik", state.rotation, problem.basis) * flip[:, None]
    columns = [image @ turn, image, (focal[..., None] * torch.stack([x, y], -1)[..., None]), image @ coefficients]
    jacobian = torch.cat(columns, -1) * problem.inverse_sd[..., None, None]
    weight = (1.0 / (1.0 + residual.square().sum(-1) / ROBUST**2))[..., None, None]
    flat = (jacobian * weight).flatten(1, 2)
    normal = flat.mT @ jacobian.flatten(1, 2)
    gradient = (flat * residual.reshape(batch, 2 * count, 1)).sum(1)

    focal_residual, distance_residual = _priors(problem, state)
    focal_sd = problem.observation.focal_sd.double().clamp_min(1e-6)
    distance_slope = 1.0 / (_DISTANCE_SD * state.translation[:, 2].clamp_min(1.0))
    precision = torch.ones_like(gradient)
    precision[:, :_POSE] = 0.0
    precision[:, 5] = distance_slope.square()
    precision[:, 6] = focal_sd.pow(-2)
    gradient[:, 5] += distance_residual * distance_slope
    gradient[:, 6] += focal_residual / focal_sd
    gradient[:, _POSE:] += state.coefficients
    normal = normal + torch.diag_embed(precision)

    pressed = torch.zeros_like(gradient, dtype=torch.bool)
    pressed[:, _POSE:] = ((state.coefficients <= problem.lower) & (gradient[:, _POSE:] > 0)) | (
        (state.coefficients >= problem.upper) & (gradient[:, _POSE:] < 0)
    )
    lower, upper = (
        torch.cat([torch.full_like(gradient[:, :_POSE], limit), bound - state.coefficients], 1)
        for limit, bound in ((-torch.inf, problem.lower), (torch.inf, problem.upper))
    )
    diagonal = damping[:, None] * normal.diagonal(dim1=1, dim2=2) + 1e-9
    held, step = pressed, torch.zeros_like(gradient)
    for _ in range(_ROUNDS):
        free = (~held).to(normal)
        matrix = normal * free[:, :, None] * free[:, None, :] + torch.diag_embed(diagonal * free + (1.0 - free))
        right = (gradient + (normal @ step[..., None]).squeeze(-1)) * free
        trial = step - torch.cholesky_solve(right[..., None], torch.linalg.cholesky_ex(matrix)[0]).squeeze(-1)
        beyond = (trial < lower) | (trial > upper)
        if not bool(beyond.any()):
            return trial
        held = held | beyond
        step = torch.where(held, trial.clamp(lower, upper), 0.0)
    return trial


def _cross_matrix(vectors: Tensor) -> Tensor:
    """`[..., 3] -> [..., 3, 3]`, matrix of the cross product from the left."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack([zero, -z, y], -1), torch.stack([z, zero, -x], -1), torch.stack([-y, x, zero], -1)]
    return torch.stack(rows, -2)


def _rechoose(
    embedding: LandmarkEmbedding, model: MorphableModel, scene: Scene, state: _State, choice: Tensor
) -> tuple[Tensor, Tensor]:
    """Contour candidates and visibility of every landmark as the head now stands. [B, N] each"""
    shapes = model.shape_basis.shape[0]
    coefficients = state.coefficients.float()
    vertices = model.vertices(coefficients[:, :shapes], coefficients[:, shapes:])
    placed = to_camera(vertices, state.rotation.float(), state.translation.float())
    camera = Camera(state.log_focal.exp().float(), scene.principal, scene.height, scene.width)
    choice = contours.choose(embedding, model, placed, camera, choice)
    return choice, contours.visibility(embedding, model, placed, choice)
