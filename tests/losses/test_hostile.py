"""Hostile tensors give the number of plain copies, or one sentence: see `hostile.py`."""

from __future__ import annotations

import pytest
import torch

from dense_imb.base.checks import check_tensor, is_other
from dense_imb.losses import CrossEntropyLoss

from .hostile import LOSSES, SCORES, count, table

# one of each family of losses, and the scores of most arguments; the others: slow
QUICK = (
    "acb_mse, masked", "l1, value bins", "cross entropy, masked", "focal, soft targets",
    "dice per instance, masked", "balanced mse", "range", "balanced mean", "HitScores",
    "SegmentationScores", "dose_volume", "ClassStatistics",
)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_a_number_or_a_sentence(name):
    (subject,) = (one for one in (*LOSSES, *SCORES) if one.id == name)
    verdicts, wrong = count((subject,))
    assert not wrong, "\n".join(wrong)
    assert verdicts["number"] > 20
    assert verdicts["sentence"] > 20


# an infinite mean in float32 under a power: the loss is infinite, its gradient finite and wrong.
# An infinite coefficient would mend these rows, and make the loss NaN where an error is exactly 0.
POWER = "mse of instances, power mean with a frame"
KNOWN = {
    f"{POWER}: prediction float32 1e30",
    f"{POWER}: prediction float32 1e30 denormal",
    f"{POWER}, masked: prediction float32 1e30",
}


@pytest.mark.slow
def test_every_loss_and_score(capsys):
    counted, wrong = {}, []
    for name, subjects in {"losses": LOSSES, "scores": SCORES}.items():
        counted[name], lines = count(subjects)
        wrong += lines
    with capsys.disabled():
        print(f"\n{table(counted)}")
    assert {": ".join(line.split(": ")[:2]) for line in wrong} == KNOWN, "\n".join(wrong)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.ones(2).to_sparse(), r"the layout torch.sparse_coo; call \.to_dense\(\)"),
        (torch.ones(2).to(torch.float8_e5m2), r"torch.float8_e5m2; call \.float\(\)"),
        (torch.ones(2, dtype=torch.complex64), r"real, got torch.complex64; take its real part"),
        (
            torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
            r"a nested one; pad it with torch.nested.to_padded_tensor",
        ),
    ],
    ids=["sparse", "float8", "complex", "nested"],
)
def test_unusual_tensors_are_refused_with_their_cure(tensor, sentence):
    with pytest.raises(TypeError, match=f"Expected `logits` to be .*{sentence}"):
        check_tensor("logits", tensor)


def test_tensors_of_two_devices_are_refused():
    logits, target = torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long, device="meta")
    with pytest.raises(ValueError, match=r"`target` on the device of `logits`, cpu, got .* meta"):
        CrossEntropyLoss()(logits, target)


@pytest.mark.parametrize("number", [256, -1, 2**32, 2**40])
def test_an_ignored_label_does_not_wrap(number):
    """For uint8, torch takes 256 for 0 and -1 for 255; for int32, 2^32 for 0."""
    label = torch.tensor([0, 255])
    for dtype in (torch.uint8, torch.int32, torch.uint16, torch.int64):
        assert is_other(label.to(dtype), number).all()
    logits, target = torch.zeros(1, 3, 2), torch.tensor([[0, 1]], dtype=torch.uint8)
    kept = CrossEntropyLoss(ignore_index=number)(logits + torch.arange(3)[:, None], target)
    plain = CrossEntropyLoss()(logits + torch.arange(3)[:, None], target)
    assert kept == plain
