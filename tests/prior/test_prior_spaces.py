"""The comparison of what the prior's networks look at: what is wished of maps, and which arm is taken."""

from __future__ import annotations

import pytest
import torch
from synthetic_photo import known_scene
from torch import Tensor
from toy import toy_model

from benchmarks.crop_metrics import Interval
from benchmarks.prior_spaces import Cost, Row, chosen, overall, wished
from nextface.color import srgb_to_linear
from nextface.prior.answers import Answers
from nextface.prior.encoding import Encoding
from nextface.prior.projection import Answer, Projection
from nextface.prior.views import CropViews
from nextface.textures import channels


class Same(Projection):
    def answer(self, crops: Tensor) -> Answer:
        return Answer(crops, crops)


class Grey(Projection):
    def answer(self, crops: Tensor) -> Answer:
        return Answer(torch.zeros_like(crops), torch.zeros_like(crops))


def answers(kind: type[Projection]) -> Answers:
    model = toy_model()
    views = CropViews.of(known_scene(model), model, "cylinder", 32)
    projection = kind(None, Encoding(crop="cylinder", image_size=32))  # type: ignore[arg-type]
    return Answers.of(projection, views, model, torch.ones(64, 64, 1), ())


def test_what_the_codes_know_is_left_as_it_is():
    maps = 0.2 + 0.5 * torch.rand(64, 64, 7, generator=torch.Generator().manual_seed(0))
    maps[..., channels()["normal"]] = 0.0
    assert torch.allclose(wished(answers(Same), maps, in_tone=True), maps, atol=1e-4)


def test_a_wish_reaches_the_seen_skin_alone():
    own = answers(Grey)
    maps = torch.full((64, 64, 7), 0.4)
    found = wished(own, maps, in_tone=False)[..., channels()["diffuse"]]
    sure, unseen = own.confidence[..., 0] > 0.9, own.views.maps(own.weight, own.weight)[1][..., 0] == 0.0
    assert float(sure.float().mean()) > 0.1
    assert float(unseen.float().mean()) > 0.1
    assert torch.allclose(found[sure], srgb_to_linear(torch.tensor(0.5)), atol=0.02)
    assert torch.equal(found[unseen], maps[unseen][..., :3])
    in_tone = wished(own, maps, in_tone=True)[..., channels()["diffuse"]]
    assert torch.allclose(in_tone, maps[..., :3], atol=1e-3)  # a grey of any lightness is the same tone


@pytest.mark.parametrize(("unrolled", "taken"), [(1.9, "cylinder"), (1.7, "tight")])
def test_the_fastest_of_the_good_arms_is_taken(unrolled: float, taken: str):
    gains = {"tight": (2.0, 2.0), "cylinder": (unrolled, unrolled), "unwrap": (4.0, -3.0)}
    rows = [
        Row(arm, domain, 0.0, 0.0, 0.0, Interval(gain, gain, gain))
        for arm, each in gains.items()
        for domain, gain in zip(("diffuse", "normal"), each, strict=True)
    ]
    costs = {"tight": Cost(0.6, 0.2, 3), "cylinder": Cost(0.2, 0.1, 1), "unwrap": Cost(0.3, 0.1, 1)}
    assert overall(rows, "unwrap") == 2.0
    assert (
        chosen([row for row in rows if row.arm != "unwrap"], {arm: costs[arm] for arm in ("tight", "cylinder")})
        == taken
    )
