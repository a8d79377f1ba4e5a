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
    """

    image: Tensor
    valid: Tensor
    convention: str
    points: Tensor
    confidence: Tensor
    principal: Tensor
    focal: Tensor
    focal_sd: Tensor

    @property
    def batch(self) -> int:
        return self.image.shape[0]

    @property
    def height(self) -> int:
        return self.image.shape[1]

    @property
    def width(self) -> int:
        return self.image.shape[2]

    def embedding(self, model: MorphableModel) -> LandmarkEmbedding:
        """The model's embedding of this observation's landmarks."""
        return embedding_of(model, self.convention)

    def to(self, device: torch.device | str) -> Observation:
        names = ("image", "valid", "points", "confidence", "principal", "focal", "focal_sd")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def embedding_of(model: MorphableModel, convention: str) -> LandmarkEmbedding:
    if convention not in model.landmarks:
        known = ", ".join(sorted(model.landmarks)) or "none"
        raise ModelError(f"model {model.name!r} has no embedding for {convention!r} landmarks (it has: {known})")
    return model.landmarks[convention]


def observe(photos: Sequence[Photo], model: MorphableModel, focal: Tensor, focal_sd: Tensor) -> Observation:
    """Batch photos whose landmarks share one convention.

    focal, focal_sd: expected focal length in pixels of each crop and the standard deviation of its logarithm. [B]
    """
    height = max(photo.image.shape[0] for photo in photos)
    width = max(photo.image.shape[1] for photo in photos)
    convention = photos[0].landmarks.convention
    embedding = embedding_of(model, convention)
    count = len(photos)
    image = torch.zeros(count, height, width, 3)
    valid = torch.zeros(count, height, width, dtype=torch.bool)
    points = torch.zeros(count, embedding.index.shape[0], 2)
    confidence = torch.zeros(count, embedding.index.shape[0])
    for number, photo in enumerate(photos):
        rows, columns = photo.image.shape[:2]
        image[number, :rows, :columns] = photo.image
        valid[number, :rows, :columns] = photo.valid
        place = {int(index): row for row, index in enumerate(photo.landmarks.index)}
        for slot, index in enumerate(embedding.index.tolist()):
            if index in place:
                points[number, slot] = photo.landmarks.points[place[index]]
                confidence[number, slot] = photo.landmarks.confidence[place[index]]
    principal = torch.tensor([photo.principal for photo in photos], dtype=torch.float32)
    return Observation(image, valid, convention, points, confidence, principal, focal, focal_sd)
