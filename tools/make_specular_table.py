"""Make nextface/rendering/specular_table.npz: the GGX lobe of skin as a few numbers per (roughness, n·v).

For a perceptual roughness r (GGX width α = r²) and a viewing cosine n·v, the reflected lobe f(v, ω) max(n·ω, 0) with exact
dielectric Fresnel (n = 1.4) and separable Smith shadowing (Walter et al. 2007) is integrated on a fixed grid of visible
microfacet normals (Heitz 2018, "Sampling the GGX distribution of visible normals"). Its spherical-harmonic coefficients are
then fitted, band by band, by a zonal lobe about a direction d in the plane of incidence plus a low zonal lobe about the
normal n (the horizon cuts rough lobes off, which no lobe about d alone can follow):

  lobe ≈ E · [ Σ_{l=0..9} K_l Z_l(d) + Σ_{l=1..4} N_l Z_l(n) ],  Z_l(d) = Σ_m Y_lm(d) Y_lm

d minimises the squared error, weighted by the spectrum of a typical light. K_0 = 1, so E is exact. Stored, all float32:

  albedo  E: the integral of the lobe, i.e. its reflectance under constant light. [R, N]
  tilt    t: d = normalise(reflection + t·(normal − reflection)). [R, N]
  about_direction  K_0 … K_9. [R, N, 10]
  about_normal     N_1 … N_4. [R, N, 4]

R and N nodes are uniform in r = 0..1 and n·v = 0..1. The r = 0 row is the mirror: E = Fresnel, t = 0, K_l = 1, N_l = 0.

Run: python tools/make_specular_table.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar

from nextface.rendering.basis import band_of, sh_basis

INDEX = 1.4
NODES = 33
BANDS = 10
BANDS_ABOUT_NORMAL = 5
GRID = 256
GRAZING = 1e-3  # stands for n·v = 0, where the lobe's limit exists but its formula divides by zero
HEAD_ON = 1.0 - 1e-4  # stands for n·v = 1, where d is a limit
LIGHT_FALLOFF = 0.04  # power of a typical light in band l: exp(−0.04 l (l + 1))
RIDGE = 1e-4  # keeps K and N apart where d nears n
TABLE = Path(__file__).resolve().parent.parent / "nextface" / "rendering" / "specular_table.npz"


def fresnel(cosine: np.ndarray) -> np.ndarray:
    """Unpolarised reflectance of a dielectric of index 1.4 seen from air."""
    sine_inside = np.sqrt(np.clip(1.0 - cosine**2, 0.0, 1.0)) / INDEX
    cosine_inside = np.sqrt(1.0 - sine_inside**2)
    perpendicular = (cosine - INDEX * cosine_inside) / (cosine + INDEX * cosine_inside)
    parallel = (INDEX * cosine - cosine_inside) / (INDEX * cosine + cosine_inside)
    return 0.5 * (perpendicular**2 + parallel**2)


def smith(cosine: np.ndarray, alpha: float) -> np.ndarray:
    """Smith's shadowing of one direction for GGX."""
    return 2.0 * cosine / (cosine + np.sqrt(alpha**2 + (1.0 - alpha**2) * cosine**2))


def samples(roughness: float, viewing: float) -> tuple[np.ndarray, np.ndarray]:
    """Directions [S, 3] and weights [S] that integrate the lobe; the viewer lies in the xz plane, the normal is z."""
    alpha = roughness**2
    view = np.array([np.sqrt(1.0 - viewing**2), 0.0, viewing])
    stretched = np.array([alpha * view[0], 0.0, view[2]])
    stretched /= np.linalg.norm(stretched)
    centres = (np.arange(GRID) + 0.5) / GRID
    radius, angle = np.meshgrid(np.sqrt(centres), 2.0 * np.pi * centres, indexing="ij")
    across, along = radius * np.sin(angle), radius * np.cos(angle)
    blend = 0.5 * (1.0 + stretched[2])
    along = (1.0 - blend) * np.sqrt(1.0 - across**2) + blend * along
    upward = np.sqrt(np.clip(1.0 - across**2 - along**2, 0.0, 1.0))
    pole = np.array([-stretched[2], 0.0, stretched[0]])
    facet = np.stack(
        [
            alpha * (along * pole[0] + upward * stretched[0]),
            alpha * across,
            np.clip(along * pole[2] + upward * stretched[2], 1e-9, None),
        ],
        -1,
    )
    facet /= np.linalg.norm(facet, axis=-1, keepdims=True)
    incidence = facet @ view
    light = 2.0 * incidence[..., None] * facet - view
    weight = fresnel(incidence) * np.where(light[..., 2] > 0.0, smith(np.abs(light[..., 2]), alpha), 0.0)
    return light.reshape(-1, 3), weight.ravel() / weight.size


def lobe(roughness: float, viewing: float) -> tuple[float, np.ndarray]:
    """E and the coefficients [L] of the lobe divided by E."""
    directions, weights = samples(roughness, viewing)
    albedo = weights.sum()
    return albedo, weights @ sh_basis(torch.from_numpy(directions), BANDS).numpy() / albedo


def best_angle(coefficients: np.ndarray, viewing: float) -> float:
    """The angle between d and n, away from the viewer, that leaves the least error."""
    mean_angle = np.arctan2(-coefficients[3], coefficients[2])  # band 1 is ordered y, z, x
    mirror_angle = np.arccos(viewing)
    bounds = (0.9 * min(mean_angle, mirror_angle), 1.25 * max(mean_angle, mirror_angle))
    return minimize_scalar(lambda angle: fit(coefficients, angle)[0], bounds=bounds, method="bounded").x


def fit(coefficients: np.ndarray, angle: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Weighted squared error, K and N for a direction at `angle` from the normal, away from the viewer."""
    axes = torch.tensor([[-np.sin(angle), 0.0, np.cos(angle)], [0.0, 0.0, 1.0]], dtype=torch.float64)
    basis = sh_basis(axes, BANDS).numpy()
    band = np.array(band_of(BANDS))
    about_direction, about_normal = np.ones(BANDS), np.zeros(BANDS_ABOUT_NORMAL - 1)
    error = 0.0
    for degree in range(1, BANDS):
        target = coefficients[band == degree]
        columns = basis[: 2 if degree < BANDS_ABOUT_NORMAL else 1, band == degree].T
        penalty = RIDGE * np.diag([0.0, 1.0])[: columns.shape[1], : columns.shape[1]]
        solution = np.linalg.solve(columns.T @ columns + penalty, columns.T @ target)
        about_direction[degree] = solution[0]
        if degree < BANDS_ABOUT_NORMAL:
            about_normal[degree - 1] = solution[1]
        misfit = ((columns @ solution - target) ** 2).sum() + solution @ penalty @ solution
        error += np.exp(-LIGHT_FALLOFF * degree * (degree + 1)) * misfit
    return error, about_direction, about_normal


def tilt_of(angle: float, viewing: float) -> float:
    """t such that reflection + t·(normal − reflection) lies at `angle` from the normal."""
    reflection = np.array([-np.sqrt(1.0 - viewing**2), viewing])
    towards = np.array([0.0, 1.0]) - reflection
    direction = np.array([-np.sin(angle), np.cos(angle)])
    return (reflection[1] * direction[0] - reflection[0] * direction[1]) / (
        towards[0] * direction[1] - towards[1] * direction[0]
    )


def angle_of(tilt: float, viewing: float) -> float:
    """The inverse of `tilt_of`."""
    return np.arctan2((1.0 - tilt) * np.sqrt(1.0 - viewing**2), viewing + tilt * (1.0 - viewing))


def main() -> None:
    nodes = np.linspace(0.0, 1.0, NODES)
    viewing = np.clip(nodes, GRAZING, HEAD_ON)
    albedo, tilt = np.empty((NODES, NODES)), np.zeros((NODES, NODES))
    coefficients = np.empty((NODES, NODES, BANDS**2))
    about_direction = np.ones((NODES, NODES, BANDS))
    about_normal = np.zeros((NODES, NODES, BANDS_ABOUT_NORMAL - 1))
    albedo[0] = fresnel(nodes)
    for i in range(1, NODES):
        for j in range(NODES):
            albedo[i, j], coefficients[i, j] = lobe(nodes[i], viewing[j])
            tilt[i, j] = tilt_of(best_angle(coefficients[i, j], viewing[j]), viewing[j])
    # Rough lobes have flat optima; smooth directions make smooth tables and cost next to nothing.
    tilt[1:] = gaussian_filter(tilt[1:], 1.5, mode="nearest")
    for i in range(1, NODES):
        for j in range(NODES):
            angle = angle_of(tilt[i, j], viewing[j])
            _, about_direction[i, j], about_normal[i, j] = fit(coefficients[i, j], angle)
    table = {"albedo": albedo, "tilt": tilt, "about_direction": about_direction, "about_normal": about_normal}
    np.savez_compressed(TABLE, **{name: part.astype(np.float32) for name, part in table.items()})


if __name__ == "__main__":
    main()
