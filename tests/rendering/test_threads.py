"""Kernels on several threads: the same bytes every time and for every count of threads."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawing import toy_scene
from torch import Tensor

from nextface.fitting.texels import Penalties, TexelAdam
from nextface.rendering import jit
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import viewing_directions
from nextface.rendering.shading import shade
from nextface.rendering.texture import TextureLookup
from nextface.textures import LaplacianTexture


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def drawn(model, batch: int) -> list[Tensor]:
    """Every kernel forward and backward at a size that is worth several threads, and one step of the texels."""
    scene = toy_scene(model, batch=batch)
    scene = replace(scene, focal=scene.focal * 5, principal=scene.principal * 5, height=240, width=240)
    camera = Camera.of(scene)
    vertices = scene.vertices_camera(model).requires_grad_()
    pixels = CpuRasterizer().visible_triangles(vertices, model.triangles, camera)
    covered = fragments(vertices, model.triangles, pixels, camera)
    normal = torch.nn.functional.normalize(covered.interpolate(vertex_normals(vertices, model.triangles)), dim=-1)
    lookup = TextureLookup.build(covered, model, 128, camera, vertices)
    image = torch.rand(batch, 128, 128, 7, generator=torch.Generator().manual_seed(0))
    texture = LaplacianTexture([level.requires_grad_() for level in LaplacianTexture.from_image(image).levels])
    values = lookup.lookup(texture)
    radiance = scene.radiance().requires_grad_()
    colour = shade(
        normal,
        viewing_directions(pixels, camera),
        values[:, :3],
        values[:, 3:4],
        values[:, 4:5],
        radiance,
        pixels.image,
    )
    cotangent = torch.randn(colour.shape, generator=torch.Generator().manual_seed(1))
    inputs = [vertices, radiance, *texture.levels]
    gradients = torch.autograd.grad((colour * cotangent).sum(), inputs)
    touched = lookup.touched(texture)[-1]
    one = torch.ones(7)
    texels = TexelAdam(texture.levels[-1].detach(), Penalties(one, one, one, 0.5), 0.01 * one, touched)
    typical = texels.typical(gradients[-1])
    texels.step(gradients[-1], 1.0, typical)
    return [pixels.triangle, pixels.neighbours, covered.barycentric, values, colour, *gradients, typical, texels.level]


def digest(tensors: list[Tensor]) -> list[str]:
    return [hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest() for tensor in tensors]


@pytest.mark.parametrize("batch", [1, 2])
def test_same_bytes_every_time_and_on_any_number_of_threads(toy, threads, batch: int):
    found = []
    for count in (2, 2, 1, 3):
        torch.set_num_threads(count)
        found.append(digest(drawn(toy, batch)))
    assert found[0] == found[1]
    assert found[0] == found[2] == found[3]


def test_every_share_is_done_once(threads):
    torch.set_num_threads(3)
    counts = np.zeros(10_001, np.int64)

    def work(start: int, stop: int, counts: np.ndarray) -> None:
        counts[start:stop] += 1

    jit.spread(work, len(counts), counts)
    assert (counts == 1).all()
    jit.spread(work, 0, counts)
    assert (counts == 1).all()


def test_strips_cover_every_pixel_once():
    starts = np.array([0, 10, 10, 50_000])
    found = jit.strips(starts)
    assert [strip[0] for strip in found] == [0, 1, 2, 2, 2, 2]
    assert [strip[1:] for strip in found][:2] == [(0, 10), (10, 10)]
    assert all(last[2] == following[1] for last, following in zip(found[:-1], found[1:], strict=True))
    assert found[-1][2] == 50_000


def test_an_error_on_another_thread_arrives(threads):
    torch.set_num_threads(2)

    def work(start: int, stop: int) -> None:
        if start > 0:
            raise ValueError("the second share")

    with pytest.raises(ValueError, match="the second share"):
        jit.spread(work, 2, grain=1)


def test_several_callers_at_once(threads):
    """Callers share the helpers; none waits for ever and none does another's work."""
    torch.set_num_threads(2)
    sums = np.zeros((4, 40_000))

    def work(start: int, stop: int, row: np.ndarray) -> None:
        row[start:stop] += np.arange(start, stop)

    def call(row: np.ndarray) -> None:
        for _ in range(50):
            jit.spread(work, row.size, row)

    callers = [threading.Thread(target=call, args=(row,)) for row in sums]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30.0)
        assert not caller.is_alive()
    assert (sums == 50 * np.arange(sums.shape[1])).all()


def _after_fork(sender) -> None:
    counts = np.zeros(10_000, np.int64)
    jit.spread(_mark, len(counts), counts)
    sender.send(int(counts.sum()))


def _mark(start: int, stop: int, counts: np.ndarray) -> None:
    counts[start:stop] += 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads):
    torch.set_num_threads(2)
    jit.spread(_mark, 10_000, np.zeros(10_000, np.int64))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_after_fork, args=(sender,))
    child.start()
    assert receiver.poll(30.0)
    assert receiver.recv() == 10_000
    child.join(30.0)
