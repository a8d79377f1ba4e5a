from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from toy_prior import TOY, TOY_FUSION, TOY_SWAP

from nextface.errors import InputError, OutputError
from nextface.prior import FusedAutoencoder, FusedSwapper, Swapper, VQAutoencoder
from nextface.prior.checkpoint import (
    assemble_fused,
    load_imagenet,
    load_weights,
    read_notes,
    read_weights,
    save_weights,
)
from nextface.prior.discriminators import ProjectedDiscriminator
from nextface.prior.efficientnet import STAGES
from nextface.prior.settings import AutoencoderSettings


def autoencoder(seed: int = 0) -> VQAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VQAutoencoder(TOY)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("layout", ["average", "params", "flat", "module", "safetensors", "legacy"])
def test_layouts_of_files(layout: str, tmp_path: Path):
    state, other = autoencoder(1).state_dict(), autoencoder(2).state_dict()
    path = tmp_path / "net_g_latest.pth"
    if layout == "safetensors":
        save_file(state, str(path))
    else:
        contents = {
            "average": {"params": other, "params_ema": state},
            "params": {"params": state},
            "flat": state,
            "module": {"params_ema": {f"module.{key}": tensor for key, tensor in state.items()}},
            "legacy": {"params_ema": state},
        }
        torch.save(contents[layout], path, _use_new_zipfile_serialization=layout != "legacy")
    net = autoencoder()
    load_weights(net, path)
    assert same(net.state_dict(), state)


def test_what_follows_from_the_sizes_is_not_read(tmp_path: Path):
    net = FusedAutoencoder(TOY, TOY_FUSION)
    state = net.state_dict()
    computed = [key for key in state if key.endswith(("attn_mask", "relative_position_index"))]
    assert len(computed) == 3
    before = {key: state[key].clone() for key in computed}
    for key in computed:
        state[key] = torch.full((2, 2), 7)
    state["fusion.blocks.0.swin_blks.0.residual_group.blocks.0.attn_mask"] = torch.zeros(1)
    torch.save(state, tmp_path / "more.pth")
    torch.save({key: tensor for key, tensor in state.items() if key not in computed}, tmp_path / "less.pth")
    for name in ("more.pth", "less.pth"):
        load_weights(net, tmp_path / name)
        assert all(torch.equal(net.state_dict()[key], before[key]) for key in computed)


def test_a_wrong_file_says_which_keys_and_changes_nothing(tmp_path: Path):
    net = autoencoder()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = autoencoder(1).state_dict()
    del state["generator.blocks.0.bias"]
    state["fusion.blocks.1.bias"] = torch.zeros(5)
    state["quantize.embedding.weight"] = torch.zeros(3, 6)
    path = tmp_path / "wrong.pth"
    torch.save(state, path)
    with pytest.raises(InputError) as caught:
        load_weights(net, path)
    message = str(caught.value)
    assert "wrong.pth: these are not the weights of a VQAutoencoder" in message
    assert "1 missing: generator.blocks.0.bias;" in message
    assert "1 unexpected: fusion.blocks.1.bias;" in message
    assert "1 of another shape: quantize.embedding.weight [3, 6], not [12, 6]" in message
    assert same(net.state_dict(), before)


def test_long_lists_of_keys_are_cut(tmp_path: Path):
    torch.save(autoencoder().state_dict(), tmp_path / "ae.pth")
    with pytest.raises(InputError, match=r"\d\d missing: [^;]*, …") as caught:
        load_weights(FusedSwapper(TOY, TOY_FUSION, TOY_SWAP), tmp_path / "ae.pth")
    assert len(str(caught.value)) < 800


def test_hostile_pickle_is_not_run(tmp_path: Path):
    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"params": Hostile()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(), protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(InputError, match=f"{name}: not a readable checkpoint"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_files_that_hold_no_weights(tmp_path: Path):
    torch.save({"epoch": 3, "iter": 100, "optimizers": []}, tmp_path / "100.state")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"params": {}}, tmp_path / "empty.pth")
    for name in ("100.state", "list.pth", "empty.pth"):
        with pytest.raises(InputError, match=f"{name}: holds no network weights"):
            read_weights(tmp_path / name)


def test_unreadable_files(tmp_path: Path):
    torch.save(autoencoder().state_dict(), tmp_path / "whole.pth")
    save_file(autoencoder().state_dict(), str(tmp_path / "whole.safetensors"))
    for suffix in ("pth", "safetensors"):
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "nothing.pth").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    names = ("cut.pth", "cut.safetensors", "text.pth", "nothing.pth", "folder.pth", "absent.pth")
    for name in names:
        with pytest.raises(InputError, match=f"{name}: not a readable checkpoint"):
            read_weights(tmp_path / name)


def test_saved_weights_come_back_with_their_notes(tmp_path: Path):
    net, path = autoencoder(1), tmp_path / "prior.safetensors"
    save_weights(net.half(), path, {"crop": "ffhq", "floor": [0.05, 0.06]})
    loaded = autoencoder()
    load_weights(loaded, path)
    assert all(torch.equal(loaded.state_dict()[key], tensor.float()) for key, tensor in net.state_dict().items())
    assert read_notes(path) == {"crop": "ffhq", "floor": [0.05, 0.06]}
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    assert read_notes(tmp_path / "theirs.pth") == {}
    with pytest.raises(OutputError, match="could not be saved"):
        save_weights(net, tmp_path / "absent" / "prior.safetensors", {})


def test_a_swapper_starts_from_an_autoencoder(tmp_path: Path):
    state = autoencoder(1).state_dict()
    torch.save({"params_ema": state}, tmp_path / "ae.pth")
    swapper = Swapper(TOY, TOY_SWAP)
    before = swapper.fuse_convs_dict["16"].encode_enc.conv1[1].weight.clone()
    load_weights(swapper, tmp_path / "ae.pth", fresh=("fuse_convs_dict.",))
    assert all(torch.equal(swapper.state_dict()[key], tensor) for key, tensor in state.items())
    assert torch.equal(swapper.fuse_convs_dict["16"].encode_enc.conv1[1].weight, before)
    incomplete = swapper.state_dict()
    del incomplete["fuse_convs_dict.16.encode_enc.conv1.1.weight"]
    torch.save(incomplete, tmp_path / "incomplete.pth")
    with pytest.raises(InputError, match="1 missing: fuse_convs_dict.16.encode_enc.conv1.1.weight"):
        load_weights(swapper, tmp_path / "incomplete.pth", fresh=("fuse_convs_dict.",))


def test_a_fused_net_is_assembled_from_five_autoencoders(tmp_path: Path):
    names = ("shared", "diffuse", "specular", "normal", "roughness")
    states = {name: autoencoder(seed).state_dict() for seed, name in enumerate(names, start=1)}
    for name, state in states.items():
        torch.save({"params_ema": state}, tmp_path / f"{name}.pth")
    paths = {name: tmp_path / f"{name}.pth" for name in names[1:]}
    net = FusedAutoencoder(TOY, TOY_FUSION)
    assemble_fused(net, tmp_path / "shared.pth", paths)
    assert all(torch.equal(net.state_dict()[key], tensor) for key, tensor in states["shared"].items())
    for name in names[1:]:
        assert torch.equal(net.codebook(name).table, states[name]["quantize.embedding.weight"])
    with pytest.raises(InputError, match="given for roughness"):
        assemble_fused(net, tmp_path / "shared.pth", {name: paths[name] for name in names[1:4]})
    torch.save({"decoder.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth.*1 missing: embedding.weight"):
        assemble_fused(net, tmp_path / "shared.pth", {**paths, "normal": tmp_path / "other.pth"})


def test_a_file_of_other_sizes(tmp_path: Path):
    larger = AutoencoderSettings(32, 16, (1, 2), 1, (16,), 12, 6, 4)
    torch.save(VQAutoencoder(larger).state_dict(), tmp_path / "larger.pth")
    with pytest.raises(
        InputError, match=r"of another shape: encoder.blocks.0.weight \[16, 3, 3, 3\], not \[8, 3, 3, 3\]"
    ):
        load_weights(autoencoder(), tmp_path / "larger.pth")


def test_imagenet_weights_of_timm(tmp_path: Path):
    """The layer names of timm's network; its head, which is not used here, is left out."""
    discriminator, source = ProjectedDiscriminator(), ProjectedDiscriminator()
    places = {"layer0.0": "conv_stem", "layer0.1": "bn1"}
    stages = ("layer0.3", "layer0.4", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1")
    assert len(stages) == len(STAGES)
    places |= {place: f"blocks.{number}" for number, place in enumerate(stages)}
    theirs = {}
    for key, tensor in source.feature_network.pretrained.state_dict().items():
        place = ".".join(key.split(".")[:2])
        theirs[key.replace(place, places[place], 1)] = tensor
    torch.save({**theirs, "conv_head.weight": torch.zeros(1), "bn2.weight": torch.zeros(1)}, tmp_path / "lite0.pth")
    load_imagenet(discriminator, tmp_path / "lite0.pth")
    features, expected = discriminator.feature_network.pretrained, source.feature_network.pretrained
    assert same(features.state_dict(), expected.state_dict())
    del theirs["conv_stem.weight"]
    torch.save(theirs, tmp_path / "incomplete.pth")
    with pytest.raises(InputError, match="1 missing: layer0.0.weight"):
        load_imagenet(discriminator, tmp_path / "incomplete.pth")
