"""The endless stream of generated faces that the default prior is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextface.errors import ConfigError
from nextface.morphable.model import MorphableModel
from nextface.prior.batch import Batch
from nextface.prior.crops import YAWS, masked
from nextface.prior.data.faces import FaceDrawer
from nextface.prior.data.heads import BANDS, Heads
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.mending import Chances, corrupted, photographed, random_masks
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import People, draw_people
from nextface.prior.data.zones import FaceZones
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS

_EXPOSURE_SPREAD, _BALANCE_SPREAD = 0.22, 0.05
_MASKED = 0.5
"""Share of the crops that get a random mask."""


@dataclass(frozen=True)
class FacesSettings:
    """What is drawn, and how much.

    batch:       crops of a batch, a multiple of `crops_per_face`
    crops_per_face: different domains that a drawn face is shown in; drawing takes longer than anything else
    weights:     chances of the domains, in the order of DOMAINS; photos and maps come about equally often
    people:      persons in all; person k has the head k modulo `identities`
    identities, expressions: of the bank of heads, which takes half a second and 3.6 MB (of 128 pixels) for each
    partners:    with another crop of the same person and domain
    strangers:   with a photo of another person, and the crops as they are with that person's skin
    corrupted:   with what a fit leaves in maps
    seed:        of everything
    """

    batch: int = 8
    crops_per_face: int = 2
    weights: tuple[float, ...] = (0.4, 0.15, 0.15, 0.15, 0.15)
    people: int = 20_000
    identities: int = 128
    expressions: int = 2
    partners: bool = False
    strangers: bool = False
    corrupted: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.batch, self.crops_per_face, self.people, self.identities, self.expressions)
        if min(counts) < 1:
            raise ConfigError(f"generated faces need counts of at least 1: {self}")
        if len(self.weights) != len(DOMAINS) or min(self.weights) < 0.0:
            raise ConfigError(f"weights needs a chance, 0 or more, for each of {', '.join(DOMAINS)}")
        if self.crops_per_face > sum(weight > 0.0 for weight in self.weights):
            raise ConfigError(f"a face can be shown in no more domains than have a chance, not {self.crops_per_face}")
        if self.batch % self.crops_per_face:
            raise ConfigError(f"a batch of {self.batch} does not consist of faces of {self.crops_per_face} crops each")


@dataclass(frozen=True)
class _Draw:
    """What the faces of a part of a batch are. person, row (of the bank's views): int64 [F]"""

    person: Tensor
    row: Tensor
    lights: Tensor
    exposure: Tensor
    balance: Tensor
    mirrored: Tensor
    masked: Tensor
    chances: Chances


class GeneratedFaces:
    """`BatchSource` of generated faces: batch n follows from the settings and n alone, whoever draws which part of it."""

    def __init__(
        self,
        model: MorphableModel,
        settings: FacesSettings,
        encoding: Encoding,
        device: torch.device | str = "cpu",
    ) -> None:
        """model: the open head, or another with its regions and "mediapipe" landmarks"""
        self._encoding, self.settings = encoding, settings
        generator = torch.Generator().manual_seed(settings.seed)
        zones, noise, self.people = draw_population(model, settings, generator, device)
        moved = model.to(device)
        heads = Heads.make(
            moved, settings.identities, settings.expressions, encoding.crop, encoding.image_size, generator
        )
        self.drawer = FaceDrawer.of(heads, zones, noise, moved)
        self.number = 0
        self._part = (0, 1)

    def anew(self, settings: FacesSettings) -> GeneratedFaces:
        """The same people drawn with other settings, from the first batch on; heads are not rasterised again.

        Raises ConfigError when the settings say other people.
        """
        for name in ("people", "identities", "expressions", "seed"):
            if getattr(settings, name) != getattr(self.settings, name):
                raise ConfigError(f"{name} = {getattr(settings, name)} needs other faces than those already made")
        other = object.__new__(GeneratedFaces)
        other.__dict__.update(self.__dict__, settings=settings, number=0)
        return other

    @property
    def encoding(self) -> Encoding:
        return self._encoding

    def state_dict(self) -> dict[str, Tensor]:
        return {"number": torch.tensor(self.number)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.number = int(state["number"])

    def shard(self, rank: int, world: int) -> GeneratedFaces:
        faces = self.settings.batch // self.settings.crops_per_face
        if faces % world:
            raise ConfigError(
                f"a batch of {faces} faces of {self.settings.crops_per_face} crops cannot be split evenly among {world} "
                "processes; change the batch size"
            )
        part = object.__new__(GeneratedFaces)
        part.__dict__.update(self.__dict__)
        part._part = (rank, world)
        return part

    def __iter__(self) -> GeneratedFaces:
        return self

    def __next__(self) -> Batch:
        settings = self.settings
        generator = torch.Generator().manual_seed((settings.seed + 1) * 1_000_003 + self.number)
        self.number += 1
        count = settings.batch // settings.crops_per_face
        chances = torch.tensor(settings.weights).expand(count, -1)
        domains = torch.multinomial(chances, settings.crops_per_face, generator=generator)
        person = torch.randint(settings.people, (count,), generator=generator)
        first = self._draw(person, generator)
        second = self._draw(person, generator) if settings.partners else None
        rank, world = self._part
        own = slice(rank * count // world, (rank + 1) * count // world)
        image, mask, worse = self._crops(first, domains, own)
        stranger = exchanged = None
        if settings.strangers:
            other = torch.randint(settings.people, (count,), generator=generator)
            photos = self._crops(self._draw(other, generator), torch.zeros_like(domains[:, :1]), own)[0]
            stranger = photos.repeat_interleave(settings.crops_per_face, 0)
            exchanged = self._crops(replace(first, person=other), domains, own)[0]
        return Batch(
            image=image,
            domain=domains[own].flatten().to(image.device),
            identity=person[own].repeat_interleave(settings.crops_per_face).to(image.device),
            mask=mask,
            corrupted=worse,
            partner=None if second is None else self._crops(second, domains, own)[0],
            stranger=stranger,
            exchanged=exchanged,
        )

    def _draw(self, person: Tensor, generator: torch.Generator) -> _Draw:
        count, settings = len(person), self.settings
        expression = torch.randint(settings.expressions, (count,), generator=generator)
        view = torch.randint(len(YAWS), (count,), generator=generator)
        return _Draw(
            person=person,
            row=self.drawer.heads.row(person % settings.identities, expression, view),
            lights=draw_lights(count, BANDS, generator),
            exposure=_EXPOSURE_SPREAD * torch.randn(count, generator=generator),
            balance=_BALANCE_SPREAD * torch.randn(count, 2, generator=generator),
            mirrored=torch.rand(count, generator=generator) < 0.5,
            masked=torch.rand(count, generator=generator) < _MASKED,
            chances=Chances.draw(count, generator),
        )

    def _crops(self, draw: _Draw, domains: Tensor, own: slice) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encoded crops, their masks, and the corrupted ones where they are wanted, of some of the faces."""
        device = self.drawer.triangles.device
        given = (draw.person, draw.row, draw.lights, draw.exposure, draw.balance)
        person, row, lights, exposure, balance = (part[own].to(device) for part in given)
        chances = draw.chances.rows(own).to(device)
        faces = self.drawer.draw(row, self.people.rows(person), lights, exposure, balance)
        known = torch.where(draw.masked[own].to(device)[:, None, None, None], random_masks(faces, chances), 1.0)
        wanted = domains[own]
        images = faces.covered.new_zeros(*wanted.shape, 3, self.drawer.heads.size, self.drawer.heads.size)
        masks = torch.zeros_like(images[:, :, :1])
        worse = torch.zeros_like(images) if self.settings.corrupted else None
        for number, domain in enumerate(DOMAINS):
            face, place = torch.nonzero(wanted == number, as_tuple=True)
            if not len(face):
                continue
            which = face.to(device)
            shown = faces.rows(which)
            luck = chances.rows(which)
            photo = number == 0
            clean = photographed(shown, luck, self.drawer.noise.grain) if photo else getattr(shown, domain)
            mask = known[which] if photo else known[which] * shown.covered
            spot = (which, place.to(device))
            images[spot] = masked(self._encoding.encode(domain, clean), mask)
            masks[spot] = mask
            if worse is not None:
                spoilt = clean if photo else corrupted(domain, shown, luck)
                worse[spot] = masked(self._encoding.encode(domain, spoilt), mask)
        flip = draw.mirrored[own].to(device)
        normals = (wanted == DOMAINS.index("normal")).to(device)
        flat = [_mirrored(part, flip, normals).flatten(0, 1) for part in (images, masks)]
        return flat[0], flat[1], None if worse is None else _mirrored(worse, flip, normals).flatten(0, 1)


def draw_population(
    model: MorphableModel, settings: FacesSettings, generator: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[FaceZones, NoiseVolume, People]:
    """What skin is made of, and all persons. generator: seeded with `settings.seed`; their heads are drawn next from it"""
    zones = FaceZones.of(model.to("cpu"))
    noise = NoiseVolume.make(generator, device)
    people = draw_people(settings.people, zones, generator)
    return zones.to(device), noise, people.to(device)


def _mirrored(crops: Tensor, flip: Tensor, normals: Tensor) -> Tensor:
    """Mirror the crops of some faces; of normals x changes sign. crops: [F, K, C, S, S]; flip: [F]; normals: [F, K]"""
    other = crops.flip(-1)
    if crops.shape[2] == 3:
        sign = torch.where(normals[..., None], other.new_tensor([-1.0, 1.0, 1.0]), 1.0)
        other = other * sign[..., None, None]
    return torch.where(flip[:, None, None, None, None], other, crops)
