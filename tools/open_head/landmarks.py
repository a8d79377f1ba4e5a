"""Landmark embeddings of the open head: MediaPipe's by self-annotation, the 68 points from it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import torch

from nextface.landmarks.annotate import annotate
from nextface.landmarks.contour_points import connections, halves, ibug68, loops
from nextface.landmarks.detect import detector
from nextface.morphable.cache import embedding_of
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.morphable.open_head import read_open_head
from open_head.writing import write_landmarks

PARTING = {"mouth-open": 0.35}
"""Activation of the units that part the lips, so that points of upper and lower lip are told apart."""


def write_embeddings(path: Path) -> None:
    """Annotate the model in `path` and add its landmarks to the file."""
    model = read_open_head(path)
    with h5py.File(path) as file:
        names = [name.decode() for name in file["expression/model/names"][:]]
    embedding = mediapipe_embedding(model, names)
    contours = _arrays(ibug68(model, embedding_of(embedding)))
    with h5py.File(path, "a") as file:
        write_landmarks(file, "mediapipe", embedding)
        write_landmarks(file, "ibug68", contours)


def mediapipe_embedding(model: MorphableModel, names: list[str]) -> dict[str, np.ndarray]:
    """The mean head's annotation, with the inner lips taken from a head whose lips are parted.

    names: of the expression units
    """
    finder = detector("mediapipe")
    embedding = _arrays(annotate(model, finder))
    parting = torch.zeros(len(names))
    for name, activation in PARTING.items():
        parting[names.index(name)] = activation * model.expression_upper[names.index(name)]
    open_mouth = model.mean + torch.einsum("k,kvc->vc", parting, model.expression_basis)
    parted = _arrays(annotate(replace(model, mean=open_mouth), finder))
    inner = set(inner_lips(model, embedding))
    rows = {int(number): row for row, number in enumerate(parted["index"])}
    for row, number in enumerate(embedding["index"]):
        if int(number) in inner and int(number) in rows:
            for name in ("triangle", "barycentric", "weight"):
                embedding[name][row] = parted[name][rows[int(number)]]
    return embedding


def inner_lips(model: MorphableModel, embedding: dict[str, np.ndarray]) -> list[int]:
    """Numbers of the inner lip contour: the lips' loop that is less high on the mean head."""
    points = np.full((478, 3), np.nan)
    corners = model.mean[model.triangles].numpy()[embedding["triangle"][:, 0]]
    points[embedding["index"]] = np.einsum("nk,nkc->nc", embedding["barycentric"][:, 0], corners)

    def thickness(loop: list[int]) -> float:
        upper, lower = halves(loop, points)
        return float(points[upper, 1].mean() - points[lower, 1].mean())

    return min(loops(connections()["lips"]), key=thickness)


def _arrays(embedding: LandmarkEmbedding) -> dict[str, np.ndarray]:
    return {field.name: getattr(embedding, field.name).numpy().copy() for field in fields(embedding)}
