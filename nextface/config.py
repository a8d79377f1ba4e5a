"""Settings: NextFace's ini as a typed, validated dataclass. Imports nothing heavy, so that it can be read before torch."""

from __future__ import annotations

import codecs
import difflib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from nextface import gpu
from nextface.errors import ConfigError

logger = logging.getLogger(__name__)

STOCK_FOCAL = 3000.0
"""NextFace's shipped camFocalLength: it says nothing about the photo's camera."""


@dataclass(frozen=True)
class Setting:
    """One ini key: its dataclass field, default, explanation and the values it takes."""

    key: str
    name: str
    default: Any
    help: str
    group: str
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None

    @property
    def kind(self) -> type:
        return type(self.default)

    def accepted(self) -> str:
        """The accepted set in words."""
        if self.choices is not None:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.kind is bool:
            return "True or False"
        if self.kind is str:
            return "text"
        noun = "a whole number" if self.kind is int else "a number"
        if self.minimum is None:
            return noun
        low = f"{self.minimum:g}"
        return f"{noun} of at least {low}" if self.maximum is None else f"{noun} from {low} to {self.maximum:g}"

    def parse(self, text: str) -> Any:
        """The typed value of an ini or command line text; raises ValueError."""
        if self.kind is str:
            return text
        if self.kind is bool:
            return {
                "true": True,
                "1": True,
                "yes": True,
                "on": True,
                "false": False,
                "0": False,
                "no": False,
                "off": False,
            }[text.lower()]
        number = float(text)
        return self.coerce(number)

    def coerce(self, value: Any) -> Any:
        """The value as this setting's type, 512.0 as 512; raises ValueError for anything else."""
        if self.kind is float and type(value) is int:
            return float(value)
        if self.kind is int and type(value) is float and value.is_integer():
            return int(value)
        if type(value) is not self.kind:
            raise ValueError(value)
        return value

    def allows(self, value: Any) -> bool:
        if self.choices is not None:
            return value in self.choices
        if self.kind in (int, float):
            low, high = self.minimum, self.maximum
            return math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        return True


def _key(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _setting(default: Any, group: str, text: str, **limits: Any) -> Any:
    return field(default=default, metadata={"group": group, "help": text, **limits})


def _weight(default: float, group: str, text: str) -> Any:
    return _setting(default, group, text, minimum=0.0)


@dataclass(frozen=True)
class OptimConfig:
    """Every setting of a run. A field `iter_step1` is the ini key `iterStep1`; the metadata of each field explains it.

    from_command_line: names of the fields that the user set for this run alone; a focal length given there outranks EXIF.
    """

    device: str = _setting(
        "cuda", "compute", "'cuda' or 'cpu'; falls back to cpu with a warning", choices=("cuda", "cpu")
    )
    batch_size: int = _setting(
        1, "compute", "photos of a folder that are fitted at a time; the results stay the same", minimum=1, maximum=1024
    )
    threads: int = _setting(0, "compute", "CPU threads, 0 = all cores", minimum=0, maximum=1024)
    seed: int = _setting(
        0, "compute", "seed of everything random; same seed, same result on CPU", minimum=0, maximum=2**53
    )

    landmarks_detector_type: str = _setting(
        "mediapipe",
        "landmarks",
        "'mediapipe' or 'fan' (needs the package face-alignment)",
        choices=("mediapipe", "fan"),
    )
    landmarks_model: str = _setting(
        "",
        "landmarks",
        "path of a face_landmarker.task for MediaPipe's Tasks API, empty = the models in MediaPipe's wheel",
    )

    path: str = _setting(
        "./baselMorphableModel", "morphable model", "folder of the model files; its content picks the model"
    )
    texture_resolution: int = _setting(
        512, "morphable model", "side of the skin maps in texels", choices=(256, 512, 1024, 2048, 4096)
    )
    trim_pca: bool = _setting(False, "morphable model", "keep only the first 80 components of each basis")

    bands: int = _setting(
        9, "light", "spherical-harmonic bands of the light, bands² coefficients", minimum=1, maximum=20
    )
    self_shadowing: bool = _setting(
        True, "light", "the head shadows itself; False renders faster, and cast shadows stay in the albedo"
    )
    env_map_res: int = _setting(64, "light", "height of the exported environment map", minimum=4, maximum=4096)
    smooth_sh: bool = _setting(True, "light", "low-pass the light before it is exported as an environment map")
    save_exr: bool = _setting(False, "light", "environment map as EXR instead of PNG")

    max_resolution: int = _setting(
        256,
        "image",
        "longest side of the fitted crop in pixels; larger faces are scaled down",
        minimum=32,
        maximum=8192,
    )

    cam_focal_length: float = _setting(
        STOCK_FOCAL,
        "camera",
        "focal length in pixels of the photo scaled to maxResolution; 3000 = unknown, taken from EXIF or a 50 mm portrait lens",
        minimum=1.0,
        maximum=1e7,
    )
    optimize_focal_length: bool = _setting(True, "camera", "refine the focal length; False keeps it as given")

    iter_step1: int = _setting(2000, "optimization", "upper bound of the pose stage's steps", minimum=0, maximum=10**7)
    iter_step2: int = _setting(400, "optimization", "iterations of the statistical stage", minimum=0, maximum=10**7)
    iter_step3: int = _setting(100, "optimization", "iterations of the maps stage", minimum=0, maximum=10**7)
    weight_landmarks_loss_step2: float = _weight(
        0.001, "optimization", "weight of the landmarks in the statistical stage"
    )
    weight_landmarks_loss_step3: float = _weight(
        0.001, "optimization", "kept for NextFace's files; without effect, since the maps stage does not move the mesh"
    )
    weight_shape_reg: float = _weight(0.001, "optimization", "pull of the shape coefficients towards the mean")
    weight_expression_reg: float = _weight(0.001, "optimization", "pull of the expression coefficients towards neutral")
    weight_albedo_reg: float = _weight(0.001, "optimization", "pull of the albedo coefficients towards the mean")

    weight_diffuse_symmetry_reg: float = _weight(
        300.0, "diffuse map", "left-right symmetry; more (1200) for harsh shadows"
    )
    weight_diffuse_consistency_reg: float = _weight(100.0, "diffuse map", "chroma stays near the statistical map's")
    weight_diffuse_smoothness_reg: float = _weight(0.001, "diffuse map", "smoothness")
    weight_specular_symmetry_reg: float = _weight(
        200.0, "specular map", "left-right symmetry; more (300) for harsh shadows"
    )
    weight_specular_consistency_reg: float = _weight(2.0, "specular map", "stays near the statistical map")
    weight_specular_smoothness_reg: float = _weight(0.001, "specular map", "smoothness")
    weight_roughness_symmetry_reg: float = _weight(
        200.0, "roughness map", "left-right symmetry; more (300) for harsh shadows"
    )
    weight_roughness_consistency_reg: float = _weight(0.0, "roughness map", "stays near the statistical map")
    weight_roughness_smoothness_reg: float = _weight(0.002, "roughness map", "smoothness")

    debug_frequency: int = _setting(
        30, "debug", "a debug image every so many iterations, 0 = none", minimum=0, maximum=10**7
    )
    save_intermediate_stage: bool = _setting(False, "debug", "export the results of stages 1 and 2 too")
    verbose: bool = _setting(False, "debug", "log losses and details")

    from_command_line: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for setting in settings():
            value = getattr(self, setting.name)
            try:
                value = setting.coerce(value)
            except ValueError:
                raise _refused(setting, value, "") from None
            if not setting.allows(value):
                raise _refused(setting, value, "")
            object.__setattr__(self, setting.name, value)

    @classmethod
    def from_ini(cls, path: Path | str) -> OptimConfig:
        """Read an ini file as NextFace's users write it. Raises ConfigError."""
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path}: the settings cannot be read ({error.strerror}); give an existing file"
            ) from error
        return cls().with_texts(parse_ini(_decode(data), str(path)), f"{path}: ")

    def with_texts(self, texts: Mapping[str, str], origin: str = "", command_line: bool = False) -> OptimConfig:
        """This config with ini keys set from text.

        texts: key (any accepted spelling) to text; origin: begins the error message, e.g. "my.ini: ".
        """
        known = {setting.key: setting for setting in settings()}
        values: dict[str, Any] = {}
        unused = []
        for given, text in texts.items():
            key = ALIASES.get(given, given)
            if key in WITHOUT_EFFECT:
                unused.append(key)
                continue
            if key not in known:
                raise ConfigError(f"{origin}unknown setting '{given}'{suggestion(given)}")
            setting = known[key]
            try:
                value = setting.parse(text)
            except (ValueError, KeyError):
                raise _refused(setting, text, origin) from None
            if not setting.allows(value):
                raise _refused(setting, text, origin)
            values[setting.name] = value
        if unused:
            logger.warning("%ssettings without effect in this renderer, ignored: %s", origin, ", ".join(unused))
        given_now = self.from_command_line | frozenset(values) if command_line else self.from_command_line
        return replace(self, **values, from_command_line=given_now)

    def as_keys(self) -> dict[str, Any]:
        """Every ini key with its value."""
        return {setting.key: getattr(self, setting.name) for setting in settings()}

    def as_ini(self) -> str:
        """The text of an ini file that holds these settings, one line of explanation each."""
        lines = ["# nextface settings; every key can also be given on the command line, e.g. --iterStep2 100"]
        group = ""
        for setting in settings():
            if setting.group != group:
                group = setting.group
                lines += ["", f"# {group}"]
            value = getattr(self, setting.name)
            if setting.kind is str:
                value = f'"{value}"' if "'" in value else f"'{value}'"
            lines.append(f"{setting.key} = {value}  # {setting.help}")
        return "\n".join(lines) + "\n"


@cache
def settings() -> tuple[Setting, ...]:
    """All ini keys in the order of the shipped file."""
    return tuple(
        Setting(key=_key(item.name), name=item.name, default=item.default, **item.metadata)
        for item in fields(OptimConfig)
        if item.metadata
    )


ALIASES = {"lamdmarksDetectorType": "landmarksDetectorType", "tracker": "landmarksDetectorType"}
"""Other spellings of a key in the ini files that NextFace's users have."""

WITHOUT_EFFECT = frozenset(
    ("rtSamples", "rtTrainingSamples", "bounces", "smoothing", "rendererName", "debugOutput", "saveTime")
)
"""NextFace's path-tracing and bookkeeping keys: accepted, nothing to set here."""


def suggestion(given: str) -> str:
    """The end of a message about an unknown key: the nearest one, if any is near."""
    known = {name.lower(): name for name in [*(setting.key for setting in settings()), *ALIASES, *WITHOUT_EFFECT]}
    near = difflib.get_close_matches(given.lower().replace("_", "").replace("-", ""), known, n=1, cutoff=0.6)
    return f"; did you mean '{known[near[0]]}'?" if near else "; optimConfig.ini lists every setting"


def parse_ini(text: str, name: str) -> dict[str, str]:
    """Lines `key = value` with `#` comments, with or without quotes and section headers; a later line wins.

    name: of the file, for messages.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;[":
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{name}, line {number}: '{line[:60]}' is not 'key = value'; mend it or start it with #")
        values[key.strip()] = _unquote(value.strip(), f"{name}, line {number}")
    return values


def _unquote(value: str, where: str) -> str:
    """The value without quotes and inline comment; a # within quotes belongs to the value."""
    quote = value[:1]
    if quote not in ("'", '"') or not quote:
        return value.partition("#")[0].strip()
    inner, closed, rest = value[1:].partition(quote)
    if not closed or (rest.strip() and not rest.strip().startswith("#")):
        raise ConfigError(f"{where}: the quotes of {value[:60]} do not match; write {quote}value{quote}")
    return inner


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _refused(setting: Setting, value: Any, origin: str) -> ConfigError:
    return ConfigError(f"{origin}{setting.key} = {value} is not possible; it takes {setting.accepted()}")


def fallback_device(config: OptimConfig) -> str:
    """The device that the run uses: 'cuda' falls back to 'cpu' where no GPU can be used, said once."""
    if config.device != "cuda" or gpu.missing() is None:
        return config.device
    _warn_no_cuda()
    return "cpu"


@cache
def _warn_no_cuda() -> None:
    logger.warning("device 'cuda': running on the cpu, since %s", gpu.missing())
