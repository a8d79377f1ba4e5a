"""Training crops from folders of images: FFHQ's layout, light-stage domains, people.

Every row of every batch is drawn by itself, from the seed, the number of the batch and the number of the row. Photos and
reflectance are equally likely and each list is drawn from independently; the published data set paired them by position,
which left every second reflectance crop unused.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nextface.errors import ConfigError, InputError
from nextface.prior.batch import UNKNOWN, Batch
from nextface.prior.crops import masked
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.pictures import read_crop

SUFFIXES = frozenset(".jpg .jpeg .png .webp .tif .tiff .bmp .exr".split())
AHEAD = 2
"""Batches that are read while another is trained on."""


@dataclass(frozen=True)
class Crops:
    """Files of one kind.

    files:    of each person one tuple, or one person of label UNKNOWN
    domain:   that the pixels are encoded as, a name of DOMAINS
    codebook: index in DOMAINS that rows are labelled with
    """

    files: tuple[tuple[Path, ...], ...]
    domain: str
    codebook: int
    known: bool = False


@dataclass(frozen=True)
class FolderSettings:
    """batch: rows over all processes; masked: share of rows with a random mask; paired: rows have partners; workers:
    reading threads"""

    encoding: Encoding
    batch: int
    seed: int
    masked: float = 0.0
    paired: bool = False
    workers: int = 1


@dataclass
class FolderSource:
    """A `BatchSource` of files.

    photos, reflectance: kinds of crops; where both are given each row is of either with probability ½, reflectance of each
                         kind with equal probability
    rows:                that this process reads of each batch, all if left out
    """

    settings: FolderSettings
    photos: Crops | None
    reflectance: Sequence[Crops]
    rows: range | None = None
    step: int = 0
    _queue: deque[list[Future[Batch]]] = field(default_factory=deque, repr=False)
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.photos is None and not self.reflectance:
            raise ConfigError("no folder of training crops was given; set photos, reflectance or people")
        if self.rows is None:
            self.rows = range(self.settings.batch)

    @property
    def encoding(self) -> Encoding:
        return self.settings.encoding

    def __iter__(self) -> FolderSource:
        return self

    def __next__(self) -> Batch:
        assert self.rows is not None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="crops")
        while len(self._queue) < AHEAD:
            step = self.step + len(self._queue)
            self._queue.append([self._pool.submit(self._row, step, row) for row in self.rows])
        batch = Batch.joined([row.result() for row in self._queue.popleft()])
        self.step += 1
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.step = int(state["step"])
        self._queue.clear()

    def shard(self, rank: int, world: int) -> FolderSource:
        return FolderSource(
            self.settings, self.photos, self.reflectance, shard_rows(self.settings.batch, rank, world), self.step
        )

    def _row(self, step: int, row: int) -> Batch:
        settings = self.settings
        draw = np.random.default_rng((settings.seed, step, row))
        photo = not self.reflectance or (self.photos is not None and draw.random() < 0.5)
        crops = self.photos if photo and self.photos else self.reflectance[draw.integers(len(self.reflectance))]
        person = int(draw.integers(len(crops.files)))
        files = crops.files[person]
        image = read_crop(files[draw.integers(len(files))], crops.domain, settings.encoding)
        if draw.random() < 0.5:
            image = mirrored(image, crops.domain)
        mask = torch.ones_like(image[:, :1])
        if draw.random() < settings.masked:
            mask = random_mask(draw, settings.encoding.image_size)
        partner = None
        if settings.paired:
            partner = read_crop(files[draw.integers(len(files))], crops.domain, settings.encoding)
        return Batch(
            image=masked(image, mask),
            domain=torch.tensor([crops.codebook]),
            identity=torch.tensor([person if crops.known else UNKNOWN]),
            mask=mask,
            partner=partner,
        )


def shard_rows(batch: int, rank: int, world: int) -> range:
    """Rows of process `rank`. Raises ConfigError when `batch` cannot be split evenly."""
    if batch % world:
        raise ConfigError(f"batch = {batch} rows cannot be split among {world} processes; give a multiple of {world}")
    share = batch // world
    return range(rank * share, (rank + 1) * share)


def photo_folder(folder: Path) -> Crops:
    """FFHQ's layout: images in the folder and its subfolders. Raises InputError."""
    return Crops((_images(folder),), DOMAINS[0], 0)


def people_folder(folder: Path) -> Crops:
    """VGGFace2-HQ's layout: one subfolder of images for each person. Raises InputError."""
    people = tuple(_images(each) for each in sorted(_listed(folder)) if each.is_dir())
    if not people:
        raise InputError(f"{folder}: holds no subfolder; every person needs one, with aligned photos in it")
    return Crops(people, DOMAINS[0], 0, known=True)


def reflectance_folder(folder: Path, domain: str = "", mixed: bool = False) -> list[Crops]:
    """Light-stage crops: a subfolder for each domain, or files of one kind.

    domain: that files without subfolders are, and the only one that is taken of several; mixed: files without subfolders
    may be of any domain, as in the published stage 1: they are encoded like diffuse albedo and labelled as shared.
    Raises InputError.
    """
    present = [name for name in DOMAINS[1:] if (folder / name).is_dir()]
    if present:
        if domain and domain not in present:
            raise InputError(f"{folder}: has no subfolder {domain}; it has {', '.join(present)}")
        taken = [domain] if domain else present
        return [Crops((_images(folder / name),), name, DOMAINS.index(name)) for name in taken]
    files = (_images(folder),)
    if domain:
        return [Crops(files, domain, DOMAINS.index(domain))]
    if mixed:
        return [Crops(files, "diffuse", 0)]
    raise InputError(
        f"{folder}: has no subfolder {', '.join(DOMAINS[1:])}; put each domain's crops into one of that name, "
        "or name the only domain with --domain"
    )


def mirrored(image: Tensor, domain: str) -> Tensor:
    """Left and right exchanged; normals turn with the head. [B, 3, S, S]"""
    image = image.flip(-1)
    return image * image.new_tensor([-1.0, 1.0, 1.0]).view(3, 1, 1) if domain == "normal" else image


def random_mask(draw: np.random.Generator, size: int) -> Tensor:
    """A wobbly ellipse around the middle: 1 inside, 0 outside. [1, 1, S, S]"""
    centre = 0.5 + draw.uniform(-0.12, 0.12, 2)
    radii = draw.uniform(0.25, 0.6, 2)
    tilt = draw.uniform(0.0, math.pi)
    phases, sizes = draw.uniform(0.0, 2.0 * math.pi, 4), draw.uniform(0.0, 0.12, 4)
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis - centre[0], axis - centre[1])
    along, across = x * math.cos(tilt) + y * math.sin(tilt), y * math.cos(tilt) - x * math.sin(tilt)
    angle = np.arctan2(across, along)
    border = 1.0 + sum(s * np.cos(n * angle + p) for n, (s, p) in enumerate(zip(sizes, phases, strict=True), start=2))
    inside = np.hypot(along / radii[0], across / radii[1]) < border
    return torch.from_numpy(inside.astype(np.float32))[None, None]


def _images(folder: Path) -> tuple[Path, ...]:
    """Images of a folder and its subfolders, hidden ones apart, in an order that no file system changes."""
    _listed(folder)
    found = [
        each.relative_to(folder).parts
        for each in folder.rglob("*")
        if each.suffix.lower() in SUFFIXES and each.is_file()
    ]
    seen = sorted(parts for parts in found if not any(part.startswith(".") for part in parts))
    if not seen:
        raise InputError(f"{folder}: the folder holds no images; put aligned crops as JPEG or PNG files into it")
    return tuple(folder.joinpath(*parts) for parts in seen)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: the folder of training crops cannot be read ({error.strerror})") from error
