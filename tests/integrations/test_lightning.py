"""Lightning's own Trainer runs our networks, losses and tasks on a CPU; nothing is mocked."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dense_imb.config import UnlabelledConfig
from dense_imb.data.images.instances import label_instances
from dense_imb.losses import (
    Balance,
    BiasCompensatedLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    HardMiningLoss,
)
from dense_imb.models import FastUNet
from dense_imb.tasks.recipe import build_task
from tests.runs.pictures import lines, tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    pytest.importorskip(
        "lightning",
        reason="Lightning is no part of the tests' packages: slow to import, and of a history of "
        'malicious releases; pip install "dense-imb[lightning]" runs these',
        exc_type=ImportError,
    )
    from lightning.pytorch import Trainer

    from dense_imb.integrations.lightning import LightningSegmenter, LightningTask

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of loaders without workers


def trainer(tmp_path, **options):
    return Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_steps": 12, "num_sanity_val_steps": 0, **options},
    )


def loader(*, as_dictionaries: bool = False):
    image, mask = lines(16, (32, 32))
    image, label = torch.tensor(image)[:, None] / 100 - 1, torch.tensor(mask).long()
    if as_dictionaries:
        samples = [{"image": x, "label": y[None]} for x, y in zip(image, label, strict=True)]
        return DataLoader(samples, batch_size=4)
    return DataLoader(TensorDataset(image, label), batch_size=4)


def small(**options):
    torch.manual_seed(0)
    return FastUNet(1, 1, widths=[4, 8], **options)


@pytest.mark.parametrize("as_dictionaries", [False, True])
def test_a_network_and_our_loss_learn(tmp_path, as_dictionaries):
    network = small()
    module = LightningSegmenter(
        network,
        HardMiningLoss(balance=Balance()),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 0.02),
    )
    data, run = loader(as_dictionaries=as_dictionaries), trainer(tmp_path, max_steps=40)
    before = run.validate(module, data, verbose=False)[0]["val_average_precision"]
    run.fit(module, data, data)
    assert run.global_step == 40
    after = run.callback_metrics
    assert float(after["val_average_precision"]) > before + 0.2
    assert {"train_loss", "val_dice", "val_iou", "val_auc"} <= set(after)


def test_the_loss_of_a_step_is_the_loss_itself(tmp_path):
    module, loss = LightningSegmenter(small(), CrossEntropyLoss()), CrossEntropyLoss()
    image, label = next(iter(loader()))
    module.log = lambda *_, **__: None
    expected = loss(module.network(image), label)
    assert module.training_step((image, label), 0) == expected


def test_a_loss_per_instance_reads_the_map_of_the_batch(tmp_path):
    loss = CompoundLoss(DiceLoss(per="instance"), CrossEntropyLoss())
    module = LightningSegmenter(small(), loss)
    image, label = next(iter(loader()))
    number = [torch.from_numpy(label_instances(one)).long() for one in label.numpy()]
    instance = torch.stack(number)
    module.log = lambda *_, **__: None
    expected = loss(module.network(image), label, instance=instance)
    by_name = {"image": image, "label": label[:, None], "instance": instance[:, None]}
    assert module.training_step((image, label, instance), 0) == expected
    assert module.training_step(by_name, 0) == expected
    plain = LightningSegmenter(module.network, CrossEntropyLoss())
    plain.log = module.log
    assert plain.training_step(by_name, 0) == CrossEntropyLoss()(module.network(image), label)
    with pytest.raises(ValueError, match="return label_instances.label. of dense_imb.data.images"):
        module.training_step((image, label), 0)
    samples = TensorDataset(image, label, instance)
    run = trainer(tmp_path, max_steps=3)
    run.fit(LightningSegmenter(small(), loss), DataLoader(samples, 2), DataLoader(samples, 2))
    assert run.global_step == 3
    assert "val_dice" in run.callback_metrics


def test_scores_are_of_one_validation_only(tmp_path):
    module, run = LightningSegmenter(small(), CrossEntropyLoss()), trainer(tmp_path)
    first, second = (run.validate(module, loader(), verbose=False)[0] for _ in range(2))
    assert first == second
    assert int(module._scores.confusion.sum()) == 16 * 32 * 32


def task_of_hits(tmp_path):
    return build_task(tiny(write_events(tmp_path / "clean.h5", clean_events(40))))


def task_of_images(tmp_path):
    return build_task(tiny_images(write_folders(tmp_path)))


@pytest.mark.parametrize("make", [task_of_hits, task_of_images])
def test_a_task_of_ours_trains_with_its_own_data(tmp_path, make):
    task = make(tmp_path)
    before = [parameter.clone() for parameter in task.network.parameters()]
    module, run = LightningTask(task, batch_size=4), trainer(tmp_path, max_steps=6)
    run.fit(module)
    assert run.global_step == 6
    pairs = zip(before, task.network.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)
    scores = run.validate(module, verbose=False)[0]
    task.network.eval()
    own = task.validate(task.network, torch.device("cpu"), 0, 1)
    assert scores[f"val_{task.monitor}"] == pytest.approx(own[task.monitor])


class Told(BiasCompensatedLoss):
    """Keeps what it was told."""

    def set_progress(self, progress):
        super().set_progress(progress)
        self.told = [*getattr(self, "told", []), progress]


def test_a_loss_with_a_schedule_is_told_the_progress(tmp_path):
    loss = Told([9, 1])
    trainer(tmp_path, max_steps=8).fit(LightningSegmenter(small(), loss), loader())
    assert loss.told == [k / 8 for k in range(8)]
    loss = Told([9, 1])
    trainer(tmp_path, max_steps=-1, max_epochs=3).fit(LightningSegmenter(small(), loss), loader())
    assert loss.told == pytest.approx([k / 12 for k in range(12)])


def test_a_task_keeps_its_schedule_and_its_loss_of_features(tmp_path):
    folders = write_folders(tmp_path)
    task = build_task(
        tiny_images(folders, loss="BiasCompensatedLoss", feature_loss="RangeLoss(k=1)")
    )
    module = LightningTask(task, batch_size=4)
    trainer(tmp_path, max_steps=6).fit(module)
    state = module.state_dict()
    assert float(state["loss.output.progress"]) == pytest.approx(5 / 6)
    assert int(state["loss.features.loss.n_calls"]) == 6


def test_a_checkpoint_holds_network_and_loss_once(tmp_path):
    task = task_of_images(tmp_path)
    state = LightningTask(task).state_dict()
    names = {f"network.{name}" for name in task.network.state_dict()}
    assert set(state) == names | {f"loss.{name}" for name in task.loss.state_dict()}


def test_bad_batches_are_one_sentence(tmp_path):
    module = LightningSegmenter(small(), CrossEntropyLoss())
    with pytest.raises(ValueError, match="Expected batches with `image` and `label`, got x"):
        module.training_step({"x": 1}, 0)
    with pytest.raises(TypeError, match=r"Expected batches \(image, label\)"):
        module.training_step(torch.zeros(3), 0)


def test_a_task_with_a_teacher_is_refused(tmp_path):
    folders = write_folders(tmp_path / "pictures", n=12)
    config = tiny_images(folders, labelled_share=0.5, unlabelled=UnlabelledConfig(rest=True))
    with pytest.raises(ValueError, match="Lightning updates no teacher, and `task` has unlabelled"):
        LightningTask(build_task(config))
