"""The training loop of every stage, and the folder that it leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nextface.errors import ConfigError, InputError
from nextface.prior.batch import Batch, BatchSource
from nextface.prior.checkpoint import read_notes, read_weights, save_published, save_tensors
from nextface.prior.encoding import Encoding
from nextface.prior.train.autoencoding import Autoencoding, noise_floor
from nextface.prior.train.learner import under
from nextface.prior.train.perceptual import perceptual_loss
from nextface.prior.train.processes import joined_processes
from nextface.prior.train.records import Records
from nextface.prior.train.sizes import DENOISER, Sizes
from nextface.prior.train.sources import open_source
from nextface.prior.train.stages import DISCRIMINATOR, Prepared, Start, make_task, prepare
from nextface.prior.train.tasks import Run, Task
from nextface.train_config import TrainSettings

logger = logging.getLogger(__name__)

STATE = "training.safetensors"
WEIGHTS = "weights.safetensors"
SETTINGS = "settings.ini"
FREE = frozenset("device iterations logEvery sampleEvery saveEvery threads workers".split())
"""Settings that may change when a run goes on."""
PLACES = frozenset("fits imagenet people photos reflectance sizes".split())
"""Settings that name files of the machine: they stay out of the weights' metadata."""
FLOOR_BATCHES = 16
"""Batches over which the noise floor is measured at the end."""

OpenSource = Callable[[str, TrainSettings, Sizes, torch.device], BatchSource]


def train(
    stage: str,
    settings: TrainSettings,
    output: Path,
    start: Start | None = None,
    source: OpenSource = open_source,
    published: bool = False,
    quiet: bool = True,
    stop_after: int | None = None,
) -> Path:
    """Train one stage, or go on with the training in `output`; the path of its weights.

    output:      folder for checkpoints, curves and samples
    source:      gives the stream of whole batches; each process takes its share
    published:   write the weights in the public code's layout as well
    stop_after:  save and leave after this step, as if the run had been stopped there

    Under `torchrun` all processes call this alike. Raises ConfigError, InputError, OutputError, FitError.
    """
    with joined_processes(_device(settings)) as (processes, device):
        prepared = prepare(stage, settings, start or Start())
        share = source(stage, settings, prepared.sizes, device).shard(processes.rank, processes.world)
        draws = torch.Generator().manual_seed(settings.seed)
        run = Run(settings, processes, device, perceptual_loss(settings.perceptual, device), draws)
        training = Training(prepared, make_task(prepared, run), run, share, output, quiet)
        training.go_on(min(settings.iterations, stop_after or settings.iterations))
        if published and processes.leads:
            training.publish()
        processes.meet()  # the files are there for whatever comes next in any of them
        return output / WEIGHTS


class Training:
    """One stage on its way. step: how many are done"""

    def __init__(
        self, prepared: Prepared, task: Task, run: Run, source: BatchSource, output: Path, quiet: bool
    ) -> None:
        self.prepared, self.task, self.run, self.source, self.output = prepared, task, run, source, output
        self.dtype = next(prepared.net.parameters()).dtype
        self.step = 0
        if (output / STATE).is_file():
            self.load()
        elif run.processes.leads:
            output.mkdir(parents=True, exist_ok=True)
            (output / SETTINGS).write_text(run.settings.as_ini(), encoding="utf-8")
        iterations = run.settings.iterations
        self.records = Records(output, prepared.stage, iterations, self.step, run.processes, quiet)

    def go_on(self, last: int) -> None:
        """Train up to step `last`, with a checkpoint at its end."""
        settings, records = self.run.settings, self.records
        try:
            if self.step >= last:
                logger.info("%s: %d steps are already done", self.output, self.step)
                return
            if self.step == 0:
                self.task.start(self.next_batch)
            while self.step < last:
                batch = self.next_batch()
                records.add(self.task.step(batch, self.step + 1))
                self.step += 1
                saving = self.step == last or self.step % settings.save_every == 0
                if saving or self.step % settings.log_every == 0:
                    records.flush(self.step)
                if settings.sample_every and self.step % settings.sample_every == 0:
                    records.show(self.step, self.task.pictures(batch))
                if saving:
                    self.save()
        finally:
            records.close()

    def next_batch(self) -> Batch:
        return next(self.source).to(self.run.device, self.dtype)

    def save(self) -> None:
        """Everything that the next step depends on, and the averaged weights for use."""
        state = {f"task.{key}": each for key, each in self.task.state_dict().items()}
        state |= {f"source.{key}": each for key, each in self.source.state_dict().items()}
        state["draws"] = self.run.draws.get_state()
        if self.run.processes.leads:
            notes = {"stage": self.prepared.stage, "step": self.step, "settings": self.run.settings.as_keys()}
            save_tensors(state, self.output / STATE, notes)
        encoding = self._encoding()
        if self.run.processes.leads:
            save_tensors(self.task.learner.averaged(), self.output / WEIGHTS, self._notes(encoding))
            opponent = self._opponent_weights()
            if opponent is not None:
                save_tensors(opponent, self.output / DISCRIMINATOR, {"stage": self.prepared.stage, "step": self.step})

    def load(self) -> None:
        """Go on from `save`'s state. Raises ConfigError when it is of another run, InputError when it is damaged."""
        path = self.output / STATE
        notes, state = read_notes(path), read_weights(path)
        if notes.get("stage") != self.prepared.stage:
            raise ConfigError(
                f"{self.output} holds a training of {notes.get('stage')}, not {self.prepared.stage}; choose another --output"
            )
        before, now = notes.get("settings"), self.run.settings.as_keys()
        if not isinstance(before, dict) or not isinstance(notes.get("step"), int):
            raise InputError(f"{path}: not a checkpoint of train-prior; choose another --output")
        changed = [key for key in now if key not in FREE and before.get(key) != now[key]]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{key} = {now[key]} differs from the training in {self.output} ({key} = {before.get(key)}); "
                "keep it, or choose another --output"
            )
        try:
            self.task.load_state_dict(under(state, "task."))
            self.source.load_state_dict(under(state, "source."))
            self.run.draws.set_state(state["draws"])
        except (KeyError, InputError) as error:
            raise InputError(
                f"{path}: does not fit these networks or data ({error}); choose another --output"
            ) from error
        self.step = int(str(notes["step"]))

    def publish(self) -> None:
        """The weights as the public code names and lays them out."""
        sets = self.task.learner.weights(), self.task.learner.averaged()
        known = [{key: each for key, each in own.items() if not key.startswith(DENOISER)} for own in sets]
        save_published(known[0], known[1], self.output / "net_g_latest.pth")
        opponent = self._opponent_weights()
        if opponent is not None:
            save_published(opponent, opponent, self.output / "net_d_latest.pth")

    def _opponent_weights(self) -> dict[str, Tensor] | None:
        opponent = getattr(self.task, "opponent", None)
        return None if opponent is None else opponent.learner.weights()

    def _encoding(self) -> Encoding:
        """The source's, with the noise floor of a complete auto-encoder. Collective."""
        encoding = self.source.encoding
        if isinstance(self.task, Autoencoding) and self.step >= self.run.settings.iterations:
            where = self.source.state_dict()
            floor = noise_floor(self.task, self.next_batch, FLOOR_BATCHES)
            self.source.load_state_dict(where)
            encoding = replace(encoding, noise_floor=floor)
        return encoding

    def _notes(self, encoding: Encoding) -> dict[str, object]:
        return {
            "network": type(self.prepared.net).__name__,
            "stage": self.prepared.stage,
            "step": self.step,
            "sizes": self.prepared.sizes.notes(),
            "encoding": encoding.notes(),
            "settings": {key: each for key, each in self.run.settings.as_keys().items() if key not in PLACES},
        }


def _device(settings: TrainSettings) -> str:
    if settings.device == "cuda" and not torch.cuda.is_available():
        logger.warning("device 'cuda': training on the cpu, since torch finds no CUDA GPU")
        return "cpu"
    return settings.device
