"""The command line's words: NextFace's flags, every ini key, `export`, `prior` and `train-prior`. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from nextface import paths, train_config
from nextface.config import ALIASES, WITHOUT_EFFECT, OptimConfig, settings
from nextface.errors import ConfigError
from nextface.ini import Setting, read_ini, settings_of

DESCRIPTION = "From one photo of a face to a relightable 3D head: mesh, light and skin maps."
EPILOG = (
    "`nextface export --help` tells how to write results again from a saved scene, `nextface prior --help` how to ask the "
    "reflectance prior by itself, `nextface train-prior --help` how to train it."
)
STAGES = (1, 2, 3)
PRIOR_COMMANDS = {
    "reconstruct": "what the prior makes of pictures: encoded, put on its codes and decoded",
    "swap": "the identity of photos, put into crops of reflectance or into whole skin maps",
}
PRIOR_DOMAINS = {"photo": "shared"} | {name: name for name in ("diffuse", "specular", "roughness", "normal")}
"""What pictures may show, and its name among the prior's domains."""
_PRIOR_KEYS = ("device", "threads", "landmarksDetectorType", "landmarksModel", "verbose")


class _Parser(argparse.ArgumentParser):
    """Errors as one line, like every other."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help lists the options")


def parse_run(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The options of a reconstruction. Ini keys are gathered in `texts`, key to text."""
    usage = "%(prog)s --input PATH [--output DIR] [options] [--KEY VALUE ...]"
    parser = _Parser(prog=program, usage=usage, description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--input", required=True, type=Path, metavar="PATH", help="photo, or folder of photos")
    parser.add_argument(
        "--output", type=Path, default=Path("output"), metavar="DIR", help="folder of the results (output)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings; optimConfig.ini of this folder if there is one"
    )
    parser.add_argument(
        "--landmarks", type=Path, metavar="FILE", help="landmarks instead of detection: JSON, NPY or pts"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="saved scene (.safetensors) to start from")
    parser.add_argument("--sharedIdentity", action="store_true", help="all photos of the folder show one person")
    for stage, name in zip(STAGES, ("pose", "statistical", "maps"), strict=True):
        parser.add_argument(f"--skipStage{stage}", action="store_true", help=f"leave out the {name} stage")
    parser.add_argument("--version", action="version", version=f"nextface {_version()}")
    _add_settings(parser, settings(), [*ALIASES, *sorted(WITHOUT_EFFECT)])
    parsed = _parsed(parser, arguments)
    parsed.skip = frozenset(stage for stage in STAGES if getattr(parsed, f"skipStage{stage}"))
    return parsed


def parse_export(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The options of `export`."""
    parser = _Parser(
        prog=f"{program} export", description="Write results again from a saved scene.", allow_abbrev=False
    )
    parser.add_argument(
        "--scene", "--checkpoint", dest="scene", required=True, type=Path, metavar="FILE",
        help="a .safetensors file from a result's checkpoints folder",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--only", metavar="NAMES", help="comma-separated, e.g. maps,mesh,glb,photo_texture; all if left out"
    )
    parser.add_argument("--input", type=Path, metavar="PATH", help="where the photo is now, when it was moved")
    parsed = _parsed(parser, arguments)
    names = (parsed.only or "").replace(" ", "").split(",")
    parsed.only = [name for name in names if name] or None
    return parsed


def parse_train(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The options of `train-prior`; ends with `settings`, the stage's defaults overruled by the file and the words."""
    stages = "\n".join(f"  {name:9} {what}" for name, what in train_config.STAGES.items())
    parser = _Parser(
        prog=f"{program} train-prior",
        usage="%(prog)s STAGE --output DIR [--from FILE ...] [options] [--KEY VALUE ...]",
        description=f"Train one stage of the reflectance prior; docs/prior_training.md explains all.\n\nstages:\n{stages}",
        epilog="Several GPUs or processes: torchrun --nproc-per-node N -m nextface train-prior STAGE ...",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=tuple(train_config.STAGES), metavar="STAGE", help="see above")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of the training; one that was stopped goes on"
    )
    parser.add_argument(
        "--from", dest="start", nargs="+", default=[], type=Path, metavar="FILE",
        help="weights of the stage before; for fusion also those of stage 1, diffuse, specular, normal, roughness",
    )  # fmt: skip
    parser.add_argument("--identity", type=Path, metavar="FILE", help="weights of an identity encoder, for the swapper")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; an ini file")
    parser.add_argument("--published", action="store_true", help="write net_g_latest.pth as the public code does, too")
    _add_settings(parser, settings_of(train_config.TrainSettings))
    parsed = _parsed(parser, arguments)
    texts = read_ini(parsed.config) if parsed.config else {}
    preset = parsed.texts.get("preset", texts.get("preset", "small"))
    defaults = train_config.TrainSettings.of(parsed.stage, preset)
    given = defaults.parsed(texts, f"{parsed.config}: ") | defaults.parsed(parsed.texts, "command line: ")
    parsed.settings = replace(defaults, **given)
    return parsed


def parse_prior(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The options of `prior`; `command` is one of PRIOR_COMMANDS, `pictures` the paths of pictures by the word that gives them."""
    command = arguments[0] if arguments else ""
    if command not in PRIOR_COMMANDS:
        listed = "\n".join(f"  {name:12} {what}" for name, what in PRIOR_COMMANDS.items())
        parser = _Parser(
            prog=f"{program} prior",
            description=f"Ask the reflectance prior; docs/prior_inference.md explains all.\n\ncommands:\n{listed}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("command", choices=tuple(PRIOR_COMMANDS), metavar="COMMAND", help="see above")
        parser.parse_args(arguments)
    what = PRIOR_COMMANDS[command]
    parser = _Parser(prog=f"{program} prior {command}", description=f"{what[0].upper()}{what[1:]}.", allow_abbrev=False)
    {"reconstruct": _add_reconstruct, "swap": _add_swap}[command](parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--suffix", default="", metavar="TEXT", help="put after each name: NAME_TEXT.png")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="file of the prior; priorCheckpoint, else the shipped one"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; an ini file")
    _add_settings(parser, [each for each in settings() if each.key in _PRIOR_KEYS])
    parsed = _parsed(parser, arguments[1:])
    parsed.command = command
    if command == "reconstruct":
        parsed.pictures = {"INPUT": parsed.input}
    elif parsed.templates is not None:
        parsed.pictures = {"TEMPLATES": parsed.templates, "--references": parsed.references}
    elif parsed.domain or parsed.aligned in ("templates", "both"):
        raise ConfigError(
            "--domain and --aligned templates speak of TEMPLATES, which are not given; name the crops to swap"
        )
    else:
        parsed.pictures = {"--references": parsed.references}
    parsed.domain = PRIOR_DOMAINS[parsed.domain or "photo"]
    return parsed


def _add_reconstruct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="picture, or folder of pictures")
    parser.add_argument("--domain", choices=tuple(PRIOR_DOMAINS), default="photo", help="what they show (photo)")
    parser.add_argument(
        "--aligned", action="store_true", help="they are crops already; else the largest face is cut out"
    )


def _add_swap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "templates", nargs="?", type=Path, metavar="TEMPLATES",
        help="crop, or folder of crops of one domain; without it the prior's closest template becomes whole skin maps",
    )  # fmt: skip
    parser.add_argument(
        "-r", "--references", required=True, type=Path, metavar="PATH", help="photo whose identity is put in, or folder"
    )
    parser.add_argument("--domain", choices=tuple(PRIOR_DOMAINS), help="what TEMPLATES show (photo)")
    parser.add_argument(
        "--aligned", choices=("templates", "references", "both"), help="which are crops already; else faces are cut out"
    )
    parser.add_argument(
        "--identity", type=Path, metavar="FILE", help="encoder of identities; identityCheckpoint, else the prior's own"
    )


def read_config(parsed: argparse.Namespace) -> OptimConfig:
    """The ini that was named, else the one of the working folder, else the shipped one; then the command line's own keys."""
    here = Path("optimConfig.ini")
    ini = parsed.config or (here if here.is_file() else paths.default_config())
    config = OptimConfig.from_ini(ini) if parsed.config or ini.is_file() else OptimConfig()
    return config.with_texts(parsed.texts, "command line: ", command_line=True)


def _add_settings(parser: argparse.ArgumentParser, known: Sequence[Setting], hidden: Sequence[str] = ()) -> None:
    """An option for each ini key. hidden: keys that are accepted and not listed"""
    group = parser.add_argument_group("settings", "keys of the ini; what is given here outranks the file")
    for setting in known:
        switch = setting.kind is bool
        group.add_argument(
            f"--{setting.key}",
            dest=f"setting {setting.key}",
            nargs="?" if switch else None,
            const="True" if switch else None,
            metavar="|".join(map(str, filter(None, setting.choices)))
            if setting.choices
            else setting.kind.__name__.upper(),
            help=f"{setting.help} ({setting.default!r})",
        )
    for key in hidden:
        group.add_argument(f"--{key}", dest=f"setting {key}", help=argparse.SUPPRESS)


def _parsed(parser: _Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """The words by name; ini keys among them as `texts`, key to text."""
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        lower = {option.lower(): option for option in options}
        near = difflib.get_close_matches(unknown[0].split("=")[0].lower(), lower, n=1)
        hint = f"did you mean '{lower[near[0]]}'?" if near else f"{parser.prog} --help lists the options"
        raise ConfigError(f"unknown option '{unknown[0]}'; {hint}")
    given = {name.split(" ")[1]: text for name, text in vars(parsed).items() if name.startswith("setting ")}
    parsed.texts = {key: text for key, text in given.items() if text is not None}
    return parsed


def _version() -> str:
    try:
        return version("nextface")
    except PackageNotFoundError:
        return "from a checkout"
