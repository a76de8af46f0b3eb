"""Networks of whole images."""

from __future__ import annotations

import pytest
import torch

from dense_imb.models import build_classifier_network
from dense_imb.models.classifiers import CosineHead


def small(**options):
    return build_classifier_network(
        "resnet32", in_channels=3, n_classes=4, **{"depth": 8, "width": 4, **options}
    )


def test_it_has_a_body_and_a_head():
    network = small().eval()
    frames = torch.randn(2, 3, 20, 28)
    features = network.features(frames)
    assert features.shape == (2, 16)
    torch.testing.assert_close(network.head(features), network(frames))


def test_depth_is_the_number_of_layers_with_weights():
    for depth in (8, 20, 32):
        network = small(depth=depth)
        layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
        assert len(layers) == depth


def test_cosines_know_no_lengths():
    head = CosineHead(5, 3, scale=7.0)
    features = torch.randn(4, 5)
    torch.testing.assert_close(head(features), head(10 * features))
    before = head(features)
    head.weight.data *= torch.tensor([[1.0], [5.0], [0.1]])
    torch.testing.assert_close(head(features), before)
    assert head(features).abs().max() <= 7


def test_a_resized_frame_keeps_the_size_of_the_answer():
    assert small(head="cosine")(torch.randn(2, 3, 33, 65)).shape == (2, 4)


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:mobilenetv3_small_050"])
def test_timm_networks_start_untrained(name, monkeypatch):
    timm = pytest.importorskip("timm")
    given = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **o: given.append(o) or create(*a, **o))
    network = build_classifier_network(name, in_channels=3, n_classes=5).eval()
    assert network(torch.randn(2, 3, 48, 48)).shape == (2, 5)
    assert given[0]["pretrained"] is False


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("resnet33", {}, "Did you mean 'resnet32'"),
        ("fast_unet", {}, "network of whole images"),
        ("timm:resnet81", {}, "one of timm's networks, got 'resnet81'"),
        ("timm:hf-hub:somebody/weights", {}, "one of timm's networks"),
        ("timm:local-dir:/tmp", {}, "one of timm's networks"),
        ("timm:resnet18", {"checkpoint_path": "evil.pt"}, "would load a file .*; drop it"),
        ("timm:resnet18", {"colour": 3}, "options that timm:resnet18 takes"),
        ("resnet32", {"dept": 32}, "Did you mean 'depth'"),
        ("resnet32", {"depth": 33}, "6 n \\+ 2"),
        ("resnet32", {"head": "round"}, "linear or cosine"),
        ("resnet32", {"scale": 16.0}, "linear head takes no `scale`; drop it"),
    ],
)
def test_bad_names_and_options_are_refused(name, options, sentence):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises((ValueError, TypeError), match=sentence):
        build_classifier_network(name, in_channels=3, n_classes=4, **options)


def test_frames_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"frames \(batch, 3, height, width\)"):
        small()(torch.randn(2, 1, 32, 32))
