"""The stream of batches that the settings name: folders, generated faces, or both side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nextface.errors import ConfigError
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.batch import Batch, BatchSource
from nextface.prior.crops import LAYOUTS, WINDOWS
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.train.fits import FitSource
from nextface.prior.train.folders import (
    FolderSettings,
    FolderSource,
    people_folder,
    photo_folder,
    reflectance_folder,
)
from nextface.prior.train.learner import under
from nextface.prior.train.sizes import Sizes
from nextface.train_config import TrainSettings

PAIRED = ("identity", "swapper")
"""Stages that need two photos of each person."""


class MixedSource:
    """Batches put together of the batches of several sources."""

    def __init__(self, parts: Sequence[BatchSource]) -> None:
        """Raises ConfigError when the sources encode their crops differently."""
        self.parts = list(parts)
        first, *others = [part.encoding for part in parts]
        if any(other != first for other in others):
            raise ConfigError(f"crops of different encodings cannot be mixed: {first} and {others}")

    @property
    def encoding(self) -> Encoding:
        return self.parts[0].encoding

    def __iter__(self) -> MixedSource:
        return self

    def __next__(self) -> Batch:
        return Batch.joined([next(part) for part in self.parts])

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{number}.{key}": each for number, part in enumerate(self.parts) for key, each in part.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(under(state, f"{number}."))

    def shard(self, rank: int, world: int) -> MixedSource:
        return MixedSource([part.shard(rank, world) for part in self.parts])


def open_source(stage: str, settings: TrainSettings, sizes: Sizes, device: torch.device) -> BatchSource:
    """What a stage learns from, its whole batches: generated faces where no folder is named.

    Raises ConfigError, InputError.
    """
    if stage == "denoise" and settings.fits:
        if settings.photos or settings.reflectance:
            raise ConfigError("fits go with generated faces alone; leave out photos and reflectance, or fits")
        return with_fits(open_generator(stage, settings, sizes, beside_fits(settings), device), settings)
    named = settings.people if stage in PAIRED else settings.photos or settings.reflectance
    made = round(settings.batch * settings.generated) if named else settings.batch
    generated = open_generator(stage, settings, sizes, made, device) if made else None
    if made == settings.batch and generated is not None:
        return generated
    encoding = folder_encoding(settings, sizes) if generated is None else generated.encoding
    folders = open_folders(stage, settings, encoding, settings.batch - made)
    return folders if generated is None else MixedSource([generated, folders])


def beside_fits(settings: TrainSettings) -> int:
    """Rows of a batch that are generated where the others are fits. Raises ConfigError."""
    if settings.batch % 2:
        raise ConfigError(f"batch = {settings.batch} rows cannot be half of fits; give an even number")
    return settings.batch // 2


def with_fits(generated: GeneratedFaces, settings: TrainSettings) -> MixedSource:
    """Generated faces, spoilt by rule, with as many rows of fits. Raises ConfigError, InputError."""
    fits = FitSource.of(Path(settings.fits), generated.encoding, beside_fits(settings), settings.seed)
    return MixedSource([generated, fits])


def open_generator(
    stage: str, settings: TrainSettings, sizes: Sizes, batch: int, device: torch.device
) -> GeneratedFaces:
    """Faces of the open head."""
    encoding = Encoding(
        crop=settings.crop, image_size=sizes.autoencoder.image_size, norm_groups=sizes.autoencoder.norm_groups
    )
    model = read_open_head(default_model_folder() / "open_head.h5")
    return GeneratedFaces(model, faces_of(stage, settings, batch), encoding, device)


def faces_of(stage: str, settings: TrainSettings, batch: int) -> FacesSettings:
    """What the generator draws: photos in pairs for the stages about identity, else every domain of the stage. A swapper that learns
    from generated faces alone sees every domain with another's skin."""
    exchanging = stage == "swapper" and batch == settings.batch
    paired = stage in PAIRED and not exchanging
    weights = {"shared": 0.4} | ({} if paired else dict.fromkeys(DOMAINS[1:], 0.15))
    if settings.domain:
        weights = {"shared": 0.5, settings.domain: 0.5}
    return FacesSettings(
        batch=batch,
        crops_per_face=1 if paired else 2,
        weights=tuple(weights.get(domain, 0.0) for domain in DOMAINS),
        partners=paired,
        strangers=exchanging,
        corrupted=stage == "denoise",
        seed=settings.seed,
    )


def open_folders(stage: str, settings: TrainSettings, encoding: Encoding, batch: int) -> FolderSource:
    """The folders that a stage learns from. Raises ConfigError, InputError."""
    if settings.crop in LAYOUTS:
        raise ConfigError(
            f"crop = {settings.crop}: files cannot be laid out, since the shape of the heads in them is not known; leave photos, "
            f"reflectance and people out, so that faces are generated, or set crop to {' or '.join(WINDOWS)}"
        )
    paired = stage in PAIRED
    masked = 0.0 if paired else settings.masked
    rows = FolderSettings(encoding, batch, settings.seed, masked, paired, settings.workers)
    if paired:
        return FolderSource(rows, people_folder(Path(settings.people)), [])
    photos = photo_folder(Path(settings.photos)) if settings.photos else None
    reflectance = []
    if settings.reflectance:
        reflectance = reflectance_folder(Path(settings.reflectance), settings.domain, mixed=stage == "stage1")
    return FolderSource(rows, photos, reflectance)


def folder_encoding(settings: TrainSettings, sizes: Sizes) -> Encoding:
    """Of crops in folders: values as they are in the files."""
    return Encoding(
        crop=settings.crop,
        image_size=sizes.autoencoder.image_size,
        specular=(0.0, 1.0),
        roughness=(0.0, 1.0),
        norm_groups=sizes.autoencoder.norm_groups,
    )
