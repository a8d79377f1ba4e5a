"""Where the prior should look at maps: three crops before cameras, one view of the head unrolled, or the unwrap itself.

Usage: python -m benchmarks.prior_spaces [--folder output/prior_spaces] [--steps 900] [--people 16] [--threads 0]
       python -m benchmarks.prior_spaces --layouts FILE

The same network is trained once for each, alike: as many images of the same people under the same light, one codebook, then the
encoder on spoilt images for a third as many steps. Measured is what the maps stage gets, errors in the unwrap over the texels of
skin that a photo shows, at the finest level that the prior pulls. People are those of `benchmarks.unseen` (generator B) that
choices are made on; what a fit leaves in their maps is put into the unwrap, the same for every arm. 900 steps take some 40 minutes
on two cores. A run that was stopped goes on. The folder gets results.json and maps.png. --layouts draws training faces instead.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.crop_metrics import Interval, bootstrap, gain, scaled, squares
from benchmarks.prior_crops import B_VALIDATION
from benchmarks.prior_data import joined, save, shown
from benchmarks.unseen.faces import unseen_photo
from benchmarks.unseen.traces import Lit, left_by_a_fit
from nextface.color import linear_to_srgb
from nextface.fitting.surface import Surface
from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.answers import SKIN, Answers
from nextface.prior.crops import LAYOUTS
from nextface.prior.data.heads import BANDS
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.projection import Answer, Projection
from nextface.prior.regulariser import Regulariser
from nextface.prior.settings import SMALL_AUTOENCODER
from nextface.prior.train.loop import OpenSource, train
from nextface.prior.train.sizes import Sizes
from nextface.prior.train.sources import faces_of
from nextface.prior.train.stages import Start
from nextface.prior.views import CropViews, map_resolution
from nextface.rendering.bake import bake, uv_fragments
from nextface.rendering.fragments import Fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import to_view
from nextface.rendering.tangents import pixel_frames
from nextface.rendering.transport import Transport
from nextface.scene import Scene
from nextface.textures import MAP_CHANNELS, LaplacianTexture, channels, resized
from nextface.train_config import TrainSettings

ARMS = {"tight": "3 crops", "cylinder": "cylinder", "unwrap": "unwrap"}
SIZE = SMALL_AUTOENCODER.image_size
HEADS = 32
RATES = {"stage1": (6e-4, 6e-5), "denoise": (3e-4, 1e-5)}
NEAR = 0.2
"""Decibels below the best within which the fastest arm is the one to take."""
PULLED = 2
"""Texels along each side of what the prior's finest level has for one."""
_TRACES_SEED = 47
_SHOWN, _STEEPEST = 0.5, 0.1
_REFRESHES = 3


@dataclass(frozen=True)
class Person:
    """One unseen person's maps, stacked as in `MAP_CHANNELS`. truth, spoilt: [R, R, 7]; seen: how far a photo shows the texels,
    [R, R, 1]; skin: those that count, [1, 1, R, R]"""

    scene: Scene
    truth: Tensor
    spoilt: Tensor
    seen: Tensor
    skin: Tensor


@dataclass(frozen=True)
class Row:
    """One domain of one arm. floor: rms error of the projected truth; before, after: of spoilt maps and of what the prior wants
    instead; gain: decibels between them"""

    arm: str
    domain: str
    floor: float
    before: float
    after: float
    gain: Interval


@dataclass(frozen=True)
class Cost:
    """Seconds of one refresh with all domains, and of building the views; pictures: that a refresh asks about, by domain"""

    refresh: float
    views: float
    pictures: int


def trained(arm: str, steps: int, folder: Path, model: MorphableModel) -> Path:
    """The weights of an arm's network after both stages."""
    bank: list[GeneratedFaces] = []

    def source(stage: str, settings: TrainSettings, sizes: Sizes, device: torch.device) -> GeneratedFaces:
        own = replace(faces_of(stage, settings, settings.batch), identities=HEADS)
        if not bank:
            encoding = Encoding(crop=arm, image_size=SIZE, norm_groups=sizes.autoencoder.norm_groups)
            bank.append(GeneratedFaces(model, own, encoding))
        return bank[0].anew(own)

    first = _stage("stage1", arm, steps, folder, source)
    return _stage("denoise", arm, max(1, steps // 3), folder, source, Start((first,)))


def _stage(stage: str, arm: str, steps: int, folder: Path, source: OpenSource, start: Start | None = None) -> Path:
    rate, final_rate = RATES[stage]
    settings = replace(
        TrainSettings.of(stage, "small"),
        crop=arm,
        iterations=steps,
        learning_rate=rate,
        final_rate=final_rate,
        device="cpu",
        precision="bfloat16",
        sample_every=0,
        save_every=200,
    )
    return train(stage, settings, folder / arm / stage, start, source, quiet=False)


def unseen_person(model: MorphableModel, number: int) -> Person:
    """Person `number` of generator B as photo `number` shows it."""
    scene = unseen_photo(model, number, texture=512).scene
    assert scene.maps is not None
    size = map_resolution(SIZE)
    truth = resized(torch.cat([texture.full() for texture in scene.maps.textures().values()], -1), size)[0]
    surface = Surface.of(scene, model, size, self_shadowing=True)
    seen = surface.shown(torch.ones(len(surface.seen)))[0]
    regions = torch.stack([model.regions[name] for name in SKIN], 1).sum(1) * (1.0 - model.regions["eyes"])
    face = bake(regions[None, :, None], model, size)[0]
    skin = ((face > 0.5) & (seen > _SHOWN)).float().movedim(-1, 0)[None]
    spoilt = _spoilt(_laid_on_the_unwrap(surface, scene, model, size), truth, skin, number)
    return Person(replace(scene, maps=None), truth, spoilt, seen, skin)


def _laid_on_the_unwrap(surface: Surface, scene: Scene, model: MorphableModel, size: int) -> Surface:
    """The same head and light at the texels' centres."""
    texels = uv_fragments(model, size)
    seen = Fragments(texels.pixels, model.triangles[texels.pixels.triangle], texels.barycentric)
    vertices = scene.vertices_camera(model)
    view, turn = to_view(vertices), scene.head_rotation()
    shadow = Transport.of_head(scene, model).cast(seen, vertices, turn, scene.radiance(), model.roughness_mean[None])
    return replace(
        surface,
        seen=seen,
        frames=pixel_frames(seen, view, vertex_normals(view, model.triangles), model),
        to_viewer=torch.nn.functional.normalize(-seen.interpolate(view), dim=-1),
        shadow=shadow,
    )


def _spoilt(surface: Surface, truth: Tensor, skin: Tensor, number: int) -> Tensor:
    """The maps as a fit would leave them. [R, R, 7]"""
    pixels, where = surface.seen.pixels, channels()

    def picture(values: Tensor) -> Tensor:
        return pixels.unpack(values).movedim(-1, 1)

    values = pixels.pack(truth[None])
    arriving, unshadowed = surface.incoming() / torch.pi, replace(surface, shadow=None).incoming() / torch.pi
    gloss = (surface.shade(values) - values[:, where["diffuse"]] * arriving).clamp_min(0.0)
    lit = Lit(picture(arriving), picture(unshadowed), picture(gloss), skin)
    clean = {name: picture(values[:, own]) for name, own in where.items()}
    clean["normal"] = _tangent_normals(clean["normal"])  # blur is the relief's, not the mesh's
    covered = picture(torch.ones_like(values[:, :1]))
    found = left_by_a_fit(clean, covered, lit, np.random.default_rng([_TRACES_SEED, number]))
    found["normal"] = found["normal"][:, :2] / found["normal"][:, 2:].clamp_min(_STEEPEST)
    spoilt = torch.cat([found[name] for name in where], 1)
    return torch.lerp(truth, spoilt[0].movedim(0, -1), covered[0].movedim(0, -1))


def _tangent_normals(slopes: Tensor) -> Tensor:
    """Unit normals in tangent space. [1, 2, R, R] -> [1, 3, R, R]"""
    return torch.nn.functional.normalize(torch.cat([slopes, torch.ones_like(slopes[:, :1])], 1), dim=1)


class Held(Projection):
    """What codes hold of crops: the plain projection, without a denoiser."""

    def answer(self, crops: Tensor) -> Answer:
        return Answer(self(crops), self(crops))


def wished(answers: Answers, maps: Tensor, in_tone: bool) -> Tensor:
    """The maps as the prior wants them, all at once. in_tone: with the albedo's tone left to the maps, as in a fit. [R, R, 7]"""
    crops = answers.views.crops(maps)
    changes = torch.zeros_like(crops)
    generator = torch.Generator().manual_seed(0)
    for domain, where in channels().items():
        crop = answers.encoded(domain, crops)
        answer = answers.ask(domain, crop, generator).cleaned
        answer = answers.in_tone(domain, crop, answer) if in_tone and domain == "diffuse" else answer
        wish = answers.wish(domain, crop, answer)
        changes[:, where] = answers.decoded(domain, crop + wish) - answers.decoded(domain, crop)
    return maps + answers.views.maps(changes, answers.weight)[0]


def measured(
    arm: str, weights: Path, people: list[Person], model: MorphableModel
) -> tuple[list[Row], Cost, list[Tensor]]:
    """An arm's rows, its cost, and what it wants of each person's spoilt maps, [R, R, 7]."""
    projection = Projection.read(weights, torch.device("cpu"))
    held = Held(projection.net, replace(projection.encoding, noise_floor=(0.0,) * len(DOMAINS)))
    errors: dict[str, list[Tensor]] = {}
    wishes, costs = [], []
    for person in people:
        began = time.perf_counter()
        views = CropViews.of(person.scene, model, arm, SIZE)
        built = time.perf_counter() - began
        answers = Answers.of(projection, views, model, person.seen, ())
        wishes.append(wished(answers, person.spoilt, in_tone=True))
        whole = wished(replace(answers, projection=held), person.truth, in_tone=False)
        for name in MAP_CHANNELS:
            parts = [_error(name, each, person) for each in (whole, person.spoilt, wishes[-1])]
            errors.setdefault(name, []).append(torch.stack(parts))
        if len(costs) < _REFRESHES:
            costs.append(Cost(_refresh(answers, person), built, len(answers.asked)))
    rows = [_row(arm, name, torch.stack(each)) for name, each in errors.items()]
    middle = sorted(costs, key=lambda cost: cost.refresh)[len(costs) // 2]
    return rows, middle, wishes


def _error(domain: str, maps: Tensor, person: Person) -> Tensor:
    """Mean square over the skin: of the albedo after the one scale that brings it nearest to the truth, of unit normals. []"""
    made, truth = (each[..., channels()[domain]].movedim(-1, 0)[None] for each in (maps, person.truth))
    if domain == "diffuse":
        made = scaled(made, truth, person.skin)
    if domain == "normal":
        made, truth = _tangent_normals(made), _tangent_normals(truth)
    return (squares(made, truth, person.skin, PULLED) / person.skin.sum())[0]


def _row(arm: str, domain: str, errors: Tensor) -> Row:
    """errors: of the projected truth, the spoilt maps and the wishes. [people, 3]"""
    floor, before, after = errors.mean(0).sqrt().tolist()
    return Row(arm, domain, floor, before, after, bootstrap(gain, errors[:, 1:2], errors[:, 2:]))


def _refresh(answers: Answers, person: Person) -> float:
    """Seconds."""
    levels = [level[0] for level in LaplacianTexture.from_image(person.spoilt[None]).levels]
    pull = Regulariser(answers, "uv", dict.fromkeys(MAP_CHANNELS, 1.0), 0)
    pull.begin(levels, levels)
    began = time.perf_counter()
    pull.refresh(levels)
    return time.perf_counter() - began


def table(rows: list[Row], costs: dict[str, Cost]) -> str:
    lines = ["| | domain | floor, rms | spoilt, rms | wished, rms | gain dB, 95% |", "|---" * 6 + "|"]
    for row in rows:
        told = f"{row.floor:.4f} | {row.before:.4f} | {row.after:.4f} | {row.gain.text()}"
        lines.append(f"| {ARMS[row.arm]} | {row.domain} | {told} |")
    lines += ["", "| | gain dB, mean of domains | pictures | s a refresh | s for the views |", "|---" * 5 + "|"]
    for arm, cost in costs.items():
        lines.append(
            f"| {ARMS[arm]} | {overall(rows, arm):.2f} | {cost.pictures} | {cost.refresh:.3f} | {cost.views:.3f} |"
        )
    return "\n".join(lines)


def overall(rows: list[Row], arm: str) -> float:
    """Gain averaged over the domains, dB; 0 for those that do not gain, which a prior leaves out."""
    gains = [max(0.0, row.gain.value) for row in rows if row.arm == arm]
    return sum(gains) / len(gains)


def chosen(rows: list[Row], costs: dict[str, Cost]) -> str:
    """The fastest arm within `NEAR` of the best."""
    best = max(overall(rows, arm) for arm in costs)
    return min((arm for arm in costs if overall(rows, arm) >= best - NEAR), key=lambda arm: costs[arm].refresh)


def maps_sheet(people: list[Person], wishes: dict[str, list[Tensor]]) -> Tensor:
    """Albedo of some people in the unwrap: the truth, spoilt, and as each arm wants it. [3, H, W]"""
    cells = []
    for number, person in enumerate(people[:6]):
        for maps in (person.truth, person.spoilt, *(each[number] for each in wishes.values())):
            albedo = linear_to_srgb(maps[..., channels()["diffuse"]].clamp(0.0, 1.0)).movedim(-1, 0)
            cells.append(torch.lerp(torch.full_like(albedo, 0.5), albedo, person.skin[0]))
    return joined(cells, 2 + len(wishes))


def layouts_sheet(model: MorphableModel, count: int = 3) -> Tensor:
    """People in each layout, light to dark: photo, albedo, specular weight, normals, roughness. [3, H, W]"""
    cells = []
    for layout in LAYOUTS:
        own = FacesSettings(people=60, identities=count, expressions=1, seed=4)
        source = GeneratedFaces(model, own, Encoding(crop=layout, image_size=SIZE))
        tones = source.people.melanin.argsort()
        people = source.people.rows(tones[torch.linspace(3, len(tones) - 4, count).long()])
        lights = draw_lights(count, BANDS, torch.Generator().manual_seed(3))
        rows = 3 * torch.arange(count) + torch.arange(count) % 3
        faces = source.drawer.draw(rows, people, lights, torch.zeros(count), torch.zeros(count, 2))
        cells += [shown(faces, number) for number in range(count)]
    return joined([cells[column * count + row] for row in range(count) for column in range(len(LAYOUTS))], len(LAYOUTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("output/prior_spaces"))
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0, help="0 = all cores")
    parser.add_argument(
        "--layouts", type=Path, help="picture of training faces in the layouts; nothing is trained then"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = read_open_head(default_model_folder() / "open_head.h5")
    if options.layouts:
        save(layouts_sheet(model), options.layouts)
        return
    weights = {arm: trained(arm, options.steps, options.folder, model) for arm in ARMS}
    people = [unseen_person(model, number) for number in B_VALIDATION[: options.people]]
    rows: list[Row] = []
    costs, wishes = {}, {}
    for arm, path in weights.items():
        own, costs[arm], wishes[arm] = measured(arm, path, people, model)
        rows += own
    print(table(rows, costs))
    print(f"\nthe fastest within {NEAR} dB of the best: {ARMS[chosen(rows, costs)]}")
    notes = {"steps": options.steps, "people": len(people), "rows": [asdict(row) for row in rows]}
    notes |= {"costs": {arm: asdict(cost) for arm, cost in costs.items()}, "chosen": chosen(rows, costs)}
    (options.folder / "results.json").write_text(json.dumps(notes, indent=1), encoding="utf-8")
    save(maps_sheet(people, wishes), options.folder / "maps.png")


if __name__ == "__main__":
    main()
