"""Self-shadowing against known answers: convex shapes, a wall, rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import roma
import torch
import trimesh

from nextface.rendering.basis import sh_basis
from nextface.rendering.sh import irradiance, rotation_matrix
from nextface.rendering.transport import Transport, hemisphere_coefficients
from nextface.rendering.visibility import blocked, sphere_directions

BANDS = 5


def mesh_of(shape: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(np.array(shape.vertices), dtype=torch.float32), torch.tensor(np.array(shape.faces))


@pytest.fixture(scope="module")
def corner() -> tuple[torch.Tensor, torch.Tensor]:
    """A floor (normal +y) of 200 mm before a wall (normal +z) as wide and 400 mm high, fine enough to interpolate."""
    side = np.linspace(-100.0, 100.0, 41)
    height = np.linspace(0.0, 400.0, 81)
    floor = np.stack(np.meshgrid(side, [0.0], side + 100.0, indexing="ij"), -1).reshape(41, 41, 3)
    wall = np.stack(np.meshgrid(side, height, [0.0], indexing="ij"), -1).reshape(41, 81, 3)
    vertices, triangles = [], []
    for grid, flip in ((floor, False), (wall, True)):
        rows, columns = grid.shape[:2]
        index = np.arange(rows * columns).reshape(rows, columns) + sum(len(part) for part in vertices)
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
        faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
        triangles.append(faces[:, ::-1] if flip else faces)
        vertices.append(grid.reshape(-1, 3))
    return torch.tensor(np.concatenate(vertices)).float(), torch.tensor(np.concatenate(triangles).copy())


def constant_light(bands: int = BANDS) -> torch.Tensor:
    light = torch.zeros(1, bands**2, 3)
    light[:, 0] = math.sqrt(4.0 * math.pi)
    return light


def lamp(direction: tuple[float, float, float], bands: int) -> torch.Tensor:
    toward = torch.nn.functional.normalize(torch.tensor([direction]), dim=-1)
    return sh_basis(toward, bands)[:, :, None].expand(1, -1, 3).contiguous()


def test_directions_are_even_and_come_in_pairs():
    directions = sphere_directions(256)
    torch.testing.assert_close(directions[128:], -directions[:128])
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(256))
    basis = sh_basis(directions.double(), 6)
    gram = basis.T @ basis * (4.0 * math.pi / 256)
    assert float((gram - torch.eye(36)).abs().max()) < 0.06


def test_nothing_shadows_a_convex_shape():
    vertices, triangles = mesh_of(trimesh.creation.icosphere(4, 100.0))
    transport = Transport.of(vertices[None], triangles, BANDS)
    assert float(transport.irradiance.abs().max()) < 0.02
    toward = torch.nn.functional.normalize(vertices + torch.tensor([0.0, 0.0, 40.0]), dim=-1)[None]
    assert float(transport.unblocked_lobe(toward, torch.full((1, len(vertices), 1), 0.4)).min()) > 0.98


def test_a_wall_takes_what_its_height_says(corner):
    """Under constant light a floor loses ∫ cosθ dω over the wall: ∫∫ cosθ cosθ' / r² over its rectangle."""
    vertices, triangles = corner
    transport = Transport.of(vertices[None], triangles, 3, directions=1024)
    change = transport.shadow(constant_light(3), torch.eye(3)[None])[0, :, 0]
    for distance in (10.0, 20.0):
        point = int((vertices - torch.tensor([0.0, 0.0, distance])).norm(dim=1).argmin())
        assert float((vertices[point] - torch.tensor([0.0, 0.0, distance])).norm()) < 0.1
        x, y = np.meshgrid(np.linspace(-99.75, 99.75, 400), np.linspace(0.5, 399.5, 400), indexing="ij")
        squared = x**2 + y**2 + distance**2
        expected = -float((y * distance / squared**2).sum() * 0.5)
        assert float(change[point]) == pytest.approx(expected, rel=0.06)


def test_a_lamp_behind_the_wall_casts_a_shadow_on_the_floor(corner):
    vertices, triangles = corner
    transport = Transport.of(vertices[None], triangles, 9)
    point = int((vertices - torch.tensor([0.0, 0.0, 60.0])).norm(dim=1).argmin())
    behind, before = lamp((0.0, 0.5, -0.6), 9), lamp((0.0, 0.5, 0.6), 9)
    unshadowed = 0.5 / math.hypot(0.5, 0.6)
    peak = float((sh_basis(torch.tensor([[0.0, 0.0, 1.0]]), 9) ** 2).sum())
    for light, share in ((behind, 1.0), (before, 0.0)):
        lost = -float(transport.shadow(light, torch.eye(3)[None])[0, point, 0])
        assert lost == pytest.approx(share * unshadowed, abs=0.12 * peak / 6.0)


def test_turning_head_and_light_together_changes_nothing(corner):
    vertices, triangles = corner
    transport = Transport.of(vertices[None], triangles, BANDS)
    light = torch.randn(1, BANDS**2, 3, generator=torch.Generator().manual_seed(1))
    turn = roma.random_rotmat(1)
    turned = rotation_matrix(turn.mT, BANDS) @ light
    torch.testing.assert_close(
        transport.shadow(turned, turn), transport.shadow(light, torch.eye(3)[None]), atol=2e-4, rtol=1e-3
    )


def test_rotation_matrix_evaluates_the_light_in_rotated_axes():
    generator = torch.Generator().manual_seed(0)
    light = torch.randn(81, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(100, 3, generator=generator), dim=-1)
    turn = roma.random_rotmat(2)
    matrices = rotation_matrix(turn, 9)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(81).expand(2, -1, -1), atol=1e-5, rtol=0)
    for matrix, rotation in zip(matrices, turn, strict=True):
        expected = sh_basis(directions @ rotation.T, 9) @ light
        torch.testing.assert_close(sh_basis(directions, 9) @ (matrix @ light), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.grad
def test_gradients_of_light_and_rotation(corner):
    vertices, triangles = corner
    coarse = Transport.of(vertices[None], triangles, 3)
    some = slice(None, None, 200)
    lost, whole = coarse.irradiance[:, some].double(), coarse.unshadowed[:, some].double()
    transport = Transport(lost, whole, coarse.hidden, coarse.normals)
    light = torch.randn(1, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    turn = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    light.data[:, 0] += 6.0
    torch.autograd.gradcheck(lambda c, r: transport.shadow(c, roma.rotvec_to_rotmat(r)), (light, turn))
    torch.autograd.gradcheck(lambda c, r: transport.lit(c, roma.rotvec_to_rotmat(r)), (light, turn))


def test_what_is_lit_is_the_shadowed_over_the_unshadowed_irradiance(corner):
    vertices, triangles = corner
    transport = Transport.of(vertices[None], triangles, BANDS)
    light, still = constant_light(), torch.eye(3)[None]
    image = torch.zeros(len(vertices), dtype=torch.int64)
    unshadowed = irradiance(transport.normals[0], light, image)
    expected = (unshadowed + transport.shadow(light, still)[0]) / unshadowed
    torch.testing.assert_close(transport.lit(light, still)[0], expected.clamp(0.0, 1.0), atol=1e-4, rtol=1e-4)


def test_hemisphere_coefficients_are_the_integrals_of_legendre_polynomials():
    nodes, weights = np.polynomial.legendre.leggauss(64)
    t = 0.5 * (nodes + 1.0)
    for degree, value in enumerate(hemisphere_coefficients(10)):
        expected = math.pi * float(weights @ np.polynomial.legendre.legval(t, np.eye(10)[degree]))
        assert value == pytest.approx(expected, abs=1e-9)


def test_a_lobe_that_meets_the_wall_is_blocked(corner):
    """On the floor beside the wall a viewer before it sees the wall mirrored, one on the wall's side the open sky."""
    vertices, triangles = corner
    transport = Transport.of(vertices[None], triangles, 9)
    point = int((vertices - torch.tensor([0.0, 0.0, 20.0])).norm(dim=1).argmin())
    rough = torch.full((1, len(vertices), 1), 0.3)
    shares = []
    for toward in ((0.0, 0.7, 0.7), (0.0, 0.7, -0.7)):
        direction = torch.nn.functional.normalize(torch.tensor(toward), dim=-1).expand(1, len(vertices), 3)
        shares.append(float(transport.unblocked_lobe(direction, rough)[0, point, 0]))
    assert shares[0] < 0.1
    assert shares[1] > 0.9


def test_receivers_show_their_share_of_the_shadow(corner):
    vertices, triangles = corner
    whole = Transport.of(vertices[None], triangles, 3)
    half = Transport.of(vertices[None], triangles, 3, receivers=torch.full((len(vertices), 1), 0.5))
    torch.testing.assert_close(half.irradiance, 0.5 * whole.irradiance)


def test_a_direction_below_the_horizon_is_not_called_blocked():
    vertices, triangles = mesh_of(trimesh.creation.icosphere(3, 100.0))
    normals = vertices / vertices.norm(dim=1, keepdim=True)
    directions = sphere_directions(64)
    shares = blocked(vertices[None], normals[None], triangles, directions)[0]
    assert float(shares[(normals @ directions.T) < 0].abs().max()) == 0.0
