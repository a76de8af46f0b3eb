"""`dense-imb compare`: options reach the configuration of the runs."""

from __future__ import annotations

import pytest

from dense_imb.cli import compare
from dense_imb.runs import Recipe


@pytest.mark.parametrize("typed", [["--above", "127"], ["--labels", "0", "255"]])
def test_options_of_masks_make_a_configuration_that_trains(typed):
    options = compare.make_parser().parse_args(["images", "--masks", "masks", *typed])
    config = compare._config(options)
    assert Recipe.of(config).config.images == config.images
    assert config.images.above in (None, 127)
    assert isinstance(config.images.above, int | None)
