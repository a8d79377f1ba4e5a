"""Training auto-encoders: stage 1, stage 2, fusion, and the encoder that denoises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import grad

from nextface.prior.autoencoder import VQAutoencoder
from nextface.prior.batch import Batch
from nextface.prior.blocks import at_least_single
from nextface.prior.fusion import DOMAINS, FusedAutoencoder
from nextface.prior.quantizer import CODEBOOK_WEIGHT
from nextface.prior.train.codebooks import Codebooks
from nextface.prior.train.corruption import Draws, corrupted
from nextface.prior.train.learner import under
from nextface.prior.train.losses import adaptive_weight, inside, pixel_loss
from nextface.prior.train.tasks import Opponent, Run


class Outcome(NamedTuple):
    """image: the reconstruction, [B, 3, S, S]; codebook: its loss, []; chosen: codes by the domain of their codebook, int64;
    latent: [B, D, h, w]"""

    image: Tensor
    codebook: Tensor
    chosen: dict[str, Tensor]
    latent: Tensor


class Autoencoding:
    """A `Task`: crops in, the same crops out, through one of the ways below.

    A network of one codebook sends every crop through that ("joint"). A fused network either sends each crop through the
    codebook of its known domain ("routed", our stage 2) or mixes all ("fused").
    """

    def __init__(
        self,
        net: VQAutoencoder | FusedAutoencoder,
        run: Run,
        trained: tuple[str, ...],
        routed: bool = False,
        denoise: bool = False,
        opponent: Opponent | None = None,
        fresh: tuple[str, ...] = (),
    ) -> None:
        """trained: beginnings of the names of parameters that learn; denoise: inputs are spoilt, and the network has a
        `denoiser` beside its encoder; fresh: domains whose codebooks start from data"""
        self.net, self.run, self.denoise, self.opponent, self.fresh = net, run, denoise, opponent, fresh
        if isinstance(net, VQAutoencoder):
            self.pass_through: Callable[[Tensor, Tensor], Outcome] = self._joint
        else:
            self.pass_through = self._routed if routed else self._fused
        self.learner = run.learner(net, trained)
        learns = any(name.startswith("quantize") for name in self.learner.trained)
        domains = () if not learns else DOMAINS if routed else DOMAINS[:1]
        self.codebooks = Codebooks(net, domains, run.processes, run.settings.restart_every)

    @torch.no_grad()
    def start(self, batches: Callable[[], Batch]) -> None:
        if not self.fresh:
            return
        latents, domains = [], []
        for _ in range(self.run.settings.start_batches):
            batch = batches()
            with self.run.autocast():
                latents.append(at_least_single(self.net.encode(batch.image)))
            domains.append(batch.domain)
        self.codebooks.start(latents, domains, self.fresh, self.run.draws)
        for domain in self.fresh:
            self.learner.restarted(self._table_name(domain), torch.arange(self.net.settings.codes))

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        settings = self.run.settings
        given = self._given(batch)
        outcome = self._made(given, batch.domain)
        image = outcome.image
        terms = {
            "pixel": pixel_loss(image, batch.image, batch.mask),
            "perceptual": self.run.perceptual(inside(image, batch.image, batch.mask), batch.image),
            "codebook": outcome.codebook,
        }
        likeness = settings.weight_pixel * terms["pixel"] + settings.weight_perceptual * terms["perceptual"]
        loss = likeness + settings.weight_codebook * terms["codebook"]
        playing = self.opponent is not None and self.opponent.active(number)
        if self.opponent is not None and playing:
            terms["fooling"] = self.opponent.fooled(image)
            loss = loss + settings.weight_adversarial * self._balance(likeness, terms["fooling"]) * terms["fooling"]
        self.learner.clear()
        loss.backward()
        self.learner.descend(number)
        told = {"loss": loss, **terms} | self._care(batch, outcome, number)
        if self.opponent is not None and playing:
            told["telling apart"] = self.opponent.descend(batch.image, image, number)
        return {name: each.detach() for name, each in told.items()}

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """What the network makes of clean crops with its present weights. [B, 3, S, S]"""
        return self._made(batch.image, batch.domain).image

    @torch.no_grad()
    def pictures(self, batch: Batch) -> list[Tensor]:
        given = self._given(batch, torch.Generator().manual_seed(0))
        with self.learner.averages_in_place():
            made = self._made(given, batch.domain).image
        return [given, made, batch.image] if self.denoise else [given, made]

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"net.{key}": each for key, each in self.learner.state_dict().items()} | self.codebooks.state_dict()
        if self.opponent is not None:
            state |= {f"opponent.{key}": each for key, each in self.opponent.learner.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.learner.load_state_dict(under(state, "net."))
        self.codebooks.load_state_dict(state)
        if self.opponent is not None:
            self.opponent.learner.load_state_dict(under(state, "opponent."))

    def _given(self, batch: Batch, draws: torch.Generator | None = None) -> Tensor:
        if not self.denoise:
            return batch.image
        if batch.corrupted is not None:
            return batch.corrupted
        world = self.run.processes.world
        whole = Draws.of(world * len(batch.image), draws or self.run.draws)
        return corrupted(batch.image, batch.domain, whole.own(self.run.processes), batch.mask)

    def _made(self, given: Tensor, domain: Tensor) -> Outcome:
        """The reconstruction; of a denoiser, the crops with the change that it asks for (`Projection.cleaned`)."""
        encode = self.net.denoiser or self.net.encode
        with self.run.autocast():
            outcome = self.pass_through(encode(given), domain)
            image = at_least_single(outcome.image)
            if self.net.denoiser is not None:
                with torch.no_grad():
                    held = at_least_single(self.pass_through(self.net.encode(given), domain).image)
                image = given + image - held
        return outcome._replace(image=image)

    def _joint(self, latent: Tensor, domain: Tensor) -> Outcome:
        quantized = self.net.quantize(latent)
        return Outcome(self.net.decode(quantized.codes), quantized.loss, {DOMAINS[0]: quantized.indices}, latent)

    def _routed(self, latent: Tensor, domain: Tensor) -> Outcome:
        """Reflectance moves the shared codes as well: the fusion network sees every crop on them."""
        assert isinstance(self.net, FusedAutoencoder)
        routed = self.net.route(latent, domain)
        wide = at_least_single(latent.detach())
        shared = self.net.quantize.nearest(wide)
        astray = (self.net.quantize.lookup(shared) - wide).square().mean((1, 2, 3))
        loss = routed.loss + CODEBOOK_WEIGHT * (astray * (domain > 0)).mean()
        chosen = {DOMAINS[0]: shared} | {
            name: routed.indices[domain == number] for number, name in enumerate(DOMAINS) if number
        }
        return Outcome(self.net.decode(routed.codes), loss, chosen, latent)

    def _fused(self, latent: Tensor, domain: Tensor) -> Outcome:
        """The codebooks rest; the encoder stays near the codes of each crop's own domain."""
        assert isinstance(self.net, FusedAutoencoder)
        fused = self.net.fuse(latent)
        distance = torch.stack([each.distance for each in fused.quantized])[
            domain, torch.arange(len(domain), device=domain.device)
        ]
        return Outcome(self.net.decode(fused.codes), distance.mean() / latent.shape[1], {}, latent)

    def _balance(self, likeness: Tensor, fooling: Tensor) -> Tensor:
        """The adaptive weight, from the gradients of the whole batch."""
        last = self.net.generator.blocks[-1].weight
        gradients = [grad(term, last, retain_graph=True)[0] for term in (likeness, fooling)]  # type: ignore[arg-type]
        self.run.processes.average(gradients)
        return adaptive_weight(*gradients)

    def _care(self, batch: Batch, outcome: Outcome, number: int) -> dict[str, Tensor]:
        told: dict[str, Tensor] = {}
        for domain in self.codebooks.domains:
            told |= self.codebooks.count(domain, outcome.chosen[domain])
        latent = at_least_single(outcome.latent.detach())
        self.codebooks.restart(number, latent, batch.domain, self.learner, self.run.draws)
        return told

    def _table_name(self, domain: str) -> str:
        return "quantize.embedding.weight" if domain == DOMAINS[0] else f"quantize_{domain}.embedding.weight"


def noise_floor(task: Autoencoding, batches: Callable[[], Batch], count: int) -> tuple[float, ...]:
    """Root mean square of what the averaged weights change in the pattern of clean crops, one per domain, 0 for domains not met.

    The pattern is a crop less its mean. Over the pixels of the masks of `count` batches of all processes. Collective.
    """
    totals = torch.zeros(2, len(DOMAINS), dtype=torch.float64, device=task.run.device)
    with task.learner.averages_in_place():
        for _ in range(count):
            batch = batches()
            mask = torch.ones_like(batch.image[:, :1]) if batch.mask is None else batch.mask
            change = (task.reconstruct(batch) - batch.image) * mask
            level = change.sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp_min(1.0)
            squares = ((change - level * mask).square()).mean(1).sum((1, 2))
            totals[0].index_add_(0, batch.domain, squares.double())
            totals[1].index_add_(0, batch.domain, mask.sum((1, 2, 3)).double())
    squares, pixels = task.run.processes.total(totals)
    return tuple((squares / pixels.clamp_min(1.0)).sqrt().tolist())
