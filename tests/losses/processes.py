"""Run by torchrun from test_processes.py: several processes against one, for every loss.

Every rank knows the whole batch, takes its uneven share through DDP, and compares the gradient and
the value with those of one process that sees everything.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.losses.cases import CASES, Case

# images of each rank: uneven, the second without a hit, the third with nothing at all
SHARES = {2: ((0, 5), (5, 7)), 3: ((0, 5), (5, 7), (7, 7))}
N_IMAGES = 7


def whole_batch(case: Case) -> dict[str, Tensor]:
    inputs = case.inputs(N_IMAGES)
    second = list(inputs)[1]
    inputs[second][5:7] = case.fill[0]  # the second rank has no hit
    if "label" in inputs:
        inputs["label"][5:7] = 0
    return inputs


def pixels_of(inputs: dict[str, Tensor]) -> tuple[int, ...]:
    first, second = (inputs[name] for name in list(inputs)[:2])
    return (first.shape[0], *first.shape[2:]) if "logits" in inputs else tuple(second.shape)


def part(inputs: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    return {name: tensor[start:stop] for name, tensor in inputs.items()}


def network(inputs: dict[str, Tensor]) -> nn.Module:
    torch.manual_seed(0)
    n_channels = next(iter(inputs.values())).shape[1]
    return nn.Conv2d(n_channels, n_channels, 3, padding=1).double()


def run(loss, net: nn.Module, inputs: dict[str, Tensor], **options) -> tuple[Tensor, list[Tensor]]:
    """Loss of a network that sees the prediction as its image, and the gradient of its weights."""
    names = list(inputs)
    net.zero_grad()
    output = net(inputs[names[0]])
    value = loss(output, inputs[names[1]], **{n: inputs[n] for n in names[2:]}, **options)
    (value if value.dim() == 0 else value.sum()).backward()
    return value.detach(), [p.grad.clone() for p in net.parameters()]


def check_equal(what: str, found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12, msg=lambda m: f"{what}: {m}")


class CountedCollectives:
    """How many numbers went through all_reduce."""

    def __enter__(self) -> CountedCollectives:
        self.numbers: list[int] = []
        self._all_reduce = dist.all_reduce

        def counting(tensor: Tensor, *args, **kwargs):
            self.numbers.append(tensor.numel())
            return self._all_reduce(tensor, *args, **kwargs)

        dist.all_reduce = counting
        return self

    def __exit__(self, *problem: object) -> None:
        dist.all_reduce = self._all_reduce


def check_case(case: Case, is_weighted: bool) -> None:
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    whole = whole_batch(case)
    options = {}
    if is_weighted:
        rng = torch.Generator().manual_seed(3)
        weight = torch.rand(pixels_of(whole), generator=rng, dtype=torch.float64)
        options["pixel_weight"] = torch.where(weight < 0.3, 0.0, weight)
    alone = network(whole)
    value, gradient = run(case.make(scope="batch"), alone, whole, **options)

    start, stop = SHARES[n_ranks][rank]
    mine = part(whole, start, stop)
    my_options = part(options, start, stop)
    together = DistributedDataParallel(network(whole))
    with CountedCollectives() as collectives:
        my_value, my_gradient = run(case.make(scope="global"), together, mine, **my_options)
    label = f"{case.id}, rank {rank} of {n_ranks}, weighted {is_weighted}"
    check_equal(f"{label}, value", my_value, value)
    for found, expected in zip(my_gradient, gradient, strict=True):
        check_equal(f"{label}, gradient", found, expected)
    assert collectives.numbers == case.collectives(is_weighted), collectives.numbers
    if case.is_region:
        check_window(label, case, together, mine, my_options, value, gradient)
        return

    contributions, my_gradient = run(
        case.make(scope="global", reduction="none"), together, mine, **my_options
    )
    total = contributions.sum()
    dist.all_reduce(total)
    check_equal(f"{label}, contributions", total, value)
    for found, expected in zip(my_gradient, gradient, strict=True):
        check_equal(f"{label}, gradient of contributions", found, expected)

    if case.has_windows:
        check_accumulation(case, is_weighted, whole, together, (value, gradient), options)


def check_accumulation(case, is_weighted, whole, together, expected_results, options) -> None:
    """Two steps of accumulation on each rank, with the class counts of both passed in."""
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    value, gradient = expected_results
    label = f"{case.id}, rank {rank} of {n_ranks}, weighted {is_weighted}"
    start, stop = SHARES[n_ranks][rank]
    mine, my_options = part(whole, start, stop), part(options, start, stop)
    names = list(whole)
    middle = (stop - start) // 2
    # the partition may depend on the prediction, so count on what the network returns
    with torch.no_grad():
        output = together.module(mine[names[0]])
        extra = {n: mine[n] for n in names[2:]}
        count = case.make()(output, mine[names[1]], return_parts=True, **extra).class_count
        if is_weighted:
            count = masses(case, output, mine, my_options["pixel_weight"], len(count))
    loss = case.make(scope="global")
    together.zero_grad()
    with together.no_sync():
        first = step(loss, together, part(mine, 0, middle), count, part(my_options, 0, middle))
    last = step(loss, together, part(mine, middle, 7), count, part(my_options, middle, 7))
    check_equal(f"{label}, accumulated value", first + last, value)
    for found, expected in zip((p.grad for p in together.parameters()), gradient, strict=True):
        check_equal(f"{label}, accumulated gradient", found, expected)


def check_window(label, case, together, mine, options, value, gradient) -> None:
    """Two steps of accumulation on each rank, with the sums of both passed in."""
    names = list(mine)
    middle = len(mine[names[0]]) // 2
    steps = [
        (part(mine, *ends), part(options, *ends)) for ends in ((0, middle), (middle, N_IMAGES))
    ]
    loss = case.make(scope="global")
    together.zero_grad()
    with torch.no_grad():
        window = sum(
            loss.sums(
                together.module(one[names[0]]), one[names[1]],
                **{n: one[n] for n in names[2:]}, **extra,
            )
            for one, extra in steps
        )  # fmt: skip
    for number, (one, extra) in enumerate(steps):
        together.require_backward_grad_sync = number == len(steps) - 1
        seen = loss(
            together(one[names[0]]), one[names[1]], window=window,
            **{n: one[n] for n in names[2:]}, **extra,
        )  # fmt: skip
        seen.backward()
        check_equal(f"{label}, value of the window", seen.detach(), value)
    for found, expected in zip((p.grad for p in together.parameters()), gradient, strict=True):
        check_equal(f"{label}, accumulated gradient", found, expected)


def step(loss, net, inputs, count, options) -> Tensor:
    names = list(inputs)
    extra = {n: inputs[n] for n in names[2:]}
    value = loss(net(inputs[names[0]]), inputs[names[1]], class_count=count, **extra, **options)
    value.backward()
    return value.detach()


def masses(case: Case, output: Tensor, inputs, weight: Tensor, n_classes: int) -> Tensor:
    """Sum of the pixel weights of each class, one weighted pixel at a time."""
    names = list(inputs)
    extra = {n: inputs[n] for n in names[2:]}
    loss = case.make(scope="batch")
    found = torch.zeros(n_classes, dtype=torch.float64)
    for index in weight.reshape(-1).nonzero().flatten().tolist():
        only = torch.zeros_like(weight)
        only.view(-1)[index] = 1
        parts = loss(output, inputs[names[1]], return_parts=True, pixel_weight=only, **extra)
        found += parts.class_count * weight.reshape(-1)[index]
    return found


def check_gradient_sum() -> None:
    """gradient="sum": added over the processes, not averaged, the gradients are those of one."""
    from dense_imb.losses import Balance, balanced_mean

    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    error = torch.arange(14.0, dtype=torch.float64).view(7, 2)
    label = (error > 4).long()
    start, stop = SHARES[n_ranks][rank]
    mine = error[start:stop].clone().requires_grad_()
    balance = Balance(scope="global", gradient="sum")
    balanced_mean(mine, label[start:stop], 2, balance=balance).backward()
    alone = error.clone().requires_grad_()
    balanced_mean(alone, label, 2, balance=Balance()).backward()
    check_equal("gradient sum", mine.grad, alone.grad[start:stop])

    infinite = torch.full((1, 2), torch.inf, requires_grad=True)
    value = balanced_mean(infinite, torch.tensor([[0, 1]]), 2, balance=balance)
    assert value == torch.inf, value


def check_plain_mean() -> None:
    """A cross-entropy of `count_power` 1 beside a region loss is torch's mean of all pixels."""
    from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss

    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    rng = torch.Generator().manual_seed(0)
    whole = torch.randn(7, 4, 5, 6, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 3, (7, 5, 6), generator=rng)  # the last class has no pixel
    target[5:] = 0
    start, stop = SHARES[n_ranks][rank]
    balance = Balance(count_power=1, scope="global")
    loss = CompoundLoss(
        DiceLoss(balance=Balance(scope="global")), CrossEntropyLoss(balance=balance)
    )
    mine = whole[start:stop].clone().requires_grad_()
    value = loss(mine, target[start:stop])
    value.backward()
    alone = whole.clone().requires_grad_()
    expected = DiceLoss()(alone, target) + nn.functional.cross_entropy(alone, target)
    expected.backward()
    check_equal("plain mean", value, expected)
    check_equal("plain mean, gradient", mine.grad / n_ranks, alone.grad[start:stop])


def check_compiled() -> None:
    """The collective is inside the one graph."""
    from dense_imb.losses import ACBMSELoss

    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    case = next(c for c in CASES if c.id == "acb_mse")
    whole = whole_batch(case)
    start, stop = SHARES[n_ranks][rank]
    mine = part(whole, start, stop)
    results = []
    loss = ACBMSELoss(scope="global")
    for call in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        prediction = mine["prediction"].clone().requires_grad_()
        value = call(prediction, mine["target"])
        (gradient,) = torch.autograd.grad(value, prediction)
        results.append((value.detach(), gradient))
    check_equal("compiled value", results[1][0], results[0][0])
    check_equal("compiled gradient", results[1][1], results[0][1])


def check_statistics() -> None:
    """Class statistics of all processes, one of which has seen nothing."""
    from dense_imb.statistics import ClassStatistics

    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (7, 4, 5), generator=rng)
    whole = ClassStatistics(3)
    whole.update(target)
    mine = ClassStatistics(3)
    start, stop = SHARES[n_ranks][rank]
    if stop > start:
        mine.update(target[start:stop])
    mine.reduce_over_processes()
    assert mine.class_counts == whole.class_counts, (mine, whole)
    assert mine.image_presence == whole.image_presence
    assert mine.n_images == whole.n_images
    assert mine.weights("median-frequency") == whole.weights("median-frequency")


def main() -> None:
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    torch.set_num_threads(1)
    for case in CASES:
        for is_weighted in (False, True):
            check_case(case, is_weighted)
    check_gradient_sum()
    check_plain_mean()
    check_compiled()
    check_statistics()
    dist.barrier()
    if dist.get_rank() == 0:
        print(f"{len(CASES)} losses agree in {dist.get_world_size()} processes")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
