"""Writing results so that a file is either whole or absent."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from nextface.errors import OutputError

_NO_RIGHT = "you may not write there; choose another folder with --output"
_BLOCKED = "a file or folder of that name is in the way; move it or choose another folder with --output"
_FULL = "the disk is full; free some space, then export the saved scene again"
_REMEDIES = {
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: "that disk is read-only; choose another folder with --output",
    errno.ENOSPC: _FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): _FULL,  # quotas have no error number on Windows
    errno.ENOTDIR: _BLOCKED,
    errno.EEXIST: _BLOCKED,
    errno.EISDIR: _BLOCKED,
    errno.ENAMETOOLONG: "the path is too long; choose a shorter folder with --output",
}


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to `path` through a `.part` file; parents are made. Raises OutputError naming file and remedy."""
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass  # the folder itself is out of reach: the first error says why
        remedy = _REMEDIES.get(error.errno or 0, "check the folder and the free space")
        raise OutputError(f"{path}: could not be written ({error.strerror or error}): {remedy}") from error
    return path


def write_json(path: Path, content: object) -> Path:
    """Indented UTF-8 JSON; infinite and undefined numbers become null."""
    return write_bytes(path, (json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n").encode())


def _plain(value: object) -> object:
    """The same value in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return str(value)
