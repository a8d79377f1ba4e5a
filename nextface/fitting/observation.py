"""What the photos say: pixels, landmarks and camera facts, batched and aligned with the model's landmark embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nextface.errors import ModelError
from nextface.morphable.model import LandmarkEmbedding, MorphableModel

if TYPE_CHECKING:
    from nextface.photo import Photo

_PER_PHOTO = ("points", "confidence", "principal", "focal", "focal_sd")


@dataclass(frozen=True)
class Observation:
    """B photos as the stages see them.

    image:      crops, linear Rec.709, zero-padded on the right and below to one size. [B, H, W, 3]
    valid:      inside the photo and opaque. [B, H, W] bool
    convention: name of the landmark embedding that `points` follow
    points:     landmarks in the embedding's order, pixels of the crop. [B, N, 2]
    confidence: 0 where a landmark is missing. [B, N]
    principal:  principal point (x, y), pixels of the crop. [B, 2]
    focal:      expected focal length, pixels of the crop. [B]
    focal_sd:   standard deviation of its logarithm, 0 where it is to stay fixed. [B]
    sizes:      (height, width) of each crop before it was padded; () where all fill the frame
    """

    image: Tensor
    valid: Tensor
    convention: str
    points: Tensor
    confidence: Tensor
    principal: Tensor
    focal: Tensor
    focal_sd: Tensor
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def batch(self) -> int:
        return self.image.shape[0]

    @property
    def height(self) -> int:
        return self.image.shape[1]

    @property
    def width(self) -> int:
        return self.image.shape[2]

    def own_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each photo's own crop."""
        return self.sizes or ((self.height, self.width),) * self.batch

    @classmethod
    def join(cls, observations: Sequence[Observation]) -> Observation:
        """Several observations, of landmarks of one convention, as one batch."""
        sizes = tuple(size for observation in observations for size in observation.own_sizes())
        height, width = (max(size[side] for size in sizes) for side in (0, 1))

        def padded(images: Tensor) -> Tensor:
            whole = images.new_zeros(len(images), height, width, *images.shape[3:])
            whole[:, : images.shape[1], : images.shape[2]] = images
            return whole

        joined = {name: torch.cat([getattr(each, name) for each in observations]) for name in _PER_PHOTO}
        return Observation(
            image=torch.cat([padded(each.image) for each in observations]),
            valid=torch.cat([padded(each.valid) for each in observations]),
            convention=observations[0].convention,
            sizes=() if set(sizes) == {(height, width)} else sizes,
            **joined,
        )

    def embedding(self, model: MorphableModel) -> LandmarkEmbedding:
        """The model's embedding of this observation's landmarks."""
        return embedding_of(model, self.convention)

    def to(self, device: torch.device | str) -> Observation:
        return replace(self, **{name: getattr(self, name).to(device) for name in ("image", "valid", *_PER_PHOTO)})


def embedding_of(model: MorphableModel, convention: str) -> LandmarkEmbedding:
    if convention not in model.landmarks:
        known = ", ".join(sorted(model.landmarks)) or "none"
        raise ModelError(f"model {model.name!r} has no embedding for {convention!r} landmarks (it has: {known})")
    return model.landmarks[convention]


def observe(photo: Photo, model: MorphableModel, focal: float, focal_sd: float) -> Observation:
    """What one photo says.

    focal, focal_sd: expected focal length in pixels of the crop and the standard deviation of its logarithm
    """
    marks = photo.landmarks
    embedding = embedding_of(model, marks.convention)
    points = torch.zeros(1, embedding.index.shape[0], 2)
    confidence = torch.zeros(1, embedding.index.shape[0])
    place = {int(index): row for row, index in enumerate(marks.index)}
    for slot, index in enumerate(embedding.index.tolist()):
        if index in place:
            points[0, slot] = marks.points[place[index]]
            confidence[0, slot] = marks.confidence[place[index]]
    return Observation(
        image=photo.image[None],
        valid=photo.valid[None],
        convention=marks.convention,
        points=points,
        confidence=confidence,
        principal=torch.tensor([photo.principal], dtype=torch.float32),
        focal=torch.tensor([focal]),
        focal_sd=torch.tensor([focal_sd]),
    )
