"""Colour of skin from its melanin and blood: a table of the two-layer optical model in tools/open_head/skin_tone.py."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample


@lru_cache
def _table(device: torch.device) -> tuple[Tensor, tuple[float, float], tuple[float, float]]:
    """Colours [1, 3, rows of melanin, columns of blood], and the ranges of log melanin and log blood."""
    with files("nextface.prior.data").joinpath("skin_colours.npz").open("rb") as file, np.load(file) as table:
        colour = torch.from_numpy(table["colour"]).permute(2, 0, 1)[None].contiguous().to(device)
        return colour, tuple(table["log_melanin"].tolist()), tuple(table["log_blood"].tolist())


def skin_colour(log_melanin: Tensor, log_blood: Tensor) -> Tensor:
    """Diffuse albedo, linear Rec.709; both are held within the table's range. `[B, P] each -> [B, 3, P]`

    melanin: volume fraction of melanosomes in the epidermis, 0.002 (very light) to about 1 (very dark)
    blood:   volume fraction of blood in the dermis, 0.002 (pale) to 0.07
    """
    colour, rows, columns = _table(log_melanin.device)
    across = (log_blood - columns[0]) * (2.0 / (columns[1] - columns[0])) - 1.0
    down = (log_melanin - rows[0]) * (2.0 / (rows[1] - rows[0])) - 1.0
    where = torch.stack([across, down], -1)[None]
    return grid_sample(colour, where, padding_mode="border", align_corners=True)[0].transpose(0, 1)
