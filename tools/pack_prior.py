"""Pack a trained prior into the file that is shipped: python tools/pack_prior.py STAGES OUTPUT --weights diffuse=1 specular=1 …

STAGES is a folder as tools/train_default_prior.py leaves it, with the weights of each stage in a folder of its own; swapper,
denoise and identity are needed, the others are told of on the card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nextface.errors import NextfaceError
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.bundle import save_bundle
from nextface.prior.data.heads import draw_heads
from nextface.prior.data.people import People
from nextface.prior.data.source import FacesSettings, draw_population
from nextface.prior.data.unwrapped import unwrapped
from nextface.prior.encoding import Encoding
from nextface.prior.identity import IdentityEncoder
from nextface.prior.templates import Templates
from nextface.prior.train.loop import WEIGHTS
from nextface.prior.train.sizes import PRESETS, Checkpoint
from nextface.textures import MAP_CHANNELS
from nextface.train_config import STAGES

RESOLUTION = 256
_CANDIDATES = 40
"""Persons of about the same tone of whom one is chosen."""
_LOOKS = ("age", "beard", "brow_cover", "freckles", "lipstick_cover", "shadow_cover", "foundation", "rough")
_SHAPES = 6
"""Coefficients of the shape that count in the choice."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, metavar="STAGES")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--templates", type=int, default=24, help="how many heads to swap into, 24 if left out")
    parser.add_argument("--weights", nargs="*", default=[], metavar="DOMAIN=0…1", help="1 where left out")
    parser.add_argument("--results", type=Path, metavar="JSON", help="what the card says of hours and measurements")
    options = parser.parse_args()
    try:
        weights = _parsed_weights(options.weights)
        results = json.loads(options.results.read_text(encoding="utf-8")) if options.results else {}
        pack(options.stages, options.output, options.templates, weights, results)
    except (NextfaceError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")


def pack(stages: Path, output: Path, count: int, weights: dict[str, float], results: object) -> None:
    """Raises NextfaceError."""
    files = {stage: stages / stage / WEIGHTS for stage in STAGES}
    read = {stage: Checkpoint.read(path) for stage, path in files.items() if path.is_file()}
    missing = [str(files[stage]) for stage in ("denoise", "identity", "swapper") if stage not in read]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not there; train these stages first")
    encoding = Encoding.from_notes(read["denoise"].notes.get("encoding", {}))
    encoder = cast(IdentityEncoder, read["identity"].build(("IdentityEncoder",), PRESETS["small"])).eval()
    faces = FacesSettings(seed=int(read["swapper"].notes.get("settings", {}).get("seed", 0)))
    templates, persons = choose(count, faces, encoder, encoding)
    card = {
        "stages": {stage: {key: each.notes.get(key) for key in ("step", "settings")} for stage, each in read.items()},
        "data": {"seed": faces.seed, "people": faces.people, "identities": faces.identities},
        "templates": persons,
        "results": results,
    }
    save_bundle(output, read["swapper"], read["denoise"], read["identity"], templates, weights, card)


def choose(
    count: int, faces: FacesSettings, encoder: IdentityEncoder, encoding: Encoding
) -> tuple[Templates, list[int]]:
    """Templates of some training persons with the heads that they were trained with, and the persons' numbers."""
    model = read_open_head(default_model_folder() / "open_head.h5")
    generator = torch.Generator().manual_seed(faces.seed)
    zones, noise, people = draw_population(model, faces, generator)
    bank = draw_heads(model, faces.identities, faces.expressions, encoding.crop, encoding.image_size, generator)
    shapes = torch.cat([shape for shape, _ in bank])
    persons = spread(people, shapes, count)
    maps = torch.cat([unwrapped(people.rows(torch.tensor([k])), zones, noise, model, RESOLUTION) for k in persons])
    templates = Templates.of_maps(model, shapes[[k % len(shapes) for k in persons]], maps)
    return templates.with_encoder(encoder, encoding, model), persons


def spread(people: People, shapes: Tensor, count: int) -> list[int]:
    """Persons of evenly spread tones, from light to dark, each with a head of its own and as unlike those before as can be found.

    shapes: of the heads, person k has that of row k modulo their number. [heads, Ks]
    """
    looks = torch.stack([getattr(people, name) for name in _LOOKS], 1)
    looks = (looks - looks.mean(0)) / looks.std(0)
    head = torch.arange(len(people)) % len(shapes)
    features = torch.cat([looks, shapes[head, :_SHAPES]], 1)
    chosen: list[int] = []
    for bin_ in people.melanin.argsort().tensor_split(count):
        middle = (len(bin_) - _CANDIDATES) // 2
        candidates = bin_[max(0, middle) :][:_CANDIDATES]
        free = [int(k) for k in candidates if int(k) % len(shapes) not in {other % len(shapes) for other in chosen}]
        chosen.append(_farthest(features, free, chosen))
    return chosen


def _farthest(features: Tensor, candidates: Sequence[int], others: Sequence[int]) -> int:
    if not others:
        return candidates[0]
    nearest = torch.cdist(features[list(candidates)], features[list(others)]).amin(1)
    return candidates[int(nearest.argmax())]


def _parsed_weights(texts: Sequence[str]) -> dict[str, float]:
    weights: dict[str, Any] = dict.fromkeys(MAP_CHANNELS, 1.0)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in weights:
            raise SystemExit(f"--weights {text}: there is no domain {name!r}; it is one of {', '.join(weights)}")
        weights[name] = float(value)
    return weights


if __name__ == "__main__":
    main()
