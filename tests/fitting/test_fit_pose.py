"""The pose stage: exact landmarks give back pose, face and lens; bounds hold; its solver's derivatives are right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from synthetic_photo import degrees_apart, known_scene, observe_scene, project_landmarks
from torch import Tensor

from nextface.config import OptimConfig
from nextface.fitting import contours, pose
from nextface.fitting.observation import Observation
from nextface.fitting.pose import fit_pose, start
from nextface.fitting.progress import Progress
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene

CONFIG = OptimConfig(device="cpu", bands=3)


def fitted(observation: Observation, model: MorphableModel, config: OptimConfig = CONFIG) -> tuple[Scene, Progress]:
    progress = Progress("pose", config.iter_step1)
    return fit_pose(start(observation, model, 3), observation, model, config, progress), progress


def face_error(truth: Scene, found: Scene, model: MorphableModel) -> float:
    """Mean distance of face vertices in the head's own axes after the best rigid motion, mm."""
    face = model.regions["skin"] > 0.5
    a, b = (scene.vertices_model(model)[0, face].double() for scene in (truth, found))
    rotation, shift = roma.rigid_points_registration(b, a)
    return float((b @ rotation.T + shift - a).norm(dim=1).mean())


@pytest.mark.parametrize(
    ("yaw", "convention"), [(0, "mediapipe"), (-20, "mediapipe"), (40, "mediapipe"), (0, "ibug68"), (30, "ibug68")]
)
def test_pose_and_face_from_exact_landmarks(yaw: float, convention: str, head: MorphableModel):
    truth = known_scene(head, seed=abs(yaw) + 3, yaw=yaw)
    observation = observe_scene(truth, head, convention, focal=1.2 * truth.focal, focal_sd=0.4)
    found, progress = fitted(observation, head)
    assert float(degrees_apart(truth, found)) < 3.0
    assert face_error(truth, found, head) < 1.8
    distance = (project_landmarks(found, head, convention) - observation.points).norm(dim=-1)
    assert float(distance.mean()) < 0.005 * truth.width
    assert float(found.focal / truth.focal) == pytest.approx(1.0, abs=0.3)
    assert len(progress.losses[0]) < 60


def test_expression_from_exact_landmarks(head: MorphableModel):
    """An open mouth is seen as an open mouth and not as another jaw."""
    neutral = known_scene(head, seed=4, strength=0.0)
    unit = int(head.expression_basis[:, :, 1].abs().amax(1).argmax())
    truth = replace(neutral, expression=torch.zeros_like(neutral.expression))
    truth.expression[0, unit] = 0.8 * float(head.expression_upper[unit].clamp(max=2.0))
    found, _ = fitted(observe_scene(truth, head), head)
    moved = torch.einsum("k,kvc->vc", truth.expression[0], head.expression_basis)
    recovered = torch.einsum("k,kvc->vc", found.expression[0], head.expression_basis)
    face = head.regions["skin"] > 0.5
    assert float((recovered - moved)[face].square().mean() / moved[face].square().mean()) < 0.2
    assert int(found.expression[0].argmax()) == unit


def test_the_lens_is_found_where_perspective_tells_it(head: MorphableModel):
    """At arm's length the nose grows: a focal length guessed 1.4 times too long comes down."""
    truth = known_scene(head, seed=2, yaw=25.0, distance=350.0, strength=0.3)
    observation = observe_scene(truth, head, focal=1.4 * truth.focal, focal_sd=0.6)
    found, _ = fitted(observation, head)
    assert float(found.focal / truth.focal) == pytest.approx(1.0, abs=0.15)


def test_a_lens_that_is_known_stays(head: MorphableModel):
    truth = known_scene(head, seed=2, distance=350.0)
    observation = observe_scene(truth, head, focal=1.4 * truth.focal, focal_sd=0.0)
    found, _ = fitted(observation, head)
    assert float(found.focal / observation.focal) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_expression_units_stay_within_their_bounds(seed: int, head: MorphableModel):
    truth = known_scene(head, seed=seed)
    scattered = observe_scene(truth, head)
    noise = torch.randn(scattered.points.shape, generator=torch.Generator().manual_seed(seed))
    found, progress = fitted(replace(scattered, points=scattered.points + 1.5 * noise), head)
    assert len(progress.losses[0]) < 100, "visibility and pose chased each other"
    assert bool((found.expression >= head.expression_lower).all())
    assert bool((found.expression <= head.expression_upper).all())
    assert bool((found.expression == head.expression_lower).any()), "nothing met a bound: the test shows nothing"


def test_a_landmark_far_off_is_outvoted(head: MorphableModel):
    truth = known_scene(head, seed=5)
    observation = observe_scene(truth, head)
    observation.points[0, ::25] += 40.0
    found, _ = fitted(observation, head)
    assert float(degrees_apart(truth, found)) < 2.5


def test_missing_landmarks_do_not_count(head: MorphableModel):
    truth = known_scene(head, seed=5)
    whole = observe_scene(truth, head)
    lacking = replace(whole, points=whole.points.clone(), confidence=whole.confidence.clone())
    lacking.points[0, 100:150] = 0.0
    lacking.confidence[0, 100:150] = 0.0
    found, _ = fitted(lacking, head)
    assert float(degrees_apart(truth, found)) < 2.0


def test_the_loss_never_rises_and_iterations_are_bounded(toy: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    """While the same points of the surface are seen, every step is an improvement; `iterStep1` is an upper bound."""
    monkeypatch.setattr(pose, "_rechoose", lambda embedding, model, scene, state, held: (held, torch.ones(held.shape)))
    observation = observe_scene(known_scene(toy, seed=1), toy)
    _, progress = fitted(observation, toy)
    (losses,) = progress.losses
    assert all(later <= earlier for earlier, later in zip(losses[:-1], losses[1:], strict=True))
    _, cut = fitted(observation, toy, replace(CONFIG, iter_step1=2))
    assert len(cut.losses[0]) == 2


def test_photos_of_a_batch_do_not_disturb_each_other(toy: MorphableModel):
    scenes = [known_scene(toy, seed=1, yaw=-15.0), known_scene(toy, seed=2, yaw=25.0)]
    alone = [fitted(observe_scene(scene, toy), toy)[0] for scene in scenes]
    names = ("shape", "albedo", "expression", "rotation", "translation", "focal", "principal", "light")
    both = replace(
        scenes[0],
        exposure=torch.zeros(2),
        white_balance=torch.zeros(2, 2),
        **{name: torch.cat([getattr(scene, name) for scene in scenes]) for name in names},
    )
    together, _ = fitted(observe_scene(both, toy), toy)
    for number, single in enumerate(alone):
        assert torch.allclose(together.rotation[number], single.rotation[0], atol=2e-3)
        assert torch.allclose(together.translation[number], single.translation[0], rtol=5e-3, atol=0.5)


@pytest.mark.grad
def test_the_gradient_is_the_cost_s_derivative(toy: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    """Every one of the unknowns, at a place away from the minimum where the robust weights matter."""
    problem, state, _ = posed_problem(toy, offset=0.4)
    _, gradient = normal_equations(problem, state, monkeypatch)

    def cost(step: Tensor) -> float:
        return float(pose._cost(problem, state.moved(step[None], problem.lower, problem.upper))[0])

    numeric = central_differences(cost, gradient.shape[1], 1e-5)
    assert torch.allclose(gradient[0], numeric, rtol=2e-5, atol=1e-5 * float(numeric.abs().max()))


@pytest.mark.grad
def test_the_normal_matrix_is_the_cost_s_curvature(toy: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    """Where all residuals are zero, Gauss-Newton's JᵀJ is the exact second derivative: it proves the Jacobian."""
    problem, state, _ = posed_problem(toy, offset=0.0)
    normal, gradient = normal_equations(problem, state, monkeypatch)
    size = gradient.shape[1]
    columns = []
    for number in range(size):
        step = torch.zeros(1, size, dtype=torch.float64)
        step[0, number] = 1e-5
        either = []
        for sign in (1.0, -1.0):
            moved = state.moved(sign * step, problem.lower, problem.upper)
            either.append(normal_equations(problem, moved, monkeypatch)[1][0])
        columns.append((either[0] - either[1]) / 2e-5)
    numeric = torch.stack(columns, 1)
    numeric = numeric[
        :, 3:
    ]  # a small rotation turns the axes of the next: only the other columns are plain derivatives
    assert torch.allclose(normal[0, :, 3:], numeric, rtol=1e-4, atol=1e-6 * float(numeric.abs().max()))


@pytest.mark.grad
def test_a_second_undamped_step_finds_nothing_left(toy: MorphableModel):
    """Near the answer one step of Gauss-Newton reaches the minimum."""
    problem, state, _ = posed_problem(toy, offset=0.02)
    costs = [float(pose._cost(problem, state))]
    for _ in range(2):
        step = pose._step(problem, state, torch.zeros(1, dtype=torch.float64))
        state = state.moved(step, problem.lower, problem.upper)
        costs.append(float(pose._cost(problem, state)))
    assert costs[0] > 4.0 * costs[1]
    assert costs[1] - costs[2] < 1e-3 * (costs[0] - costs[1])


def test_a_step_ends_at_the_bounds(toy: MorphableModel):
    """Targets that ask for a unit below its bound: the step stops there, and the others' solution allows for it."""
    problem, state, truth = posed_problem(toy, offset=0.0)
    wish = truth.clone()
    wish[0, 0] = -1.0  # the toy's first expression unit begins at 0
    shapes = toy.shape_basis.shape[0]
    there = pose._State(
        state.rotation, state.translation, state.log_focal, torch.cat([state.coefficients[:, :shapes], wish], 1)
    )
    residual = pose._project(problem, there)[2] / problem.inverse_sd[..., None]
    asked = replace(problem, target=problem.target + residual)
    step = pose._step(asked, state, torch.full((1,), 1e-6, dtype=torch.float64))
    reached = state.coefficients + step[:, pose._POSE :]
    assert float(reached[0, shapes]) == pytest.approx(0.0, abs=1e-12)
    assert bool((reached >= asked.lower - 1e-12).all())
    clamped = replace(asked, lower=torch.full_like(asked.lower, -torch.inf))
    free = pose._step(clamped, state, torch.full((1,), 1e-6, dtype=torch.float64))
    cost_bounded = pose._cost(asked, state.moved(step, asked.lower, asked.upper))
    cost_cut = pose._cost(asked, state.moved(free, asked.lower, asked.upper))
    assert float(cost_bounded) < float(cost_cut)


def posed_problem(model: MorphableModel, offset: float) -> tuple[pose._Problem, pose._State, Tensor]:
    """The landmarks' problem at the truth moved by `offset` (degrees·30, shares, standard deviations), priors centred there."""
    truth = known_scene(model, seed=3)
    truth.expression[0] = torch.tensor([0.7, 0.6, 0.2])
    observation = observe_scene(truth, model, focal_sd=0.3)
    embedding = observation.embedding(model)
    observation = replace(observation, points=observation.points.double(), focal=truth.focal.double())
    choice = contours.first_choice(embedding, 1)
    problem = pose._problem(embedding, model, observation, choice, torch.ones_like(observation.confidence))
    state = pose._State(
        roma.rotvec_to_rotmat(truth.rotation.double()),
        truth.translation.double(),
        truth.focal.double().log(),
        torch.cat([truth.shape, truth.expression], 1).double(),
    )
    camera = pose._project(problem, state)[1]
    pixels = truth.focal.double() * camera[..., :2] / camera[..., 2:] + truth.principal.double()
    problem = replace(problem, target=pixels)
    random = torch.Generator().manual_seed(8)
    size = pose._POSE + state.coefficients.shape[1]
    step = offset * torch.randn(1, size, generator=random, dtype=torch.float64)
    step[:, 3:6] *= 40.0
    return problem, state.moved(step, problem.lower, problem.upper), truth.expression.double()


def normal_equations(
    problem: pose._Problem, state: pose._State, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """Matrix `[1, n, n]` and gradient `[1, n]` of the linear system that a step solves."""
    seen = []
    factorise, solve = torch.linalg.cholesky_ex, torch.cholesky_solve

    def matrix_seen(matrix: Tensor) -> tuple[Tensor, Tensor]:
        seen.append([matrix])
        return factorise(matrix)

    def right_seen(right: Tensor, factor: Tensor) -> Tensor:
        seen[-1].append(right[..., 0])
        return solve(right, factor)

    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "cholesky_ex", matrix_seen)
        patch.setattr(torch, "cholesky_solve", right_seen)
        pose._step(
            replace(
                problem,
                lower=torch.full_like(problem.lower, -torch.inf),
                upper=torch.full_like(problem.upper, torch.inf),
            ),
            state,
            torch.zeros(1, dtype=torch.float64),
        )
    return tuple(seen[0])


def central_differences(function, size: int, width: float) -> Tensor:  # type: ignore[no-untyped-def]
    numeric = torch.zeros(size, dtype=torch.float64)
    for number in range(size):
        step = torch.zeros(size, dtype=torch.float64)
        step[number] = width
        numeric[number] = (function(step) - function(-step)) / (2.0 * width)
    return numeric
