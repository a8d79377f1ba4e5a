"""`nextface prior reconstruct` and `nextface prior swap`: pictures in, what the prior makes of them out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nextface.config import OptimConfig, fallback_device
from nextface.errors import InputError, NoFaceError
from nextface.export.files import write_bytes
from nextface.export.images import as_rgb, encode_linear, encode_normal, encode_srgb, map_pictures, png
from nextface.fitting.pull import installed_prior
from nextface.landmarks.detect import detect
from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.photo import load_image
from nextface.prior.bundle import Bundle
from nextface.prior.crops import five_points
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.pictures import cut_crop, read_crop
from nextface.prior.projection import Projection
from nextface.prior.swapping import SwappedViews, Swapping
from nextface.prior.views import CropViews
from nextface.textures import MAP_CHANNELS, LaplacianTexture, SkinMaps, channels


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: its files, or why there are none."""

    picture: Path
    seconds: float
    written: tuple[Path, ...] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class Pictures:
    """files; aligned: they are crops already, else the largest face of each is cut out; domain: of `fusion.DOMAINS`"""

    files: Sequence[Path]
    aligned: bool
    domain: str = DOMAINS[0]

    def crop(self, file: Path, encoding: Encoding, config: OptimConfig) -> Tensor:
        """As the networks see it. [1, 3, S, S]. Raises InputError."""
        if self.aligned:
            return read_crop(file, self.domain, encoding)
        photo = load_image(file)
        try:
            face = detect(photo, config.landmarks_detector_type, model=config.landmarks_model)[0]
        except NoFaceError:
            raise NoFaceError(
                f"{file}: no face was found; give a picture with a visible face, or say with --aligned that it is a crop already"
            ) from None
        return cut_crop(photo, five_points(face.points[None], face.index, face.convention), self.domain, encoding)


def run(parsed: argparse.Namespace, files: Mapping[str, Sequence[Path]], config: OptimConfig) -> Iterator[Outcome]:
    """The command of `arguments.parse_prior`. files: of each of its `pictures`"""
    if parsed.command == "reconstruct":
        pictures = Pictures(files["INPUT"], parsed.aligned, parsed.domain)
        return reconstruct(pictures, parsed.output, config, parsed.checkpoint, parsed.suffix)
    templates = None
    if "TEMPLATES" in files:
        templates = Pictures(files["TEMPLATES"], parsed.aligned in ("templates", "both"), parsed.domain)
    references = Pictures(files["--references"], parsed.aligned in ("references", "both"))
    return swap(templates, references, parsed.output, config, parsed.checkpoint, parsed.identity, parsed.suffix)


def reconstruct(
    pictures: Pictures, output: Path, config: OptimConfig, checkpoint: Path | None, suffix: str = ""
) -> Iterator[Outcome]:
    """Write what the prior makes of each crop: `<output>/<name>[_<suffix>].png`, one outcome for each picture.

    checkpoint: any of `projection.NETWORKS`; the one of the settings if left out. Raises InputError where it cannot be used.
    """
    device = torch.device(fallback_device(config))
    projection = Projection.read(_file(checkpoint, config), device)
    encoding, names = projection.encoding, _Names(output, suffix)

    def one(file: Path) -> list[Path]:
        target = names.of(file.stem, file)
        answer = projection(pictures.crop(file, encoding, config).to(device))
        return [write_bytes(target, png(picture_of(pictures.domain, answer, encoding)))]

    yield from _each(pictures.files, one)


def swap(
    templates: Pictures | None,
    references: Pictures,
    output: Path,
    config: OptimConfig,
    checkpoint: Path | None,
    identity: Path | None = None,
    suffix: str = "",
) -> Iterator[Outcome]:
    """Put the identity of each reference into crops, or into the maps of the template whose face is nearest to it.

    templates: each is written for each reference, `<output>/<reference>_<template>[_<suffix>].png`; None makes complete maps in
    `<output>/<reference>[_<suffix>]/`, named and encoded as those of a fit, and `crops.png`, the template's crops above the
    swapped ones. One outcome for each reference and each template. identity: of another encoder than the prior's own.
    Raises InputError where the checkpoint cannot swap.
    """
    file, device = _file(checkpoint, config), torch.device(fallback_device(config))
    encoder = identity or (Path(config.identity_checkpoint).expanduser() if config.identity_checkpoint else None)
    swapping = Swapping(Bundle.read(file, device, encoder), file)
    names = _Names(output, suffix)

    def known(reference: Path) -> Tensor:
        return swapping.identity(references.crop(reference, swapping.bundle.faces, config).to(device))

    if templates is None:
        model = read_open_head(default_model_folder() / "open_head.h5").to(device)
        yield from _each(references.files, _heads(swapping.for_model(model), model, known, names))
    else:
        yield from _crops(swapping, templates, references.files, known, names, config)


def _crops(
    swapping: Swapping,
    templates: Pictures,
    references: Sequence[Path],
    known: Callable[[Path], Tensor],
    names: _Names,
    config: OptimConfig,
) -> Iterator[Outcome]:
    """Every template with every identity. The identities are found first: they are small."""
    identities: dict[Path, Tensor] = {}

    def remember(reference: Path) -> list[Path]:
        identities[reference] = known(reference)
        return []

    def one(template: Path) -> list[Path]:
        targets = {each: names.of(f"{each.stem}_{template.stem}", each, template) for each in identities}
        encoding, written = swapping.bundle.projection.encoding, []
        crop = templates.crop(template, encoding, config)
        for reference, identity in identities.items():
            swapped = swapping.swap(crop.to(identity), identity)
            content = png(picture_of(templates.domain, swapped, encoding))
            written.append(write_bytes(targets[reference], content))
        return written

    yield from _each(references, remember)
    if identities:
        yield from _each(templates.files, one)


def _heads(
    swapping: Swapping, model: MorphableModel, known: Callable[[Path], Tensor], names: _Names
) -> Callable[[Path], list[Path]]:
    """Writes the maps of one reference."""
    encoding = swapping.bundle.projection.encoding

    def one(reference: Path) -> list[Path]:
        folder = names.of(reference.stem, reference, ending="")
        identity = known(reference)
        template = swapping.templates.closest(identity)
        views = CropViews.of(swapping.templates.scene(template, model), model, encoding.crop, encoding.image_size)
        swapped = swapping.swap_views(template, views, model, identity)
        pictures = _stored(swapping.maps(template, views, model, swapped).maps)
        written = [write_bytes(folder / f"{name}Map_0.png", png(each)) for name, each in pictures.items()]
        return [*written, write_bytes(folder / "crops.png", png(_beside(swapped, encoding)))]

    return one


def _each(files: Sequence[Path], work: Callable[[Path], list[Path]]) -> Iterator[Outcome]:
    """One file after the other; one that fails, in whatever way, fails alone."""
    for file in files:
        began = time.perf_counter()
        written: tuple[Path, ...] = ()
        failure: Exception | None = None
        try:
            written = tuple(work(file))
        except Exception as error:
            failure = error
        yield Outcome(file, time.perf_counter() - began, written, failure)


@dataclass
class _Names:
    """Places of results, no two in the same and none in that of an input."""

    folder: Path
    suffix: str
    taken: dict[Path, tuple[Path, ...]] = field(default_factory=dict)

    def of(self, stem: str, *sources: Path, ending: str = ".png") -> Path:
        """Raises InputError."""
        place = self.folder / f"{stem}{'_' + self.suffix if self.suffix else ''}{ending}"
        if any(place.resolve() == source.resolve() for source in sources):
            raise InputError(f"{place}: the result would replace the input; choose another --output, or a --suffix")
        before = self.taken.setdefault(place, sources)
        if before != sources:
            names = " and ".join(each.name for each in before)
            raise InputError(f"{place}: is already the result of {names}; give the pictures names of their own")
        return place


def picture_of(domain: str, crop: Tensor, encoding: Encoding) -> np.ndarray:
    """An encoded crop as it is stored, so that it can be read again: colours sRGB, other values linear, normals 0.5 + 0.5·n.

    [1, 3, S, S] -> uint8 [S, S, 3|1]
    """
    if domain == "normal":
        return encode_normal(crop[0].movedim(0, -1))
    values = encoding.decode(domain, crop)[0].movedim(0, -1)
    return (encode_linear if values.shape[-1] == 1 else encode_srgb)(values)


def _stored(maps: Tensor) -> dict[str, np.ndarray]:
    """Maps as a fit's results store them. linear [R, R, 7] -> uint8 by name"""
    textures = {name: LaplacianTexture.from_image(maps[None, ..., where]) for name, where in channels().items()}
    pictures = map_pictures(SkinMaps(**textures, confidence=maps.new_zeros(1, *maps.shape[:2], 1)), 0)
    return {name: pictures[name] for name in MAP_CHANNELS}


def _beside(views: SwappedViews, encoding: Encoding) -> np.ndarray:
    """All crops of a template above the swapped ones, domain by domain. uint8 [2·S, 4·N·S, 3]"""
    rows = []
    for crops in (views.given, views.swapped):
        pictures = [picture_of(name, crop[None], encoding) for name in MAP_CHANNELS for crop in crops[name]]
        rows.append(np.concatenate([as_rgb(picture) for picture in pictures], 1))
    return np.concatenate(rows)


def _file(checkpoint: Path | None, config: OptimConfig) -> Path:
    """The prior to use. Raises InputError."""
    found = checkpoint or installed_prior(config.prior_checkpoint)
    if found is None:
        raise InputError(
            "no prior is installed; give the file of a trained one (docs/prior_training.md) with --checkpoint"
        )
    return found
