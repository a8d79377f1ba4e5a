"""Settings in an ini file: typed, validated, explained. Imports nothing heavy, so that they can be read before torch."""

from __future__ import annotations

import codecs
import difflib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from nextface.errors import ConfigError

logger = logging.getLogger(__name__)
Self = TypeVar("Self", bound="IniSettings")


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


def setting(default: Any, group: str, text: str, **limits: Any) -> Any:
    """A field that is an ini key. limits: `choices`, or `minimum` and `maximum`"""
    return field(default=default, metadata={"group": group, "help": text, **limits})


def weight(default: float, group: str, text: str) -> Any:
    """A field that is an ini key for a number of at least 0."""
    return setting(default, group, text, minimum=0.0)


@dataclass(frozen=True)
class IniSettings:
    """Settings of which every field made by `setting` is an ini key: a field `iter_step1` is the key `iterStep1`.

    aliases:        other spellings of a key
    without_effect: keys that are accepted and ignored with a warning
    header:         first line of the file that `as_ini` writes
    """

    aliases: ClassVar[Mapping[str, str]] = {}
    without_effect: ClassVar[frozenset[str]] = frozenset()
    header: ClassVar[str] = "settings"

    def __post_init__(self) -> None:
        for each in settings_of(type(self)):
            value = getattr(self, each.name)
            try:
                value = each.coerce(value)
            except ValueError:
                raise _refused(each, value, "") from None
            if not each.allows(value):
                raise _refused(each, value, "")
            object.__setattr__(self, each.name, value)

    @classmethod
    def from_ini(cls: type[Self], path: Path | str) -> Self:
        """Read an ini file as NextFace's users write it. Raises ConfigError."""
        return cls().with_texts(read_ini(path), f"{path}: ")

    def with_texts(self: Self, texts: Mapping[str, str], origin: str = "") -> Self:
        """These settings with ini keys set from text.

        texts: key (any accepted spelling) to text; origin: begins the error message, e.g. "my.ini: ".
        """
        return replace(self, **self.parsed(texts, origin))

    def parsed(self, texts: Mapping[str, str], origin: str = "") -> dict[str, Any]:
        """Field name to typed value of ini keys given as text. Raises ConfigError."""
        known = {each.key: each for each in settings_of(type(self))}
        values: dict[str, Any] = {}
        unused = []
        for given, text in texts.items():
            key = self.aliases.get(given, given)
            if key in self.without_effect:
                unused.append(key)
                continue
            if key not in known:
                raise ConfigError(f"{origin}unknown setting '{given}'{self.suggestion(given)}")
            try:
                value = known[key].parse(text)
            except (ValueError, KeyError):
                raise _refused(known[key], text, origin) from None
            if not known[key].allows(value):
                raise _refused(known[key], text, origin)
            values[known[key].name] = value
        if unused:
            logger.warning("%ssettings without effect in this renderer, ignored: %s", origin, ", ".join(unused))
        return values

    @classmethod
    def suggestion(cls, given: str) -> str:
        """The end of a message about an unknown key: the nearest one, if any is near."""
        keys = [*(each.key for each in settings_of(cls)), *cls.aliases, *cls.without_effect]
        known = {name.lower(): name for name in keys}
        near = difflib.get_close_matches(given.lower().replace("_", "").replace("-", ""), known, n=1, cutoff=0.6)
        return f"; did you mean '{known[near[0]]}'?" if near else "; " + cls.listed()

    @classmethod
    def listed(cls) -> str:
        """Where a user finds every key, in words."""
        return "--help lists every setting"

    def as_keys(self) -> dict[str, Any]:
        """Every ini key with its value."""
        return {each.key: getattr(self, each.name) for each in settings_of(type(self))}

    def as_ini(self) -> str:
        """The text of an ini file that holds these settings, one line of explanation each."""
        lines = [f"# {self.header}"]
        group = ""
        for each in settings_of(type(self)):
            if each.group != group:
                group = each.group
                lines += ["", f"# {group}"]
            value = getattr(self, each.name)
            if each.kind is str:
                value = f'"{value}"' if "'" in value else f"'{value}'"
            lines.append(f"{each.key} = {value}  # {each.help}")
        return "\n".join(lines) + "\n"


def settings_of(kind: type[IniSettings]) -> tuple[Setting, ...]:
    """All ini keys of a class of settings, in the order of its fields."""
    return tuple(
        Setting(key=_key(item.name), name=item.name, default=item.default, **item.metadata)
        for item in fields(kind)
        if item.metadata
    )


def read_ini(path: Path | str) -> dict[str, str]:
    """Key to text of an ini file, in UTF-8, UTF-16 or Windows-1252. Raises ConfigError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the settings cannot be read ({error.strerror}); give an existing file") from error
    return parse_ini(_decode(data), str(path))


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
