"""Whether swapped faces are who they should be, and how near swapped templates come to the true albedo.

All faces are of generator A's held-out people, each with a head and a skin of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.crop_metrics import Interval, bootstrap, reduction, scaled, squares
from benchmarks.prior_crops import HELD_OUT_SEED
from benchmarks.prior_data import save
from benchmarks.prior_measures import verdict
from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.answers import SKIN
from nextface.prior.bundle import Bundle
from nextface.prior.checkpoint import read_notes
from nextface.prior.data.heads import BANDS, draw_shape
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.source import FacesSettings, GeneratedFaces, draw_population
from nextface.prior.data.unwrapped import unwrapped
from nextface.prior.encoding import Encoding
from nextface.prior.identity import IdentityEncoder
from nextface.prior.settings import IdentitySettings
from nextface.prior.swapper import FusedSwapper
from nextface.prior.swapping import Swapping
from nextface.prior.templates import Templates
from nextface.prior.train.loop import WEIGHTS, train
from nextface.prior.train.sizes import PRESETS, SMALL, Checkpoint, Sizes
from nextface.prior.train.sources import faces_of
from nextface.prior.views import CropViews
from nextface.train_config import TrainSettings

GALLERY = 100
TEXELS = 256
SHIFT = 37
"""Whose photo a face is swapped into: the person so many places on."""
BOUNDS = {"retrieval": 0.8, "albedo": 0.1}
SECOND = IdentitySettings(widths=(24, 48, 96), blocks=(1, 1, 2), embedding_channels=96)
SECOND_SEED, SECOND_STEPS, SECOND_BATCH, SECOND_HEADS = 4243, 500, 24, 64
"""Of the encoder that judges: other sizes, other people and heads than the prior's own."""
HEADS = ("the identity's head", "the template's head")
"""On which the template's maps are drawn: as `nextface prior swap` does, and as published."""
SWAPPED = "swapped into another person's photo"
SHOWN = 6


@dataclass(frozen=True)
class Albedo:
    """rms: of the linear albedo after one scale per crop, averaged over people, of the closest template, of it through the codes
    alone, and swapped; fall: share by which swapping lowers it"""

    head: str
    template: float
    coded: float
    swapped: float
    fall: Interval


def identity_part(path: Path, model: MorphableModel, folder: Path) -> dict[str, Any]:
    """Measure a packed prior, print the figures. Raises InputError where the file holds no swapper, encoder or templates."""
    bundle = Bundle.read(path, torch.device("cpu"))
    if not isinstance(bundle.projection.net, FusedSwapper) or bundle.identity is None or bundle.templates is None:
        raise InputError(f"{path}: needs a swapper, an identity encoder and templates in one file; pack it first")
    people = held_out_people(model)
    generator = torch.Generator().manual_seed(HELD_OUT_SEED + 2)
    lights = draw_lights(2 * GALLERY, BANDS, generator).unflatten(0, (GALLERY, 2))
    pairs = torch.stack([people.photos(k, model, lights[k], bundle.faces) for k in range(people.count)])
    found = retrieval(bundle, second_encoder(folder / "second_encoder", model), pairs)
    print("\nRetrieval in a gallery of", GALLERY)
    for name, rate in found.items():
        print(f"  {name}: {rate.text()}")
    print(verdict("retrieval of swapped faces", found[SWAPPED].value, BOUNDS["retrieval"]))
    rows, picture = albedo_errors(bundle, people, pairs[:, 0], model)
    save(picture, folder / "swapped.png")
    print("\n| drawn on | closest template | through codes | swapped | lower by, 95% |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.head} | {row.template:.4f} | {row.coded:.4f} | {row.swapped:.4f} | {row.fall.text()} |")
    for row in rows:
        print(verdict(f"share by which the albedo's error is lower on {row.head}", row.fall.value, BOUNDS["albedo"]))
    return {
        "retrieval": {name: asdict(rate) for name, rate in found.items()},
        "albedo": [asdict(row) for row in rows],
    }


def held_out_people(model: MorphableModel) -> Templates:
    """Persons of generator A that no training saw, in the form of templates: shape and maps, no embeddings."""
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    settings = FacesSettings(people=GALLERY, identities=GALLERY, expressions=1, seed=HELD_OUT_SEED)
    zones, noise, people = draw_population(model, settings, generator)
    shape = torch.cat([draw_shape(model, generator) for _ in range(GALLERY)])
    maps = [unwrapped(people.rows(torch.tensor([k])), zones, noise, model, TEXELS) for k in range(GALLERY)]
    return Templates.of_maps(model, shape, torch.cat(maps))


def second_encoder(folder: Path, model: MorphableModel) -> IdentityEncoder:
    """Of identities, trained once for this benchmark on people whom neither the prior nor the gallery knows."""
    weights = folder / WEIGHTS
    if not weights.is_file() or read_notes(weights).get("step") != SECOND_STEPS:
        folder.mkdir(parents=True, exist_ok=True)
        sizes = folder / "sizes.json"
        sizes.write_text(json.dumps(replace(SMALL, identity=SECOND).notes()), encoding="utf-8")
        settings = replace(
            TrainSettings.of("identity", "small"),
            sizes=str(sizes),
            seed=SECOND_SEED,
            iterations=SECOND_STEPS,
            batch=SECOND_BATCH,
            device="cpu",
            precision="bfloat16",
        )

        def source(stage: str, settings: TrainSettings, sizes: Sizes, device: torch.device) -> GeneratedFaces:
            faces = replace(faces_of(stage, settings, settings.batch), identities=SECOND_HEADS)
            encoding = Encoding(image_size=sizes.autoencoder.image_size)
            return GeneratedFaces(model, faces, encoding, device)

        train("identity", settings, folder, source=source, quiet=False)
    encoder = cast(IdentityEncoder, Checkpoint.read(weights).build(("IdentityEncoder",), PRESETS["small"]))
    return encoder.eval().requires_grad_(False)


def retrieval(bundle: Bundle, judge: IdentityEncoder, pairs: Tensor) -> dict[str, Interval]:
    """How often a face finds the same person's photo under another light as the most similar of all.

    pairs: encoded photos of each person under two lights, [M, 2, 3, S, S]
    """
    assert bundle.identity is not None
    first, other = pairs[:, 0], pairs[:, 1]
    with torch.no_grad():
        gallery, own = judge.embed(other), bundle.identity.embed(first)
        swapping = Swapping(bundle, Path())
        swapped = torch.cat(
            [swapping.swap(*part) for part in zip(first.roll(SHIFT, 0).split(10), own.split(10), strict=True)]
        )
        return {
            SWAPPED: rate(judge.embed(swapped.clamp(-1.0, 1.0)), gallery),
            "the photo itself, at best": rate(judge.embed(first), gallery),
            "the photo itself by the prior's own encoder": rate(own, bundle.identity.embed(other)),
        }


def rate(probes: Tensor, gallery: Tensor) -> Interval:
    """Share of the rows that find their own number. [M, E] each"""
    right = (probes @ gallery.T).argmax(1) == torch.arange(len(probes))
    return bootstrap(lambda rows: rows.mean((-2, -1)), right[:, None])


def albedo_errors(
    bundle: Bundle, people: Templates, photos: Tensor, model: MorphableModel
) -> tuple[list[Albedo], Tensor]:
    """Errors of each person's three views, and a picture: photo, template, swapped and truth, light to dark.

    photos: encoded, of each person, [M, 3, S, S]
    """
    assert bundle.identity is not None and bundle.templates is not None
    swapping, encoding = Swapping(bundle, Path()), bundle.projection.encoding
    with torch.no_grad():
        own = bundle.identity.embed(photos)
    errors: dict[str, list[Tensor]] = {}
    columns: list[tuple[float, Tensor]] = []
    for person in range(people.count):
        template = bundle.templates.closest(own[person])
        views = _views(people, person, model, encoding)
        true_crop = people.crops(person, views, model, encoding)["diffuse"]
        truth, skin = encoding.decode("diffuse", true_crop), _skin(views, model)
        for head in HEADS:
            seen = views if head == HEADS[0] else _views(bundle.templates, template, model, encoding)
            given = bundle.templates.crops(template, seen, model, encoding)["diffuse"]
            both = skin * _skin(seen, model)
            swapped = swapping.swap(given, own[person])
            for name, crop in (("template", given), ("coded", bundle.projection(given)), ("swapped", swapped)):
                values = scaled(encoding.decode("diffuse", crop), truth, both)
                error = squares(values, truth, both) / both.sum((1, 2, 3)).clamp_min(1.0)
                errors.setdefault(f"{head} {name}", []).append(error)
            if head == HEADS[1]:
                column = torch.cat([photos[person], given[0], swapped[0], true_crop[0]], 1)
                columns.append((float(truth[0].mean()), pad(column, (1, 1))))
    table = {name: torch.stack(each) for name, each in errors.items()}
    rows = []
    for head in HEADS:
        parts = [table[f"{head} {name}"] for name in ("template", "coded", "swapped")]
        means = [float(part.mean(1).sqrt().mean()) for part in parts]
        rows.append(Albedo(head, *means, bootstrap(reduction, parts[0], parts[2])))
    return rows, _picture(columns)


def _views(people: Templates, index: int, model: MorphableModel, encoding: Encoding) -> CropViews:
    return CropViews.of(people.scene(index, model), model, encoding.crop, encoding.image_size)


def _skin(views: CropViews, model: MorphableModel) -> Tensor:
    """[N, 1, S, S], 0 or 1"""
    regions = torch.stack([model.regions[name] for name in SKIN], 1).sum(1, keepdim=True)
    return (views.draw(regions * (1.0 - model.regions["eyes"][:, None])) > 0.5).float()


def _picture(columns: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Some columns, light to dark. [3, H, W] in 0..1"""
    order = sorted(columns, key=lambda each: -each[0])
    chosen = [order[round(k * (len(order) - 1) / (SHOWN - 1))][1] for k in range(SHOWN)]
    return torch.cat(chosen, 2) * 0.5 + 0.5
