"""The scene: frames, units, batches, saving and loading."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from synthetic_photo import known_scene

from nextface.errors import InputError, OutputError
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.skin import statistical_maps
from nextface.scene import FORMAT, Scene, to_camera


@pytest.fixture
def scene(toy: MorphableModel) -> Scene:
    return known_scene(toy, seed=1)


@pytest.fixture
def mapped(scene: Scene, toy: MorphableModel) -> Scene:
    return replace(scene, maps=statistical_maps(scene, toy, 64))


def same(first: Scene, second: Scene) -> bool:
    one, other = first.state(), second.state()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_frontal_head_stands_upright_in_the_picture(toy: MorphableModel):
    """Model x to the subject's left is the picture's right; up is up; the nose is nearer than the ears."""
    scene = replace(known_scene(toy, strength=0.0), rotation=torch.zeros(1, 3), expression=torch.zeros(1, 3))
    vertices = scene.vertices_camera(toy)
    pixels = Camera.of(scene).project(vertices)[0]
    leftmost, top, nose = toy.mean[:, 0].argmax(), toy.mean[:, 1].argmax(), toy.mean[:, 2].argmax()
    middle = pixels.mean(0)
    assert pixels[leftmost, 0] > middle[0]
    assert pixels[top, 1] < middle[1]
    assert vertices[0, nose, 2] == vertices[0, :, 2].min()


def test_positive_yaw_turns_the_face_to_the_picture_s_right(toy: MorphableModel):
    nose = int(toy.mean[:, 2].argmax())
    scenes = [replace(known_scene(toy), rotation=torch.tensor([[0.0, angle, 0.0]])) for angle in (0.0, 0.4)]
    straight, turned = (Camera.of(scene).project(scene.vertices_camera(toy))[0, nose, 0] for scene in scenes)
    assert turned > straight + 5


def test_camera_axes():
    """OpenCV: the view frame's y and z are negated, then moved; 90° about the view's y brings z to x."""
    rotation = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]])
    placed = to_camera(torch.tensor([[[1.0, 2.0, 3.0]]]), rotation, torch.tensor([[10.0, 20.0, 500.0]]))
    assert placed.tolist() == [[[13.0, 18.0, 501.0]]]


def test_gain_is_exposure_times_white_balance(scene: Scene):
    scene = replace(scene, exposure=torch.tensor([math.log(2.0)]), white_balance=torch.tensor([[math.log(1.5), 0.0]]))
    assert torch.allclose(scene.gain(), torch.tensor([[3.0, 2.0, 2.0]]))
    assert torch.allclose(scene.radiance(), scene.light * torch.tensor([3.0, 2.0, 2.0]))


def test_a_shared_identity_serves_all_photos(scene: Scene, toy: MorphableModel):
    names = ("expression", "rotation", "translation", "focal", "principal", "light", "exposure", "white_balance")
    both = replace(
        scene, **{name: getattr(scene, name).repeat(2, *[1] * (getattr(scene, name).ndim - 1)) for name in names}
    )
    assert both.shape.shape[0] == 1
    assert both.batch == 2
    vertices = both.vertices_camera(toy)
    assert vertices.shape[0] == 2
    assert torch.allclose(vertices[1], scene.vertices_camera(toy)[0], atol=1e-3)


def test_sizes(scene: Scene):
    assert scene.batch == 1
    assert scene.bands == 5


def test_scenes_are_joined_and_taken_apart_again(scene: Scene, mapped: Scene, toy: MorphableModel, tmp_path: Path):
    """Photos of unlike size; each comes back at its own, sharing nothing with the batch."""
    other = replace(known_scene(toy, seed=2, size=80), width=120)
    both = Scene.join([scene, other])
    assert (both.batch, both.height, both.width) == (2, 96, 120)
    assert both.own_sizes() == ((96, 96), (80, 120))
    both.save(tmp_path / "both.safetensors")
    for batch in (both, both.detached(), Scene.load(tmp_path / "both.safetensors")[0]):
        for index, single in enumerate((scene, other)):
            alone = batch.select(index)
            assert same(alone, single)
            assert (alone.height, alone.width, alone.sizes) == (single.height, single.width, ())
    both.select(0).rotation.add_(1.0)
    assert torch.equal(both.rotation[:1], scene.rotation)
    again = replace(other, maps=statistical_maps(other, toy, 64))
    joined = Scene.join([mapped, again])
    assert same(joined.select(0), mapped) and same(joined.select(1), again)
    assert Scene.join([scene, scene]).sizes == ()


def test_what_a_camera_draws_ends_at_the_photo_s_own_border(scene: Scene, toy: MorphableModel):
    """A head half outside its crop is not drawn into the padding."""
    small = replace(scene, height=60, width=50)
    both = Scene.join([small, scene])
    pixels, alone = (
        CpuRasterizer().visible_triangles(each.vertices_camera(toy), toy.triangles, Camera.of(each))
        for each in (both, small)
    )
    first = pixels.image == 0
    for name in ("row", "column", "triangle", "neighbours"):
        assert torch.equal(getattr(pixels, name)[first], getattr(alone, name)), name
    assert int(pixels.row[~first].max()) > 60


def test_a_shared_identity_becomes_a_row_per_photo(scene: Scene):
    names = ("expression", "rotation", "translation", "focal", "principal", "light", "exposure", "white_balance")
    pair = replace(scene, **{name: torch.cat([getattr(scene, name)] * 2) for name in names})
    joined = Scene.join([pair, scene])
    assert joined.batch == 3 and joined.shape.shape[0] == 3
    assert all(same(joined.select(index), scene) for index in range(3))
    assert same(pair.select(1), scene)


def test_photos_that_are_not_finite_are_found(scene: Scene):
    spoilt = replace(scene, light=scene.light * torch.inf)
    assert Scene.join([scene, spoilt, scene]).finite().tolist() == [True, False, True]


def test_a_detached_scene_shares_nothing(mapped: Scene):
    mapped.rotation.requires_grad_(True)
    copy = mapped.detached()
    before = {name: tensor.clone() for name, tensor in mapped.state().items()}
    assert same(copy, mapped)
    for tensor in copy.state().values():
        assert not tensor.requires_grad
        tensor.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in mapped.state().items())


@pytest.mark.parametrize("with_maps", [False, True])
def test_saving_and_loading(with_maps: bool, scene: Scene, mapped: Scene, tmp_path: Path):
    chosen = mapped if with_maps else scene
    path = tmp_path / "scene.safetensors"
    chosen.save(path, stage="maps", losses=[1.0, 0.5], name="jürgen & co")
    loaded, header = Scene.load(path)
    assert same(loaded, chosen)
    assert (loaded.height, loaded.width) == (chosen.height, chosen.width)
    assert (header["stage"], header["losses"], header["name"]) == ("maps", [1.0, 0.5], "jürgen & co")
    assert list(tmp_path.iterdir()) == [path]


def test_views_are_saved_whole(scene: Scene, tmp_path: Path):
    """Tensors that are slices of others, or not contiguous."""
    wide = torch.randn(1, 3, 25, generator=torch.Generator().manual_seed(0))
    sliced = replace(scene, light=wide.transpose(1, 2))
    sliced.save(tmp_path / "scene.safetensors")
    assert torch.equal(Scene.load(tmp_path / "scene.safetensors")[0].light, wide.transpose(1, 2))


def test_saving_twice_keeps_the_newer(scene: Scene, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    scene.save(path)
    replace(scene, focal=2.0 * scene.focal).save(path)
    assert torch.equal(Scene.load(path)[0].focal, 2.0 * scene.focal)


def test_a_folder_that_is_not_there_is_said(scene: Scene, tmp_path: Path):
    with pytest.raises(OutputError, match="could not be saved") as caught:
        scene.save(tmp_path / "nowhere" / "scene.safetensors")
    assert caught.value.exit_code == 6


def test_not_finite_is_noticed(mapped: Scene):
    assert mapped.is_finite()
    assert mapped.maps is not None
    mapped.maps.roughness.levels[-1][0, 3, 3, 0] = float("nan")
    assert not mapped.is_finite()
    assert not replace(mapped, maps=None, exposure=torch.tensor([float("inf")])).is_finite()


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["scene.pickle", "scene.safetensors"])
def test_a_pickle_is_never_unpickled(name: str, tmp_path: Path):
    mark = tmp_path / "exploded"
    for content in (pickle.dumps(Bomb(mark)), torch_archive(mark, tmp_path)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a saved scene") as caught:
            Scene.load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not mark.exists()


def torch_archive(mark: Path, folder: Path) -> bytes:
    torch.save({"shape": Bomb(mark)}, folder / "archive.pt")
    return (folder / "archive.pt").read_bytes()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 8 + b"{}", b"plain text"])
def test_other_files_are_refused(content: bytes, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a saved scene"):
        Scene.load(path)


def test_a_missing_file_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="gone.safetensors"):
        Scene.load(tmp_path / "gone.safetensors")


def test_a_truncated_file_is_refused(mapped: Scene, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    mapped.save(path)
    content = path.read_bytes()
    for length in (4, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            Scene.load(path)


def write_header(path: Path, scene: Scene, header: dict[str, object] | str, drop: str = "") -> None:
    tensors = {name: tensor for name, tensor in scene.state().items() if name != drop}
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors, str(path), metadata={"nextface": text})


def test_another_format_is_refused(scene: Scene, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    write_header(path, scene, {"format": "nextface-scene-99", "height": 1, "width": 1})
    with pytest.raises(InputError, match="nextface-scene-99"):
        Scene.load(path)
    save_file({"weight": torch.zeros(2)}, str(path))
    with pytest.raises(InputError, match="not a scene that this version can read"):
        Scene.load(path)


def test_a_lacking_tensor_is_named(scene: Scene, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    write_header(path, scene, {"format": FORMAT, "height": 96, "width": 96}, drop="focal")
    with pytest.raises(InputError, match="lacks focal"):
        Scene.load(path)


@pytest.mark.parametrize(
    "header",
    [
        "not json",
        "[1, 2]",
        json.dumps({"format": FORMAT}),
        json.dumps({"format": FORMAT, "height": "x", "width": 3}),
        json.dumps({"format": FORMAT, "height": 3, "width": 3, "sizes": [[1]]}),
    ],
)
def test_a_spoilt_header_is_refused(header: str, scene: Scene, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    write_header(path, scene, header)
    with pytest.raises(InputError, match="scene.safetensors"):
        Scene.load(path)


def test_maps_with_lacking_levels_are_refused(mapped: Scene, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    write_header(path, mapped, {"format": FORMAT, "height": 96, "width": 96}, drop="maps.specular.0")
    with pytest.raises(InputError, match="lacks levels of maps.specular"):
        Scene.load(path)


def test_nothing_of_numpy_s_pickle_is_read(tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    np.savez(path, shape=np.array([Bomb(tmp_path / "exploded")], dtype=object))
    with pytest.raises(InputError):
        Scene.load(path.with_suffix(".safetensors.npz"))
    assert not (tmp_path / "exploded").exists()
