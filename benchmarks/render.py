"""Time one drawing and its backward pass: ours on the CPU, ours on CUDA where there is a device, and Mitsuba 3 (llvm).

Usage: python -m benchmarks.render [--sizes 256:512 512:1024] [--repeats N] [--threads N]

All draw one head of the open model at the same size, with the same mesh and skin maps, and carry a random cotangent of the
picture back to the maps and to the light. Ours is the whole renderer, from coefficients to antialiased picture: self-shadowed
diffuse, GGX, four maps, SH light of nine bands; exact, without samples. Mitsuba traces 8 paths per pixel, direct light only,
from an environment map, with albedo and roughness maps, and differentiates by path replay. Compilation and first calls do not
count; of all repeats the fastest counts, which leaves out what other work on the machine cost.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nextface.morphable.model import MorphableModel
    from nextface.scene import Scene

SAMPLES = 8
BANDS = 9


def fastest(once: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of some calls, after two that do not count."""
    times = []
    for number in range(repeats + 2):
        began = time.perf_counter()
        once()
        if number >= 2:
            times.append(time.perf_counter() - began)
    return 1000.0 * min(times)


def head(model: MorphableModel, size: int, texture: int) -> Scene:
    """The mean head, turned a little, filling a picture of `size`² under a coloured side light, with its statistical maps."""
    import torch

    from nextface.rendering.skin import statistical_maps
    from nextface.scene import Scene

    light = torch.zeros(1, BANDS**2, 3)
    light[:, 0], light[:, 2:4] = 3.0, torch.tensor([[0.8], [1.2]]) * torch.tensor([1.1, 1.0, 0.9])
    scene = Scene(
        shape=torch.zeros(1, len(model.shape_basis)),
        albedo=torch.zeros(1, len(model.diffuse_basis)),
        expression=torch.zeros(1, len(model.expression_basis)),
        rotation=torch.tensor([[0.1, 0.3, 0.0]]),
        translation=torch.tensor([[0.0, 0.0, 1000.0]]),
        focal=torch.tensor([3.7 * size]),
        principal=torch.full((1, 2), 0.5 * size),
        light=light,
        exposure=torch.zeros(1),
        white_balance=torch.zeros(1, 2),
        height=size,
        width=size,
    )
    return replace(scene, maps=statistical_maps(scene, model, texture))


def drawn_on_cuda() -> bool:
    """Whether there is a device and nvdiffrast to draw with."""
    import torch

    from nextface.errors import MissingPackageError
    from nextface.rendering.backend import rasterizer_for

    if not torch.cuda.is_available():
        return False
    try:
        rasterizer_for(torch.device("cuda"))
    except MissingPackageError as error:
        print(f"CUDA is not timed: {error}\n")
        return False
    return True


def cotangent(size: int) -> Tensor:
    import torch

    return torch.randn(size, size, 3, generator=torch.Generator().manual_seed(0))


def ours(scene: Scene, model: MorphableModel, device: str, repeats: int) -> float:
    """Milliseconds of drawing and going back to the maps and the light."""
    import torch

    from nextface.rendering.render import render
    from nextface.rendering.transport import Transport

    scene, model = scene.detached().to(device), model.to(device)
    transport = Transport.of_head(scene, model)
    assert scene.maps is not None
    levels = [level for map_ in scene.maps.textures().values() for level in map_.levels]
    leaves = [part.requires_grad_() for part in (*levels, scene.light)]
    weight = cotangent(scene.height).to(device)

    def once() -> None:
        picture = render(scene, model, transport=transport).image[0]
        torch.autograd.grad((picture * weight).sum(), leaves)
        if device == "cuda":
            torch.cuda.synchronize()

    return fastest(once, repeats)


def mitsubas(scene: Scene, model: MorphableModel, threads: int, repeats: int) -> float | None:
    """The same by Mitsuba with its llvm variant, or None where it cannot run."""
    from benchmarks import mitsuba_scene
    from nextface.rendering.camera import Camera

    try:
        mi = mitsuba_scene.load_mitsuba()
    except ImportError:
        return None
    if mi.variant() != "llvm_ad_rgb":
        return None
    import drjit as dr

    dr.set_thread_count(threads)
    assert scene.maps is not None
    maps = {name: map_.full()[0].clamp(0.0, 1.0) for name, map_ in scene.maps.textures().items()}
    skin = {
        "type": "principled",
        "specular": 0.5,
        "base_color": mitsuba_scene.texture(mi, maps["diffuse"]),
        "roughness": mitsuba_scene.texture(mi, maps["roughness"]),
    }
    light = mitsuba_scene.environment(scene.radiance()[0]).clip(min=0.0)
    surface, camera = mitsuba_scene.Surface.unwrapped(scene, model), Camera.of(scene)
    material = mitsuba_scene.Material(skin, follows_light=True)
    built = mitsuba_scene.build(mi, surface, material, light, camera, samples=SAMPLES)
    replay = mi.load_dict({"type": "prb", "max_depth": 2, "hide_emitters": True})
    values = mi.traverse(built)
    names = [
        name for name in values.keys() if name.endswith(("base_color.data", "roughness.data")) or name == "light.data"
    ]
    assert len(names) == 3
    for name in names:
        dr.enable_grad(values[name])
    values.update()
    weight = mi.TensorXf(cotangent(scene.height).numpy())
    seeds = iter(range(10**6))

    def once() -> None:
        picture = mi.render(built, values, integrator=replay, spp=SAMPLES, seed=next(seeds))
        dr.backward(dr.sum(picture * weight, axis=None))
        gradients = [dr.grad(values[name]) for name in names]
        dr.eval(*gradients)
        dr.sync_thread()
        for name in names:
            dr.clear_grad(values[name])

    return fastest(once, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["256:512", "512:1024"], metavar="SIDE:TEXTURE")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    arguments = parser.parse_args()
    threads = arguments.threads or os.cpu_count() or 1

    from nextface.cli import set_threads
    from nextface.config import OptimConfig

    set_threads(OptimConfig(device="cpu", threads=threads), os.environ)

    from nextface.morphable import load_model
    from nextface.paths import default_model_folder

    model = load_model(default_model_folder())
    cuda_ready = drawn_on_cuda()
    print(f"threads: {threads} of {os.cpu_count()} cores\n")
    print("| picture | maps | ours, CPU | Mitsuba 3 llvm | ratio | ours, CUDA | ratio | load before |")
    print("|---|---|---|---|---|---|---|---|")
    for side, texture in ((int(part) for part in text.split(":")) for text in arguments.sizes):
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        scene = head(model, side, texture)
        cpu = ours(scene, model, "cpu", arguments.repeats)
        cuda = ours(scene, model, "cuda", arguments.repeats) if cuda_ready else None
        traced = mitsubas(scene, model, threads, arguments.repeats)
        shown = [f"{cpu:.1f} ms", _milliseconds(traced), _ratio(traced, cpu), _milliseconds(cuda), _ratio(traced, cuda)]
        print(f"| {side}² | {texture}² | {' | '.join(shown)} | {load:.2f} |", flush=True)
    if traced is None:
        print(
            "\nMitsuba was not timed: its llvm variant needs the package mitsuba and LLVM 19 or later (Debian: libllvm19)."
        )


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _ratio(theirs: float | None, ours: float | None) -> str:
    return "–" if theirs is None or ours is None else f"{theirs / ours:.1f}"


if __name__ == "__main__":
    main()
