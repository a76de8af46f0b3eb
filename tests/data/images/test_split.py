"""Images held out: a share of them, by seed and group."""

from __future__ import annotations

import numpy as np
import pytest

from dense_imb.data.images.split import split_by_image


@pytest.mark.parametrize("n", [2, 3, 10, 118])
@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
def test_a_split_holds_out_its_share_and_leaves_none_empty(n, share):
    training, held_out = split_by_image(n, share, seed=3)
    assert sorted(training + held_out) == list(range(n))
    assert len(held_out) == pytest.approx(np.clip(share * n, 1, n - 1), abs=0.51)
    assert split_by_image(n, share, seed=3) == (training, held_out)


def test_a_split_follows_its_seed_and_keeps_groups_together():
    assert len({tuple(split_by_image(20, 0.3, seed)[1]) for seed in range(10)}) > 5
    group = np.repeat(np.arange(6), 4)
    training, held_out = split_by_image(24, 0.01, groups=group)
    assert set(group[training]).isdisjoint(group[held_out])
    assert len(held_out) == 4
    with pytest.raises(ValueError, match="two images or more"):
        split_by_image(1, 0.5)
    with pytest.raises(ValueError, match="`share` between 0 and 1"):
        split_by_image(4, 1.0)
    with pytest.raises(ValueError, match="`groups` with a value for each of 4 images"):
        split_by_image(4, 0.5, groups=[1, 2])
    with pytest.raises(ValueError, match="1 groups"):
        split_by_image(4, 0.5, groups=[1, 1, 1, 1])
