"""Weights in files: those of the published code (`.pth`) and ours (safetensors). No code in a file is ever run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nextface.errors import InputError, OutputError
from nextface.prior.discriminators import ProjectedDiscriminator
from nextface.prior.fusion import DOMAINS, FusedNet

COMPUTED = (".attn_mask", ".relative_position_index")  # ends of keys that follow from the settings: never read
NAMED = 5  # keys that an error names of each kind
_IMAGENET_PLACES = {"conv_stem": "layer0.0", "bn1": "layer0.1"} | {
    f"blocks.{number}": place
    for number, place in enumerate(("layer0.3", "layer0.4", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1"))
}


def load_weights(module: nn.Module, path: Path | str, fresh: tuple[str, ...] = ()) -> None:
    """Put a file's weights into a network, all of them or none.

    fresh: beginnings of keys that the file may lack altogether; those weights stay as they are. `("fuse_convs_dict.",)`
           starts a swapper from an auto-encoder's file.
    Raises InputError that names the keys that are missing, unexpected or of another shape.
    """
    put_weights(module, read_weights(path), path, fresh)


def put_weights(
    module: nn.Module, weights: Mapping[str, Tensor], source: Path | str, fresh: tuple[str, ...] = ()
) -> None:
    """`load_weights` for weights already read; `source` names them in errors."""
    own = {key: tensor for key, tensor in module.state_dict().items() if not key.endswith(COMPUTED)}
    given = {key: tensor for key, tensor in weights.items() if not key.endswith(COMPUTED)}
    fresh = tuple(start for start in fresh if not any(key.startswith(start) for key in given))
    faults = {
        "missing": [key for key in own if key not in given and not key.startswith(fresh)],
        "unexpected": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {list(given[key].shape)}, not {list(own[key].shape)}"
            for key in own
            if key in given and own[key].shape != given[key].shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in faults.items() if keys)
        raise InputError(
            f"{source}: these are not the weights of a {type(module).__name__} of this size ({listed}); "
            "give the checkpoint of this network, or the settings it was made with"
        )
    module.load_state_dict(given, strict=False)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a `.pth` or safetensors file by key, on the CPU.

    Of the two sets in the published code's files the moving average `params_ema` is taken, else `params`; a file
    without either is a flat state dict. `module.` before keys is dropped. Raises InputError.
    """
    path = Path(path)
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    weights = content.get("params_ema", content.get("params", content)) if isinstance(content, dict) else {}
    if not isinstance(weights, dict) or not weights:
        raise _no_weights(path)
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise _no_weights(path)
    return {key.removeprefix("module."): tensor for key, tensor in weights.items()}


def save_weights(module: nn.Module, path: Path | str, notes: Mapping[str, object]) -> None:
    """Write a safetensors file; `notes` (JSON values) travel in its header. Raises OutputError."""
    save_tensors(module.state_dict(), path, notes)


def save_tensors(tensors: Mapping[str, Tensor], path: Path | str, notes: Mapping[str, object]) -> None:
    """`save_weights` of a state dict. The same tensors and notes give the same bytes."""
    path = Path(path)
    partial = path.with_suffix(path.suffix + ".part")
    own = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    try:
        save_file(own, str(partial), metadata={"nextface": json.dumps(dict(notes))})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: weights could not be saved ({error}); check the folder and the free space"
        ) from error


def save_published(weights: Mapping[str, Tensor], average: Mapping[str, Tensor], path: Path | str) -> None:
    """Write a `.pth` file as the public code does: both state dicts, under `params` and `params_ema`. Raises OutputError."""
    path = Path(path)
    partial = path.with_suffix(path.suffix + ".part")
    sets = {"params": weights, "params_ema": average}
    content = {name: {key: each.detach().cpu().contiguous() for key, each in own.items()} for name, own in sets.items()}
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: weights could not be saved ({error}); check the folder and the free space"
        ) from error


def read_notes(path: Path | str) -> dict[str, object]:
    """What `save_weights` noted; empty for files of other origin. Raises InputError."""
    path = Path(path)
    if not _is_safetensors(path):
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get("nextface", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error
    return notes if isinstance(notes, dict) else {}


def assemble_fused(net: FusedNet, shared: Path | str, domains: Mapping[str, Path | str]) -> None:
    """Start a fused network as stage 2-sum does: one auto-encoder of all domains, and a codebook from each domain's.

    shared: a stage-1 file; domains: a stage-2 file for each of diffuse, specular, normal, roughness. The fusion network
    stays as it is. Raises InputError.
    """
    absent = [domain for domain in DOMAINS[1:] if domain not in domains]
    if absent:
        raise InputError(f"no auto-encoder was given for {', '.join(absent)}: every domain needs one")
    tables = {domain: read_weights(domains[domain]).get("quantize.embedding.weight") for domain in DOMAINS[1:]}
    load_weights(net, shared, fresh=("fusion.", *(f"quantize_{domain}." for domain in DOMAINS[1:])))
    for domain, table in tables.items():
        found = {} if table is None else {"embedding.weight": table}
        put_weights(net.codebook(domain), found, domains[domain])


def load_imagenet(discriminator: ProjectedDiscriminator, path: Path | str) -> None:
    """Fill the frozen features from timm's file of `tf_efficientnet_lite0`, less its classifier. Raises InputError."""
    renamed = {}
    for key, tensor in read_weights(path).items():
        for theirs, ours in _IMAGENET_PLACES.items():
            if key.startswith(f"{theirs}."):
                renamed[ours + key.removeprefix(theirs)] = tensor
    put_weights(discriminator.feature_network.pretrained, renamed, path)


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_safetensors(path: Path) -> object:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, UnpicklingError, SafetensorError
    ) as error:  # fmt: skip
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(
        f"{path}: not a readable checkpoint ({reason}); give a .pth or .safetensors file of weights alone"
    )


def _no_weights(path: Path) -> InputError:
    return InputError(f"{path}: holds no network weights; give a file like net_g_latest.pth or a .safetensors file")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", …" if len(keys) > NAMED else "")
