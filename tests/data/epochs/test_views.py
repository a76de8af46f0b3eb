"""Strong views: pure functions of their sample, and labels that stay true."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_imb.data.epochs.views import is_sparse, photometric, rand_augment, thin_and_add
from dense_imb.data.images.labelled import IGNORED

KEYS = {"seed": 3, "epoch": 5}
SAMPLES = np.arange(10, 16)


def pictures(n: int = 6, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, 12, 16), dtype=torch.uint8, generator=generator)


def frames(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    is_lit = torch.rand(n, 1, 30, 30, generator=generator) < 0.1
    pixels = torch.where(is_lit, 1 + torch.rand(is_lit.shape, generator=generator), 0)
    return pixels, 2 * is_lit[:, 0].long()


def views_of(name: str, samples):
    if name == "thin":
        pixels, label = frames()
        chosen = torch.from_numpy(samples - SAMPLES[0])
        return thin_and_add(pixels[chosen], label[chosen], samples, **KEYS)[0]
    images = pictures()[torch.from_numpy(samples - SAMPLES[0])]
    if name == "photometric":
        return photometric(images / 60.0 - 2, samples, **KEYS)
    return rand_augment(images, samples, moves=name == "moved", **KEYS)


@pytest.mark.parametrize("name", ["moved", "in place", "photometric", "thin"])
def test_a_view_depends_on_its_sample_alone(name):
    whole = views_of(name, SAMPLES)
    torch.manual_seed(7)  # whatever torch's own numbers are
    assert torch.equal(views_of(name, SAMPLES[3:]), whole[3:])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("name", ["moved", "in place", "photometric", "thin"])
def test_no_number_is_taken_from_others(name):
    before = torch.get_rng_state()
    views_of(name, SAMPLES)
    assert torch.equal(torch.get_rng_state(), before)


def test_in_place_views_leave_each_pixel_where_it_is():
    """One bright pixel is still the one that differs, whatever is done to all of them."""
    images = torch.full((40, 1, 9, 9), 60, dtype=torch.uint8)
    images[:, :, 4, 4] = 200
    samples = np.arange(40)
    for one in rand_augment(images, samples, moves=False, operations=1, magnitude=20, **KEYS):
        differs = one[0] != one[0, 0, 0]
        if differs.any():  # solarized and posterized ones may be flat
            assert differs[4, 4]
            assert differs.nonzero().sub(4).abs().max() <= 1  # sharpness looks at neighbours
    moved = rand_augment(images, samples, operations=1, magnitude=20, **KEYS)
    assert (moved[:, 0, 4, 4] < 100).any()


def test_lost_and_added_pixels_have_no_label_and_the_others_keep_theirs():
    pixels, label = frames()
    changed, left = thin_and_add(pixels, label, SAMPLES, **KEYS)
    was, now = pixels[:, 0] > 0, changed[:, 0] > 0
    differs = was != now
    assert (was & ~now).any()
    assert (now & ~was).any()
    assert torch.equal(left == IGNORED, differs)
    assert torch.equal(left[~differs], label[~differs])
    assert torch.equal(changed[:, 0][was & now], pixels[:, 0][was & now])
    assert torch.isin(changed[changed > 0], pixels).all()  # values that hits have
    assert ((was & ~now).sum((1, 2)) <= 0.4 * was.sum((1, 2))).all()
    assert torch.equal(pixels, frames()[0])  # the input is left alone


def test_a_frame_without_a_hit_stays_empty():
    empty = torch.zeros(1, 1, 4, 4)
    changed, label = thin_and_add(
        empty, torch.zeros(1, 4, 4, dtype=torch.long), SAMPLES[:1], **KEYS
    )
    assert changed.sum() == 0
    assert label.sum() == 0


def test_sparse_is_mostly_zero_in_every_channel():
    image = np.zeros((2, 10, 10))
    assert is_sparse(image)
    image[1, :3] = 1
    assert not is_sparse(image)


def test_bad_options_are_refused_in_words():
    with pytest.raises(ValueError, match=r"up to 30, got 31"):
        rand_augment(pictures(), SAMPLES, magnitude=31, **KEYS)
    with pytest.raises(ValueError, match=r"bytes for RandAugment, got \(6, 3, 12, 16\) of torch.f"):
        rand_augment(pictures().float(), SAMPLES, **KEYS)
