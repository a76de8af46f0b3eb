"""Facts of a run on its page."""

from __future__ import annotations

import pytest

from dense_imb.config import SamplingConfig, TrainConfig
from dense_imb.report.facts import _stage_facts


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        (SamplingConfig(), "instance"),
        (SamplingConfig("sqrt"), "sqrt"),
        (SamplingConfig("power", 0.25), "power 0.25"),
    ],
)
def test_a_power_is_named_with_its_exponent(sampling, text):
    assert _stage_facts(TrainConfig(sampling=sampling), {})["sampling"] == text
