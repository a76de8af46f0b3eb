"""A typed loss: looked up or imported, checked before it is called, never evaluated."""

from __future__ import annotations

import os
import sys

import pytest
from torch import nn

from dense_imb.curves import parse_loss, parse_losses
from dense_imb.losses import ACBMSELoss, Balance, BalancedRegressionLoss, Cover, ValueBins
from tests.curves import stand_in


def test_catalogue_name_with_options():
    loss = parse_loss("ACBMSELoss(2.0, hit_weight=0.5)")
    assert isinstance(loss, ACBMSELoss)
    assert loss.balance.weight == (2.0, 0.5)


def test_balance_takes_its_arguments():
    loss = parse_loss("BalancedRegressionLoss('l1', balance={'combine': 'sum'})")
    assert isinstance(loss, BalancedRegressionLoss)
    assert loss.balance == Balance(combine="sum")


def test_partition_takes_the_arguments_of_bins_or_of_cells():
    text = "BalancedRegressionLoss('l1', partition={'edges': [1, 9], 'power': 0.5})"
    assert parse_loss(text).partition == ValueBins((1, 9), power=0.5)
    text = "BalancedRegressionLoss('l1', partition={'n_cells': 3, 'rest': 'cell'})"
    assert parse_loss(text).partition == Cover(3, "cell")
    with pytest.raises(ValueError, match="the arguments of ValueBins or of a Cover, got {'bins'"):
        parse_loss("BalancedRegressionLoss('l1', partition={'bins': 3})")


def test_import_path_with_options():
    loss = parse_loss("tests.curves.stand_in:Focal(gamma=2.5)")
    assert isinstance(loss, stand_in.Focal)
    assert loss.gamma == 2.5


def test_a_users_own_file_beside_them(tmp_path, monkeypatch):
    (tmp_path / "my_own_losses.py").write_text(
        "from torch import nn\nclass Mine(nn.Module):\n    '''Mine.'''\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    searched = list(sys.path)
    assert type(parse_loss("my_own_losses:Mine")).__name__ == "Mine"
    assert sys.path == searched
    del sys.modules["my_own_losses"]


def test_names_tell_losses_apart():
    texts = [
        "torch.nn:MSELoss",
        "tests.curves.stand_in:Focal()",
        "tests.curves.stand_in:Focal(2.0)",
    ]
    assert list(parse_losses(texts)) == ["MSELoss", "Focal", "Focal(2.0)"]
    texts = ["torch.nn:MSELoss", "torch.nn.modules.loss:MSELoss"]
    assert list(parse_losses(texts)) == texts
    assert isinstance(parse_losses(texts)[texts[0]], nn.MSELoss)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ACBMSELos", "Did you mean 'ACBMSELoss'"),
        ("ACBMSELoss(weight=1)", "Expected options that ACBMSELoss takes"),
        ("ACBMSELoss(hit_weight=-1.0)", "Expected options that ACBMSELoss takes"),
        ("no_such_package:Loss", "No module named 'no_such_package'"),
        ("torch.nn:NoSuchLoss", "Expected a class of the module torch.nn, got 'NoSuchLoss'"),
        (":MSELoss", "Expected an import path that resolves"),
        ("..nn:MSELoss", "Expected an import path that resolves"),
        ("torch.nn:", "Expected a loss as"),
        ("", "Expected a loss as"),
        ("torch.nn:MSELoss(", "Expected a loss as"),
        ("torch.nn:MSELoss(reduction=open('x'))", "literals"),
        ("torch.nn:MSELoss(**{'reduction': 'sum'})", "literals"),
        ("torch.nn:modules.MSELoss", "literals"),
        ("torch.nn:MSELoss()()", "literals"),
        ("torch.nn:MSELoss(" + "(" * 5000, "literals"),
        ("torch.nn.functional:mse_loss", r"to be a torch\.nn\.Module class"),
        ("collections:OrderedDict", r"to be a torch\.nn\.Module class"),
        ("tests.curves.stand_in:not_a_class", r"to be a torch\.nn\.Module class"),
    ],
)
def test_bad_names_are_refused(text, named):
    with pytest.raises(ValueError, match=named) as refusal:
        parse_loss(text)
    assert "\n" not in str(refusal.value)


def test_nothing_is_called_before_it_is_known_for_a_loss(monkeypatch):
    called = []
    monkeypatch.setattr(os, "system", called.append)
    for text in ("os:system('true')", "os:system", "torch.nn:MSELoss(os.system('true'))"):
        with pytest.raises(ValueError, match="Expected"):
            parse_loss(text)
    assert called == []


def test_a_module_that_fails_to_import_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "broken_losses.py").write_text("raise RuntimeError('operator does\\nnot exist')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"RuntimeError: operator does not exist\)"):
        parse_loss("broken_losses:Mine")
