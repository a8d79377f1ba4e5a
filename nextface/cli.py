"""Commands: reconstruct photos, export from a saved scene, ask and train the prior. No logic of its own."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path

from nextface import arguments
from nextface.config import OptimConfig
from nextface.errors import ConfigError, InputError, NextfaceError, OutputError
from nextface.train_config import TrainSettings

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jfif .png .webp .tif .tiff .bmp .gif .avif .jp2 .ppm .pgm .tga .exr .hdr .heic .heif".split()
)
"""Files of a folder that are taken for photos; others are skipped."""
INTERRUPTED = 130
BATCH_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Results are told on stdout, progress, warnings and errors on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0].endswith("optimizer.py") else "nextface"
    handler = _StderrHandler()
    package_log = logging.getLogger("nextface")
    level = package_log.level
    package_log.addHandler(handler)
    try:
        if words[:1] == ["export"]:
            return _export(arguments.parse_export(words[1:], program))
        if words[:1] == ["prior"]:
            return _prior(arguments.parse_prior(words[1:], program))
        if words[:1] == ["train-prior"]:
            return _train_prior(arguments.parse_train(words[1:], program))
        return _run(arguments.parse_run(words, program))
    except NextfaceError as error:
        _say_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last complete stage", file=sys.stderr)
        return INTERRUPTED
    finally:
        package_log.removeHandler(handler)
        package_log.setLevel(level)


def _run(parsed: argparse.Namespace) -> int:
    config = arguments.read_config(parsed)
    logging.getLogger("nextface").setLevel(logging.INFO if config.verbose else logging.WARNING)
    photos = _photos(parsed.input)
    _check_alone(parsed, len(photos))
    _check_output(parsed.output)
    set_threads(config, os.environ)
    if parsed.input.is_dir():
        return _batch(photos, parsed, config)
    _reconstruct(photos[0], parsed, config)
    return 0


def _photos(path: Path, option: str = "--input") -> list[Path]:
    """The photo, or the photos of a folder in the order of their names (2 before 10)."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check {option}")
    if not path.is_dir():
        return [path]
    found = [item for item in path.iterdir() if item.is_file() and item.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise InputError(f"{path}: the folder holds no photos; put JPEG, PNG, WebP or TIFF files into it")
    return sorted(
        found,
        key=lambda item: [
            (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", item.name)
        ],
    )


def _check_alone(parsed: argparse.Namespace, count: int) -> None:
    """Refuse options that make sense for one photo only."""
    if count == 1:
        return
    if parsed.sharedIdentity:
        raise ConfigError(
            f"--sharedIdentity with {count} photos is not possible in this version; leave it out to fit each photo by itself"
        )
    for option in ("landmarks", "checkpoint"):
        if getattr(parsed, option) is not None:
            raise ConfigError(
                f"--{option} belongs to one photo, but {parsed.input} holds {count}; give --input one of them"
            )


def _check_output(folder: Path) -> None:
    """Fail before any work when the results could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _output_error(folder, error) from error


def set_threads(config: OptimConfig | TrainSettings, environment: MutableMapping[str, str]) -> None:
    """Thread counts and passive waiting, before torch and numba are imported.

    Two pools of threads that spin while they wait, torch's and numba's, slow each other down twentyfold on few cores. What the
    user's environment says about waiting stays.
    """
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
    for name, value in passive.items():
        environment.setdefault(name, value)
    if config.threads:
        for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
            environment[f"{name}_NUM_THREADS"] = str(config.threads)


def _batch(photos: list[Path], parsed: argparse.Namespace, config: OptimConfig) -> int:
    """`batchSize` photos at a time; a failure is told and the rest goes on."""
    from nextface.pipeline import reconstruct_files

    rows = []
    for first in range(0, len(photos), config.batch_size):
        chunk = photos[first : first + config.batch_size]
        for number, photo in enumerate(chunk, first + 1):
            print(f"[{number}/{len(photos)}] {photo.name}", file=sys.stderr)
        began = time.perf_counter()
        outcomes = reconstruct_files(chunk, parsed.output, config, skip=parsed.skip)
        seconds = (time.perf_counter() - began) / len(chunk)
        for photo, outcome in zip(chunk, outcomes, strict=True):
            failure = ""
            if isinstance(outcome, Exception):
                failure = _told(photo, _translated(outcome, parsed.output / photo.name))
            else:
                print(_done(photo, seconds, parsed.output))
            rows.append((photo.name, failure, seconds))
    return _summary(rows, f"photos reconstructed into {parsed.output}")


def _summary(rows: list[tuple[str, str, float]], done: str) -> int:
    """Tell what became of each of many: its name, why it failed, its seconds. Returns the exit code."""
    failed = sum(bool(failure) for _, failure, _ in rows)
    width = max(len(name) for name, _, _ in rows)
    print(f"\n{len(rows) - failed} of {len(rows)} {done}")
    for name, failure, seconds in rows:
        print(f"  {name:<{width}}  {seconds:7.1f} s  {'failed: ' + failure if failure else 'ok'}")
    return BATCH_FAILED if failed else 0


def _told(photo: Path, error: Exception) -> str:
    """Tell a photo's failure on stderr, with its traceback where nobody expected it; returns it in short."""
    if isinstance(error, NextfaceError):
        _say_error(error)
        return str(error)
    logging.getLogger("nextface").error("%s: failed unexpectedly", photo, exc_info=error)
    return f"{type(error).__name__}: {error}"


def _done(photo: Path, seconds: float, output: Path) -> str:
    return f"{photo.name}: done in {seconds:.1f} s, results in {output / photo.name}"


def _reconstruct(photo: Path, parsed: argparse.Namespace, config: OptimConfig) -> None:
    from nextface.pipeline import reconstruct_file

    began = time.perf_counter()
    _guarded(
        lambda: reconstruct_file(
            photo,
            parsed.output,
            config,
            landmarks_file=parsed.landmarks,
            checkpoint=parsed.checkpoint,
            skip=parsed.skip,
        ),
        parsed.output / photo.name,
    )
    print(_done(photo, time.perf_counter() - began, parsed.output))


def _export(parsed: argparse.Namespace) -> int:
    _check_output(parsed.output)
    set_threads(OptimConfig(), os.environ)
    from nextface.export import export_scene

    def export() -> None:
        for path in export_scene(parsed.scene, parsed.output, parsed.only, parsed.input):
            print(path)

    _guarded(export, parsed.output)
    return 0


def _prior(parsed: argparse.Namespace) -> int:
    """Pictures one by one; a failure is told and the rest goes on, unless there is but one."""
    config = arguments.read_config(parsed)
    logging.getLogger("nextface").setLevel(logging.INFO if config.verbose else logging.WARNING)
    files = {option: _photos(path, option) for option, path in parsed.pictures.items()}
    _check_output(parsed.output)
    set_threads(config, os.environ)
    from nextface import prior_commands

    rows = []
    for outcome in prior_commands.run(parsed, files, config):
        for path in outcome.written:
            print(path)
        failure = ""
        if outcome.error is not None:
            error = _translated(outcome.error, parsed.output)
            if sum(map(len, files.values())) == 1:
                raise error
            failure = _told(outcome.picture, error)
        rows.append((outcome.picture.name, failure, outcome.seconds))
    return _summary(rows, f"pictures done, results in {parsed.output}") if len(rows) > 1 else 0


def _train_prior(parsed: argparse.Namespace) -> int:
    logging.getLogger("nextface").setLevel(logging.INFO)
    _check_output(parsed.output)
    set_threads(parsed.settings, os.environ)
    from nextface.prior.train.loop import train
    from nextface.prior.train.stages import Start

    start = Start(tuple(parsed.start), parsed.identity)

    def run() -> None:
        path = train(parsed.stage, parsed.settings, parsed.output, start, published=parsed.published, quiet=False)
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, one speaks
            print(path)

    _guarded(run, parsed.output)
    return 0


def _guarded(work: Callable[[], object], folder: Path) -> None:
    """Run `work`; failures of the machine become errors that say what to do."""
    try:
        work()
    except (OSError, MemoryError) as error:
        translated = _translated(error, folder)
        if translated is error:
            raise
        raise translated from error


def _translated(error: Exception, folder: Path) -> Exception:
    """The error that says what to do about a failure of the machine, or the same error."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            return _output_error(Path(error.filename) if error.filename else folder, error)
    elif isinstance(error, MemoryError):
        return OutputError("out of memory; lower maxResolution or textureResolution")
    return error


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{path}: the disk is full; free some space and run the same command again, complete stages are kept"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return OutputError(f"{path}: is a file, not a folder; choose another --output")
    return OutputError(
        f"{path}: cannot be written ({error.strerror}); choose another --output or change its permissions"
    )


def _say_error(error: NextfaceError) -> None:
    print("nextface: error: " + " ".join(str(error).split()), file=sys.stderr)


class _StderrHandler(logging.Handler):
    """Log lines on stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        line = f"nextface: {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)
