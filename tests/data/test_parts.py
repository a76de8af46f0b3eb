"""Parts that keep groups together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_imb.data.parts import assign_parts


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=200),
    st.lists(st.floats(0.1, 5), min_size=1, max_size=4),
    st.integers(0, 2**31),
)
def test_no_group_is_ever_in_two_parts(group, shares, seed):
    try:
        part = assign_parts(np.array(group), shares, seed)
    except ValueError as problem:
        assert "got none for part" in str(problem)  # noqa: PT017
        return
    assert set(part.tolist()) == set(range(len(shares)))
    for value in set(group):
        assert len(set(part[np.array(group) == value].tolist())) == 1


@pytest.mark.parametrize("shares", [[], [0.5, 0], [np.nan], [-1, 1]])
def test_shares_are_positive_numbers(shares):
    with pytest.raises(ValueError, match="positive numbers"):
        assign_parts(np.arange(9), shares)
