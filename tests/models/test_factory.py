"""Networks by name: our own and those of other libraries."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch

from dense_imb.models import MODELS, Autoencoder, FastUNet, build_model
from dense_imb.models.external import Padded

CHANNELS = {"in_channels": 2, "out_channels": 3}


def test_our_own_networks_by_name():
    assert isinstance(build_model("autoencoder", **CHANNELS, frame=(8, 8)), Autoencoder)
    assert isinstance(build_model("fast_unet", **CHANNELS), FastUNet)


def test_a_frame_is_fine_where_none_is_needed():
    assert isinstance(build_model("fast_unet", **CHANNELS, frame=(8, 8)), FastUNet)


def test_settings_from_a_file_rebuild_the_network():
    settings = {"name": "fast_unet", **CHANNELS, "widths": (8, 16), "prior": 0.02}
    network = build_model(**settings)
    again = build_model(**json.loads(json.dumps(settings)))
    again.load_state_dict(network.state_dict())
    frames = torch.rand(1, 2, 9, 9)
    assert torch.equal(network(frames), again(frames))


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("fast_unit", "Did you mean 'fast_unet'?"),
        ("FastUNet", "Did you mean 'fast_unet'?"),
        ("Autoencoder", "Did you mean 'autoencoder'?"),
        ("monai", "Did you mean 'monai:UNet'?"),
        ("smp", "Expected the model to be one of"),
        ("", "Expected the model to be one of"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, cure):
    with pytest.raises(ValueError, match="Expected the model to be one of") as refusal:
        build_model(name, **CHANNELS)
    assert cure in str(refusal.value)
    assert all(model in str(refusal.value) for model in MODELS)


@pytest.mark.parametrize("name", ["autoencoder", "fast_unet"])
def test_an_unknown_option_is_refused_with_the_nearest(name):
    option = {"autoencoder": "latent", "fast_unet": "widths"}[name]
    with pytest.raises(TypeError, match=rf"got '{option}e'. Did you mean '{option}'\?"):
        build_model(name, **CHANNELS, frame=(8, 8), **{f"{option}e": 3})


def test_an_autoencoder_without_a_frame_is_refused():
    with pytest.raises(ValueError, match="Expected `frame` for 'autoencoder'"):
        build_model("autoencoder", **CHANNELS)


@pytest.mark.parametrize("name", ["autoencoder", "fast_unet", "smp:Unet/resnet18", "fast_unet2"])
def test_networks_in_2d_refuse_3d(name):
    with pytest.raises(ValueError, match=r"for volumes, got .*; take `model.name=monai:UNet`\."):
        build_model(name, **CHANNELS, spatial_dims=3)


@pytest.mark.parametrize("spatial_dims", [1, 4, "2"])
def test_other_dimensions_are_refused(spatial_dims):
    with pytest.raises(ValueError, match="Expected `spatial_dims` 2 or 3"):
        build_model("fast_unet", **CHANNELS, spatial_dims=spatial_dims)


LIBRARIES = {
    "smp:Unet/resnet18": ("segmentation_models_pytorch", "segmentation-models-pytorch"),
    "monai:UNet": ("monai.networks.nets", "monai"),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_error_of_a_missing_library_has_the_cure(name, monkeypatch):
    module, package = LIBRARIES[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module} could.* pip install '{package}>="):
        build_model(name, **CHANNELS)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_error_of_a_torchvision_for_another_torch_has_the_cure(name, monkeypatch):
    def broken(module):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ImportError, match="torchvision is made for another torch.*new environment"):
        build_model(name, **CHANNELS)


def test_another_runtime_error_of_an_import_is_not_hidden(monkeypatch):
    def broken(module):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        build_model("monai:UNet", **CHANNELS)


class Halving(torch.nn.Module):
    """Answers with a quarter of the pixels, and a pair."""

    def forward(self, frames):
        return frames[..., ::2, ::2], None


def test_a_network_that_answers_with_another_size_is_refused():
    network = Padded(Halving(), multiple=4, name="smp:Odd", in_channels=1)
    with pytest.raises(ValueError, match="Expected smp:Odd to return frames.*got.*segmentation"):
        network(torch.zeros(1, 1, 5, 7))


def test_the_first_of_several_answers_counts_and_the_padding_is_cropped():
    class Pair(torch.nn.Module):
        def forward(self, frames):
            assert frames.shape[2:] == (8, 12)
            return frames + 1, None

    network = Padded(Pair(), multiple=4, name="pair", in_channels=1)
    frames = torch.rand(1, 1, 5, 11)
    assert torch.equal(network(frames), frames + 1)


@pytest.mark.slow
@pytest.mark.parametrize("frame", [(1, 1), (37, 53)], ids=str)
@pytest.mark.parametrize(
    "name",
    ["smp:Unet/resnet18", "smp:FPN/mobilenet_v2", "smp:UnetPlusPlus", "smp:Segformer/mit_b0"],
)
def test_networks_of_smp(name, frame):
    torch.manual_seed(0)
    network = build_model(name, **CHANNELS).eval()
    assert network(torch.rand(2, 2, *frame)).shape == (2, 3, *frame)


@pytest.mark.slow
def test_options_reach_smp():
    options = {"encoder_depth": 3, "decoder_channels": [32, 16, 8]}
    network = build_model("smp:Unet/resnet18", **CHANNELS, **options)
    network(torch.rand(2, 2, 37, 53)).square().mean().backward()
    assert network.network.segmentation_head[0].in_channels == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smp:Unnet/resnet18", {}, "architectures, got 'Unnet'. Did you mean 'Unet'?"),
        ("smp:Unet/resnet81", {}, "encoders, got 'resnet81'. Did you mean 'resnet18'?"),
        ("smp:Unet/resnet18", {"encoder_wights": None}, "Did you mean 'encoder_weights'?"),
        ("smp:Unet/resnet18", {"classes": 3}, "got 'classes'"),
        ("monai:Unet", {}, "networks, got 'Unet'. Did you mean 'UNet'?"),
        ("monai:qqq", {}, "There are"),
        ("monai:UNet", {"chanels": [8, 16]}, "got 'chanels'. Did you mean 'channels'?"),
        ("monai:UNETR", {}, "Expected `frame` for 'monai:UNETR'"),
    ],
)
def test_unknown_names_and_options_of_other_libraries(name, options, message):
    with pytest.raises((ValueError, TypeError)) as refusal:
        build_model(name, **CHANNELS, **options)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


MONAI = ["UNet", "BasicUNet", "BasicUNetPlusPlus", "AttentionUnet", "SegResNet", "SegResNetDS"]
MONAI += ["DynUNet", "VNet", "HighResNet", "RegUNet", "MedNeXt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spatial_dims"),
    [*((name, 2) for name in MONAI), ("UNet", 3), ("SegResNet", 3), ("DynUNet", 3), ("VNet", 3)],
)
def test_networks_of_monai(name, spatial_dims):
    torch.manual_seed(0)
    frame = (37, 53, 9)[:spatial_dims]
    network = build_model(f"monai:{name}", **CHANNELS, spatial_dims=spatial_dims)
    answer = network(torch.rand(1, 2, *frame))
    answer.square().mean().backward()
    assert answer.shape == (1, 3, *frame)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SwinUNETR", "UNETR", "FlexibleUNet", "SegResNetVAE"])
def test_larger_networks_of_monai(name):
    if name.endswith("UNETR"):
        pytest.importorskip("einops")
    torch.manual_seed(0)
    network = build_model(f"monai:{name}", **CHANNELS, frame=(37, 53)).eval()
    assert network(torch.rand(1, 2, 37, 53)).shape == (1, 3, 37, 53)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["UNet", "BasicUNet", "SegResNet", "DynUNet"])
def test_one_pixel_through_monai(name):
    network = build_model(f"monai:{name}", **CHANNELS)
    assert network(torch.rand(1, 2, 1, 1)).shape == (1, 3, 1, 1)


@pytest.mark.slow
def test_a_network_of_a_fixed_size_refuses_another():
    pytest.importorskip("einops")
    network = build_model("monai:UNETR", **CHANNELS, frame=(37, 53))
    with pytest.raises(ValueError, match=r"Expected frames of \(37, 53\) pixels"):
        network(torch.rand(1, 2, 38, 53))


@pytest.mark.slow
def test_a_package_that_a_network_of_monai_lacks_is_named(monkeypatch):
    import monai.networks.nets

    class UNETR(torch.nn.Module):
        def __init__(self, in_channels, out_channels, hidden_size, mlp_dim):
            raise ImportError("from einops (No module named 'einops').\n\nFor details ...")

    monkeypatch.setattr(monai.networks.nets, "UNETR", UNETR)
    with pytest.raises(ImportError, match="another package, .*'einops'") as refusal:
        build_model("monai:UNETR", **CHANNELS)
    assert "\n" not in str(refusal.value)
