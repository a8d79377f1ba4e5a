"""A stand-in for the package nvdiffrast in plain torch, after its documentation: as much of it as the project calls.

It is strict about what the real one requires of its arguments, snaps corners to the same 1/16 pixel, and is slow.
"""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

_SUBPIXELS = 16


class RasterizeCudaContext:
    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = device
        self.calls = 0


def rasterize(
    glctx: RasterizeCudaContext,
    pos: Tensor,
    tri: Tensor,
    resolution: tuple[int, int],
    ranges: Tensor | None = None,
    grad_db: bool = True,
) -> tuple[Tensor, Tensor]:
    """(u, v, z/w, triangle number + 1) per pixel; row 0 is at clip y = -1. Range mode only: pos [V, 4], ranges [B, 2]."""
    assert isinstance(glctx, RasterizeCudaContext) and isinstance(grad_db, bool)
    assert pos.dtype == torch.float32 and pos.is_contiguous() and pos.ndim == 2 and pos.shape[1] == 4
    assert tri.dtype == torch.int32 and tri.is_contiguous() and tri.ndim == 2 and tri.shape[1] == 3 and len(tri) > 0
    assert pos.device == tri.device
    assert ranges is not None and ranges.device.type == "cpu" and ranges.dtype == torch.int32
    assert ranges.is_contiguous() and ranges.ndim == 2 and ranges.shape[1] == 2
    assert 0 <= int(tri.min()) and int(tri.max()) < len(pos)
    assert bool((pos[tri.long()][..., 3] > 0).all()), "the stand-in does not clip triangles behind the viewer"
    glctx.calls += 1
    height, width = resolution
    out = torch.zeros(len(ranges), height, width, 4)
    for image, (start, count) in enumerate(ranges.tolist()):
        for number in range(start, start + count):
            _draw(pos[tri[number].long()].double(), number, out[image])
    return out, torch.zeros_like(out)


def _draw(corners: Tensor, number: int, image: Tensor) -> None:
    """Draw one triangle, [3, 4] clip coordinates, into [H, W, 4]."""
    height, width = image.shape[:2]
    half = torch.tensor([width, height]) * _SUBPIXELS // 2
    place = (corners[:, :2] / corners[:, 3:] * half).round().long() + half
    depth = corners[:, 2] / corners[:, 3]
    (ax, ay), (bx, by), (cx, cy) = place.tolist()
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0:
        return
    low, high = place.amin(0) // _SUBPIXELS, place.amax(0) // _SUBPIXELS + 1
    left, top = low.clamp_min(0).tolist()
    right, bottom = min(int(high[0]), width), min(int(high[1]), height)
    if left >= right or top >= bottom:
        return
    x = (torch.arange(left, right) * _SUBPIXELS + _SUBPIXELS // 2)[None, :]
    y = (torch.arange(top, bottom) * _SUBPIXELS + _SUBPIXELS // 2)[:, None]
    sign = 1 if area > 0 else -1
    edges = [((bx, by), (cx, cy)), ((cx, cy), (ax, ay)), ((ax, ay), (bx, by))]
    weights = torch.stack([sign * ((qx - px) * (y - py) - (qy - py) * (x - px)) for (px, py), (qx, qy) in edges])
    owned = [sign * (qy - py) < 0 or (qy == py and sign * (qx - px) > 0) for (px, py), (qx, qy) in edges]
    inside = torch.stack([w >= 0 if own else w > 0 for w, own in zip(weights, owned, strict=True)]).all(0)
    share = weights.double() / abs(area)
    z = (share * depth[:, None, None]).sum(0)
    window = image[top:bottom, left:right]
    nearer = inside & (z.abs() <= 1.0) & ((window[..., 3] == 0) | (z < window[..., 2]))
    over_w = share / corners[:, 3, None, None]
    perspective = over_w / over_w.sum(0)
    value = torch.stack([perspective[0], perspective[1], z, torch.full_like(z, number + 1)], -1).float()
    window[nearer] = value[nearer]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import nvdiffrast.torch` find the stand-in."""
    package, module = ModuleType("nvdiffrast"), ModuleType("nvdiffrast.torch")
    module.__dict__.update(RasterizeCudaContext=RasterizeCudaContext, rasterize=rasterize)
    package.__dict__["torch"] = module
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
