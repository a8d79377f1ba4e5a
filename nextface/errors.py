"""Errors a user can mend. Each message names the thing that is wrong and the remedy."""

from __future__ import annotations


class NextfaceError(Exception):
    """Base of every expected failure. The command line prints its text on one line and exits with `exit_code`."""

    exit_code = 1


class ConfigError(NextfaceError):
    """A setting is unknown, of the wrong type or impossible."""

    exit_code = 2


class InputError(NextfaceError):
    """An input file is missing, unreadable or unusable: a photo, a landmark file, a saved scene."""

    exit_code = 3


class NoFaceError(InputError):
    """No face was found in a photo."""


class ModelError(NextfaceError):
    """The morphable model's files are missing, truncated or of another layout."""

    exit_code = 4


class MissingPackageError(NextfaceError):
    """An optional package is not installed; the message carries the command that installs it."""

    exit_code = 5


class OutputError(NextfaceError):
    """A result could not be written: a folder without permission, a full disk."""

    exit_code = 6


class FitError(NextfaceError):
    """The optimisation diverged; the last good scene is kept on disk."""

    exit_code = 7
