"""Means over instances against plain loops, and their refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    Cover,
    CrossEntropyLoss,
    FocalLoss,
    balanced_mean,
    cross_entropy_loss,
)
from dense_imb.losses.core import instances
from dense_imb.losses.foreign.parse import parse_loss

from .cases import frames_of_instances, logits_of_instances, soft_logits
from .test_balance import N_CLASSES, as_on_an_accelerator, balances, pictures, power_mean

INPUTS = logits_of_instances(3)
LOSS = CrossEntropyLoss(per="instance")


@pytest.fixture(autouse=True)
def _forget_warnings(monkeypatch):
    monkeypatch.setattr(instances, "_warned", set())


def in_plain_loops(error, label, instance, balance, valid, weight):
    """The definition: cells of image, instance and class first, then classes."""
    rows = [[i] for i in range(len(error))]
    rows = rows if balance.scope == "image" else [[i for row in rows for i in row]]
    values = []
    for images in rows:
        cells = {}  # (class, image, instance): [mass, error]
        for i in images:
            pixels = zip(error[i], label[i], instance[i], valid[i], weight[i], strict=True)
            for e, c, r, v, u in pixels:
                if v and u != 0:
                    cell = cells.setdefault((c, i, r), [0.0, 0.0])
                    cell[0] += u
                    cell[1] += u * e
        means = {}
        for (c, *_), (mass, total) in cells.items():
            floor = balance.min_count if balance.min_count > 1 else 0
            means.setdefault(c, []).append(total / max(mass, floor))
        if not means:
            continue
        weights = balance.weight or [1.0] * N_CLASSES
        combine = balance.combine
        combine = [combine] * N_CLASSES if isinstance(combine, str) else combine
        has_frame = balance.frame_weight > 0
        counted = means if balance.absent != "zero" else range(N_CLASSES)
        n_mean = max(sum(combine[c] == "mean" for c in counted) + has_frame, 1)
        sizes = {c: (len(of) / len(cells)) ** balance.count_power for c, of in means.items()}
        entries = []
        for c, of in means.items():
            share = weights[c] / (n_mean if combine[c] == "mean" else 1)
            share *= sizes[c] / (sum(sizes.values()) / len(sizes))
            entries.append((share, sum(of) / len(of)))
        if has_frame:
            share = balance.frame_weight / (1 if all(e == "sum" for e in combine) else n_mean)
            mass, total = (sum(cell[k] for cell in cells.values()) for k in (0, 1))
            entries.append((share, total / mass))
        values.append(power_mean(entries, balance.power))
    return sum(values) / len(values) if values else 0.0


@pytest.mark.filterwarnings("ignore:.*of the foreground pixels have an instance")
@given(pictures(), balances, st.randoms(use_true_random=False), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=300)
def test_equals_its_definition(picture, balance, random, is_masked, is_weighted):
    error, label, mask, weight = picture
    instance = torch.tensor([random.randrange(4) for _ in range(error.numel())], dtype=torch.int64)
    instance = instance.view(error.shape)
    options = {"mask": mask} if is_masked else {}
    if is_weighted:
        options["pixel_weight"] = weight
    options |= {"instance": instance, "balance": balance}
    value = balanced_mean(error, label, N_CLASSES, **options)
    expected = in_plain_loops(
        error.tolist(),
        label.tolist(),
        instance.tolist(),
        balance,
        (mask if is_masked else torch.ones_like(mask)).tolist(),
        (weight if is_weighted else torch.ones_like(weight)).tolist(),
    )
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    bounded = balanced_mean(error, label, N_CLASSES, max_instances=7, **options)
    torch.testing.assert_close(bounded, value)
    torch.testing.assert_close(
        as_on_an_accelerator(error, label, N_CLASSES, max_instances=3, **options), value
    )


def test_small_and_large_objects_count_the_same():
    """One pixel wrong of 1, and none wrong of 8: plain 1/9, of instances 1/2."""
    error = torch.tensor([[1.0, *[0.0] * 8, *[0.0] * 3]])
    label = torch.tensor([[1] * 9 + [0] * 3])
    instance = torch.tensor([[1, *[2] * 8, 0, 0, 0]])
    parts = balanced_mean(error, label, 2, balance=Balance(), instance=instance, return_parts=True)
    assert parts.class_mean.tolist() == [0, 0.5]
    assert parts.class_count.tolist() == [3, 9]
    parts = balanced_mean(error, label, 2, balance=Balance(), return_parts=True)
    assert parts.class_mean[1] == pytest.approx(1 / 9)


def test_count_power_one_is_the_mean_over_all_instances():
    error = torch.rand(2, 30, dtype=torch.float64)
    label, instance = torch.zeros(2, 30, dtype=torch.int64), torch.arange(60).view(2, 30) % 4
    label[instance > 2] = 1
    value = balanced_mean(error, label, 2, balance=Balance(count_power=1), instance=instance)
    cells = [error[i][instance[i] == r].mean() for i in (0, 1) for r in range(4)]
    torch.testing.assert_close(value, torch.stack(cells).mean())


@pytest.mark.filterwarnings("ignore:.*of the foreground pixels have an instance")
def test_one_instance_of_a_class_and_image_is_the_mean_over_images():
    """Instance 0 everywhere: the plain class mean of one image."""
    alone = {name: tensor[:1] for name, tensor in INPUTS.items()}
    zero = torch.zeros_like(alone["instance"])
    torch.testing.assert_close(
        LOSS(alone["logits"], alone["target"], instance=zero),
        CrossEntropyLoss(balance=Balance())(alone["logits"], alone["target"]),
    )


def test_its_balance_is_the_default_one():
    assert LOSS.balance == Balance()
    assert "per='instance', max_instances=None" in repr(LOSS)
    assert "per=" not in repr(CrossEntropyLoss())
    loss = parse_loss("CrossEntropyLoss(per='instance', max_instances=9)")
    torch.testing.assert_close(loss(**INPUTS), LOSS(**INPUTS))
    torch.testing.assert_close(cross_entropy_loss(**INPUTS, per="instance"), LOSS(**INPUTS))


def test_a_map_may_have_its_channel_and_any_integer_type():
    instance = INPUTS["instance"].unsqueeze(1)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        value = LOSS(INPUTS["logits"], INPUTS["target"], instance=instance.to(dtype))
        torch.testing.assert_close(value, LOSS(**INPUTS))


def test_values_with_channels_share_the_map_of_their_image():
    prediction, target = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5).round()
    instance = torch.randint(0, 3, (2, 4, 5))
    loss = BalancedRegressionLoss(per="instance")
    expected = loss(prediction, target, instance=instance.unsqueeze(1).expand_as(target))
    for shaped in (instance, instance.unsqueeze(1)):
        torch.testing.assert_close(loss(prediction, target, instance=shaped), expected)


@pytest.mark.filterwarnings("ignore:.*of the foreground pixels have an instance")
def test_more_instances_than_the_bound_are_said_once_and_count_as_none():
    loss = CrossEntropyLoss(per="instance", max_instances=2)
    with pytest.warns(UserWarning, match="`max_instances` is 2, and the map holds 1 larger inst"):
        value = loss(**INPUTS)
    cut = {**INPUTS, "instance": INPUTS["instance"] % 3}
    torch.testing.assert_close(value, LOSS(**cut))
    torch.testing.assert_close(loss(**INPUTS), value)  # a second warning would be an error


def test_an_illegal_label_is_nan_where_it_cannot_be_refused():
    error, label = torch.ones(1, 3), torch.tensor([[0, 1, 9]])
    options = {"instance": torch.zeros_like(label), "max_instances": 1, "balance": Balance()}
    assert as_on_an_accelerator(error, label, 2, **options).isnan()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda a: LOSS(a["logits"], a["target"]), ValueError, "got none: call the loss as loss"),
        (
            lambda a: BalancedRegressionLoss(per="instance")(a["logits"], a["logits"]),
            ValueError,
            'Expected `instance` with per="instance", got none',
        ),
        (
            lambda a: CrossEntropyLoss()(**a),
            ValueError,
            'The loss takes no `instance`; drop it or use per="instance"',
        ),
        (
            lambda a: BalancedRegressionLoss()(a["logits"], a["logits"], instance=a["instance"]),
            ValueError,
            'The loss takes no `instance`; drop it or use per="instance"',
        ),
        (
            lambda a: LOSS(a["logits"], a["target"], instance=a["instance"][:, 1:]),
            ValueError,
            r"Expected `instance` of the shape \(3, 6, 7\) or \(3, 1, 6, 7\), got \(3, 5, 7\)",
        ),
        (
            lambda a: BalancedRegressionLoss(per="instance")(
                a["logits"], a["logits"], instance=a["instance"][:, 1:]
            ),
            ValueError,
            r"Expected `instance` in the shape of `prediction`, \(3, 4, 6, 7\)",
        ),
        (
            lambda a: BalancedRegressionLoss(per="instance")(
                torch.ones(3), torch.ones(3), instance=torch.ones(3).long()
            ),
            ValueError,
            "with images in its first dimension for an `instance` map",
        ),
        (
            lambda a: LOSS(**a, class_count=(9, 9, 9, 9)),
            ValueError,
            'Expected no `class_count` with per="instance", got one',
        ),
        (
            lambda a: LOSS(a["logits"], soft_logits(3)["target"], instance=a["instance"]),
            ValueError,
            'got probabilities: per="instance" has no formula for soft targets',
        ),
        (
            lambda a: CrossEntropyLoss(per="instance", reduction="sum"),
            ValueError,
            'Expected `reduction` to be "mean" or "none" with a balance, got "sum"',
        ),
        (
            lambda a: CrossEntropyLoss(per="instance", class_weight=(1, 1, 1, 1)),
            ValueError,
            "takes `class_weight` or `balance`, not both",
        ),
        (
            lambda a: FocalLoss(max_instances=9),
            ValueError,
            "Expected per=\"instance\" with max_instances=9, got 'pixel'",
        ),
        (
            lambda a: CrossEntropyLoss(per="instances"),
            ValueError,
            "Did you mean 'instance'",
        ),
        (
            lambda a: CrossEntropyLoss(per="instance", max_instances=0),
            ValueError,
            "Expected `max_instances` from 1",
        ),
        (
            lambda a: BalancedRegressionLoss("l1", Cover(2), per="instance"),
            ValueError,
            'the cells of a cover or per="instance", not both',
        ),
        (
            lambda a: ACBMSELoss()(a["logits"], a["logits"], instance=a["instance"]),
            TypeError,
            "Expected an option of ACBMSELoss",
        ),
        (
            lambda a: torch.func.grad(lambda z: LOSS(z, a["target"], instance=a["instance"]))(
                a["logits"]
            ),
            ValueError,
            "Expected `max_instances` where the values of `instance` cannot be read",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(call, error, sentence):
    with pytest.raises(error, match=sentence) as refusal:
        call(INPUTS)
    assert "\n" not in str(refusal.value)


def test_transforms_take_a_bound():
    loss = CrossEntropyLoss(per="instance", max_instances=3)
    logits = INPUTS["logits"].clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(**{**INPUTS, "logits": logits}), logits)
    options = {name: INPUTS[name] for name in ("target", "instance")}
    torch.testing.assert_close(torch.func.grad(lambda z: loss(z, **options))(logits), expected)
    each = torch.func.vmap(lambda z: loss(z, **options))(torch.stack([logits, 2 * logits]))
    torch.testing.assert_close(each[0], loss(logits, **options))


def test_empty_instances_of_a_frame_of_values_train():
    inputs = frames_of_instances(2)
    inputs["target"][:] = 0
    prediction = inputs["prediction"].requires_grad_()
    BalancedRegressionLoss(per="instance")(**inputs).backward()
    assert prediction.grad.abs().sum() > 0
