"""Make nextface/fitting/light_prior.npz, the Gaussian of natural light, from CC0 environment photographs.

Source: the npm package `@pmndrs/assets` 1.7.0 (`npm pack @pmndrs/assets@1.7.0`), 18 Poly Haven HDR panoramas scaled to
512 x 256, CC0-1.0, of which two are damaged. A third of the others is held out and goes to
benchmarks/data/heldout_lights.npz, the light of the fidelity benchmark.

Usage: python tools/make_light_prior.py pmndrs-assets-1.7.0.tgz
"""

from __future__ import annotations

import argparse
import base64
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import OpenEXR
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

Array = NDArray[np.float64]

BANDS = 10
SOURCE = "npm @pmndrs/assets 1.7.0 (Poly Haven panoramas)"
HELD_OUT = ("bridge", "lobby", "studio", "sunset", "workshop")
DAMAGED = ("park", "sunrise")
"""Dusk scenes whose ground lost its blue channel in the package's compression: balanced, they light faces yellow and pink."""

YAWS, TILTS, HELD_OUT_YAWS = 36, (-15.0, 0.0, 15.0), 24
SUN_SPHERE, SUN_SHARE = 0.001, 1.0 / 3.0
SHRINKAGE_CANDIDATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LUMA = np.array([0.2126, 0.7152, 0.0722])


def sh_basis(directions: Array, bands: int = BANDS) -> Array:
    """Real orthonormal SH without the Condon-Shortley phase, index l² + l + m. `[N, 3] unit -> [N, bands²]`."""
    polar = np.arccos(np.clip(directions[:, 2], -1.0, 1.0))
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for degree in range(bands):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), polar, azimuth)
            if order == 0:
                columns.append(value.real)
            else:
                part = value.real if order > 0 else value.imag
                columns.append(np.sqrt(2.0) * (-1.0) ** order * part)
    return np.stack(columns, 1)


def quadrature(degree: int) -> tuple[Array, Array]:
    """Directions [N, 3] and weights [N] that integrate polynomials up to `degree` over the sphere exactly."""
    cosine, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    azimuth = (np.arange(degree + 1) + 0.5) * 2.0 * np.pi / (degree + 1)
    sine = np.sqrt(1.0 - cosine**2)
    directions = np.stack(
        [
            np.outer(sine, np.cos(azimuth)),
            np.outer(sine, np.sin(azimuth)),
            np.outer(cosine, np.ones_like(azimuth)),
        ],
        -1,
    ).reshape(-1, 3)
    return directions, np.repeat(weight * 2.0 * np.pi / (degree + 1), degree + 1)


@cache
def sh_rotation(yaw: float, tilt: float) -> Array:
    """The matrix that turns a light's coefficients by `yaw` about the vertical, then tilts it; degrees. `[L, L]`"""
    matrix = Rotation.from_euler("yx", [yaw, tilt], degrees=True).as_matrix()
    directions, weights = quadrature(2 * (BANDS - 1))
    return (sh_basis(directions) * weights[:, None]).T @ sh_basis(directions @ matrix)


def read_environments(archive: Path) -> dict[str, Array]:
    """The package's panoramas by name, linear Rec.709 `[256, 512, 3]`, row 0 at the zenith."""
    environments = {}
    with tarfile.open(archive) as package, tempfile.TemporaryDirectory() as folder:
        for member in sorted(package.getnames()):
            if not member.endswith(".exr.js"):
                continue
            name = Path(member).name.removesuffix(".exr.js")
            if name in DAMAGED:
                continue
            source = package.extractfile(member)
            assert source is not None
            encoded = source.read().decode().split("base64,")[1].rstrip().rstrip(";").strip("'\"")
            path = Path(folder) / f"{name}.exr"
            path.write_bytes(base64.b64decode(encoded))
            with OpenEXR.File(str(path)) as file:
                environments[name] = np.maximum(file.channels()["RGB"].pixels.astype(np.float64), 0.0)
    return environments


def limit_sun(radiance: Array, solid_angle: Array) -> Array:
    """Cap the luminance of the brightest 0.1% of the sphere so that it brings at most a third of all light.

    A bare sun brings 5/6 of a clear day's light; portraits are seldom taken in it, and nine bands cannot draw it.
    """
    luminance = radiance @ LUMA
    order = np.argsort(luminance, axis=None)[::-1]
    area = np.cumsum(solid_angle.flat[order])
    bright = order[: max(1, int(np.searchsorted(area, SUN_SPHERE * 4.0 * np.pi)))]
    power = luminance.flat[bright] * solid_angle.flat[bright]
    rest = (luminance * solid_angle).sum() - power.sum()
    low, high = 0.0, float(luminance.max())
    allowed = SUN_SHARE / (1.0 - SUN_SHARE) * rest
    if power.sum() <= allowed:
        return radiance
    for _ in range(60):
        cap = 0.5 * (low + high)
        capped = np.minimum(luminance.flat[bright], cap) * solid_angle.flat[bright]
        low, high = (cap, high) if capped.sum() < allowed else (low, cap)
    return radiance * np.minimum(1.0, high / np.maximum(luminance, 1e-9))[..., None]


def project(radiance: Array) -> Array:
    """Panorama to SH in the view frame (x right, y up, z to the viewer); the zenith is +y. `[H, W, 3] -> [L, 3]`."""
    height, width, _ = radiance.shape
    polar = (np.arange(height) + 0.5) * np.pi / height
    azimuth = (np.arange(width) + 0.5) * 2.0 * np.pi / width
    directions = np.stack(
        [
            np.outer(np.sin(polar), np.sin(azimuth)),
            np.outer(np.cos(polar), np.ones(width)),
            -np.outer(np.sin(polar), np.cos(azimuth)),
        ],
        -1,
    )
    solid_angle = np.outer(np.sin(polar), np.ones(width))
    solid_angle *= 4.0 * np.pi / solid_angle.sum()
    limited = limit_sun(radiance, solid_angle) * solid_angle[..., None]
    return sh_basis(directions.reshape(-1, 3)).T @ limited.reshape(-1, 3)


def front_measure() -> Array:
    """Row m with m·c = mean of E/π over the normals that face the viewer, weighted by n_z. `[L]`.

    E is the irradiance by the bands 0 to 2, which carry 99% of it (Ramamoorthi and Hanrahan 2001), so that the
    measure of a light of three or more bands does not depend on their number.
    """
    directions, weights = quadrature(200)
    lobe = np.zeros(BANDS**2)
    for degree, factor in enumerate((np.pi, 2.0 * np.pi / 3.0, np.pi / 4.0)):
        lobe[degree**2 : (degree + 1) ** 2] = factor
    facing = weights * np.maximum(directions[:, 2], 0.0)
    return (facing @ sh_basis(directions)) * lobe / np.pi / facing.sum()


def augmented(light: Array, measure: Array) -> tuple[Array, Array]:
    """Turned, mirrored and tilted copies of one light, each with its weight.

    Every copy is scaled per channel to front measure 1: exposure and white balance are carried apart. The weight is
    the squared share of the front in front + back light, because people are seldom photographed against the light.

    light: [L, 3] -> copies [N, L, 3], weights [N]
    """
    flip, back_measure = axis_sign(0), measure * axis_sign(2)
    copies, weights = [], []
    for tilt in TILTS:
        for yaw in np.arange(YAWS) * 360.0 / YAWS:
            turned = sh_rotation(yaw, tilt) @ light
            for copy in (turned, turned * flip[:, None]):
                front = measure @ copy
                back = back_measure @ copy
                if front.min() <= 0.02 * (front + back).max():
                    continue
                copies.append(copy / front)
                weights.append(float((front @ LUMA / ((front + back) @ LUMA)) ** 2))
    return np.stack(copies), np.array(weights)


def axis_sign(axis: int) -> Array:
    """Sign of each basis function when that axis is mirrored. `[L]`"""
    probe = np.array([[0.36, 0.48, 0.8]])
    mirror = np.ones(3)
    mirror[axis] = -1.0
    return np.sign(sh_basis(probe) * sh_basis(probe * mirror))[0]


def gaussian(samples: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean [L·3] and covariance [L·3, L·3] of samples [N, L, 3]."""
    flat = samples.reshape(len(samples), -1)
    weights = weights / weights.sum()
    mean = weights @ flat
    centred = (flat - mean) * np.sqrt(weights)[:, None]
    return mean, centred.T @ centred


def isotropic(covariance: Array) -> Array:
    """The covariance with every direction of the sphere treated alike: one 3 x 3 colour matrix per band."""
    tensor = covariance.reshape(BANDS**2, 3, BANDS**2, 3)
    result = np.zeros_like(tensor)
    for degree in range(BANDS):
        index = np.arange(degree**2, (degree + 1) ** 2)
        result[index, :, index, :] = tensor[index, :, index, :].mean(0)
    return result.reshape(covariance.shape)


def gauge_projector(measure: Array) -> Array:
    """Projects changes of a light onto those that leave the front measure of every channel alone. `[L·3, L·3]`"""
    direction = measure / np.linalg.norm(measure)
    return np.kron(np.eye(len(measure)) - np.outer(direction, direction), np.eye(3))


def shrunk(covariance: Array, amount: float, projector: Array) -> Array:
    return projector @ ((1.0 - amount) * covariance + amount * isotropic(covariance)) @ projector


def factor_of(covariance: Array) -> tuple[Array, Array]:
    """Principal axes scaled by their standard deviation, strongest first [K, L·3], and the variances [K]."""
    variance, axes = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1]
    order = order[variance[order] > 1e-9 * variance.max()]
    return (axes[:, order] * np.sqrt(variance[order])).T, variance[order]


def negative_log_likelihood(samples: Array, weights: Array, mean: Array, covariance: Array) -> float:
    """Weighted mean over samples, per coefficient, within the covariance's range."""
    factor, variance = factor_of(covariance)
    whitened = (samples.reshape(len(samples), -1) - mean) @ (factor / variance[:, None]).T
    distance = (whitened**2).sum(1)
    return float(0.5 * (weights @ distance / weights.sum() + np.log(variance).sum()) / len(variance))


def choose_shrinkage(groups: list[tuple[Array, Array]], projector: Array) -> float:
    """The amount that gives each environment the best likelihood under the Gaussian of all others."""
    scores = []
    for amount in SHRINKAGE_CANDIDATES:
        total = 0.0
        for left_out, (samples, weights) in enumerate(groups):
            rest = [group for number, group in enumerate(groups) if number != left_out]
            mean, covariance = gaussian(np.concatenate([g[0] for g in rest]), pooled_weights(rest))
            total += negative_log_likelihood(samples, weights, mean, shrunk(covariance, amount, projector))
        scores.append(total / len(groups))
        print(f"shrinkage {amount:4.2f}: leave-one-out negative log likelihood {scores[-1]:.3f} per coefficient")
    return SHRINKAGE_CANDIDATES[int(np.argmin(scores))]


def pooled_weights(groups: list[tuple[Array, Array]]) -> Array:
    """Every environment counts alike, whatever the number of its copies."""
    return np.concatenate([weights / weights.sum() for _, weights in groups])


def report(groups: list[tuple[Array, Array]], mean: Array, factor: Array, variance: Array) -> None:
    """How much of the lights' variance about the mean the leading components carry, per band and in all."""
    samples = np.concatenate([g[0] for g in groups]).reshape(-1, len(mean)) - mean
    weights = pooled_weights(groups)
    total = weights @ (samples**2)
    axes = factor / np.sqrt(variance)[:, None]
    for count in (20, 40, 60, 80, 120, len(axes)):
        kept = samples @ axes[:count].T @ axes[:count]
        left = (weights @ ((samples - kept) ** 2)).reshape(-1, 3).sum(1)
        whole = total.reshape(-1, 3).sum(1)
        bands = [1 - left[d * d : (d + 1) ** 2].sum() / whole[d * d : (d + 1) ** 2].sum() for d in range(BANDS)]
        shares = " ".join(f"{band:5.2f}" for band in bands)
        print(f"  {count:4d} components: {1 - left.sum() / whole.sum():.3f} of the variance; by band {shares}")
    whitened = samples @ (factor / variance[:, None]).T
    print(
        f"  mean squared whitened coefficient {weights @ (whitened**2).mean(1) / weights.sum():.2f} (1 = as the prior expects)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="pmndrs-assets-1.7.0.tgz")
    parser.add_argument("--prior", type=Path, default=Path("nextface/fitting/light_prior.npz"))
    parser.add_argument("--held-out", type=Path, default=Path("benchmarks/data/heldout_lights.npz"))
    arguments = parser.parse_args()

    measure = front_measure()
    lights = {name: project(radiance) for name, radiance in read_environments(arguments.archive).items()}
    groups = {name: augmented(light, measure) for name, light in lights.items()}
    known = [group for name, group in groups.items() if name not in HELD_OUT]
    unseen = [group for name, group in groups.items() if name in HELD_OUT]
    print(f"{len(known)} environments for the prior, {len(unseen)} held out")

    projector = gauge_projector(measure)
    amount = choose_shrinkage(known, projector)
    mean, covariance = gaussian(np.concatenate([g[0] for g in known]), pooled_weights(known))
    factor, variance = factor_of(shrunk(covariance, amount, projector))
    print(f"shrinkage {amount}; {len(factor)} components; front measure of the mean {measure @ mean.reshape(-1, 3)}")
    for title, chosen in (("lights of the prior", known), ("held-out lights", unseen)):
        print(title)
        report(chosen, mean, factor, variance)

    arguments.prior.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        arguments.prior,
        mean=mean.reshape(-1, 3).astype(np.float32),
        factor=factor.reshape(len(factor), -1, 3).astype(np.float32),
        front_measure=measure.astype(np.float32),
        source=np.array(SOURCE),
        licence=np.array("CC0-1.0"),
        environments=np.array([name for name in lights if name not in HELD_OUT]),
    )
    turned = []
    for name in HELD_OUT:
        yaws = np.arange(HELD_OUT_YAWS) * 360.0 / HELD_OUT_YAWS
        copies = [sh_rotation(yaw, 0.0) @ lights[name] for yaw in yaws]
        turned.append([copy / (measure @ copy) for copy in copies])
    arguments.held_out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        arguments.held_out,
        light=np.array(turned, dtype=np.float32),
        name=np.array(HELD_OUT),
        source=np.array(SOURCE),
        licence=np.array("CC0-1.0"),
    )


if __name__ == "__main__":
    main()
