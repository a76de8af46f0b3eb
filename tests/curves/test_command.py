"""`dense-imb curves`: what it writes, what it leaves alone and what it refuses."""

from __future__ import annotations

import time

import pytest

from dense_imb.cli import main
from dense_imb.curves import SCENARIOS, Table, write_figures
from dense_imb.losses.foreign.catalogue import CATALOGUE

QUICK = ("--frame", "6x10", "--points", "5")


def run(capsys, *arguments):
    try:
        code = main(["curves", *map(str, arguments)])
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_users_own_loss_by_import_path(capsys, tmp_path):
    code, out, err = run(
        capsys, "--out", tmp_path, "--scenario", "recovery", *QUICK, "--value", 3,
        "--loss", "tests.curves.stand_in:Cubic", "--loss", "ACBMSELoss(hit_weight=2.0)",
    )  # fmt: skip
    assert (code, err) == (0, "")
    files = [tmp_path / f"recovery.{suffix}" for suffix in ("png", "svg", "csv", "txt")]
    assert out.split() == [str(file) for file in files]
    table = Table.read(tmp_path / "recovery.csv")
    # nothing is returned of ten hits of value 3 among 60 pixels
    assert table["Cubic"][0] == pytest.approx(27 / 6)
    assert table["ACBMSELoss(hit_weight=2.0)"][0] == pytest.approx(18)
    caption = (tmp_path / "recovery.txt").read_text()
    assert "6 x 10 pixels" in caption
    assert "weight=(1.0, 2.0)" in caption


def test_every_scenario_for_our_family(tmp_path):
    written = write_figures(
        tmp_path, scenarios=tuple(SCENARIOS), formats=["json"], frame=(6, 10), points=4
    )
    shown = {path.stem: Table.read(path) for path in written if path.suffix == ".json"}
    for name, scenario in SCENARIOS.items():
        family = {entry.name for entry in CATALOGUE if entry.feeds_on == scenario.feeds_on}
        # a sum of others, the Dice loss, and a loss of samples, whose curve is noise
        family -= {"CompoundLoss", "RegionLoss", "BalancedMSELoss"}
        if scenario.feeds_on == "logits":
            family.add("DiceLoss + CrossEntropyLoss")
        else:
            family.add("Power 1/2")
        if scenario.n_cells:
            family |= {"Cover", "Cover, power 1/2"}
        if family:
            assert family <= {curve.name for curve in shown[name].curves}


def test_formats_in_a_new_folder(capsys, tmp_path):
    out = tmp_path / "new" / "figures"
    code, _, _ = run(
        capsys, "--out", out, "--scenario", "published", "--scenario", "recovery", *QUICK,
        "--format", "pdf", "json",  "--loss", "torch.nn:MSELoss",
    )  # fmt: skip
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        f"recovery.{suffix}" for suffix in ("pdf", "json", "csv", "txt")
    }


def test_results_are_kept_unless_asked(capsys, tmp_path):
    arguments = ("--out", tmp_path, *QUICK, "--loss", "torch.nn:MSELoss", "--scenario", "recovery")
    (tmp_path / "recovery.csv").write_text("mine")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "recovery.csv" in err
    assert [path.name for path in tmp_path.iterdir()] == ["recovery.csv"]
    assert (tmp_path / "recovery.csv").read_text() == "mine"
    assert run(capsys, *arguments, "--overwrite")[0] == 0
    assert (tmp_path / "recovery.csv").read_text() != "mine"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--scenario", "recover"], "'signal-size', 'recovery', 'probability'"),
        (["--scenario", "recover"], "Did you mean 'recovery'"),
        (["--loss", "no.such:Loss"], "an import path that resolves, got 'no.such:Loss'"),
        (["--loss", "os:system"], "to be a torch.nn.Module class"),
        (["--loss", "Nothing"], "Expected `loss` to be a name of `dense-imb losses`"),
        (["--format", "jpeg"], "`format` to be one of"),
        (["--frame", "128"], "Expected --frame as height x width, got '128'; write --frame 128x88"),
        (["--frame", "1x2"], "`frame` of at least 6 pixels"),
        (["--points", "1000"], "between 3 and 200"),
        (["--points", "few"], "few"),
        (["--value", "0"], "`value` above 0"),
        (["--value", "nan"], "nan"),
    ],
)
def test_bad_input_is_one_sentence(capsys, tmp_path, arguments, named):
    code, out, err = run(capsys, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1


def test_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "under", "/proc/no", "/proc"):
        code, _, err = run(capsys, "--out", out, "--scenario", "recovery", *QUICK)
        assert code == 2
        assert f"Expected a folder that can be written in `out`, got {out}" in err
        assert err.count("\n") == 1


def test_other_kind_is_skipped_by_name(capsys, tmp_path):
    code, _, err = run(
        capsys, "--out", tmp_path, *QUICK, "--scenario", "recovery", "--scenario", "probability",
        "--loss", "torch.nn:MSELoss", "--loss", "torch.nn:CrossEntropyLoss",
    )  # fmt: skip
    assert code == 0
    assert err.splitlines() == [
        "dense-imb curves: warning: skipped MSELoss in probability: it takes values",
        "dense-imb curves: warning: skipped CrossEntropyLoss in recovery: it takes logits",
    ]
    assert {path.stem for path in tmp_path.iterdir()} == {"recovery", "probability"}


def test_no_figure_without_the_losses_asked_for(capsys, tmp_path):
    code, _, err = run(
        capsys, "--out", tmp_path, *QUICK, "--scenario", "recovery", "--scenario", "probability",
        "--loss", "torch.nn:MSELoss",
    )  # fmt: skip
    assert code == 0
    assert "skipped MSELoss in probability" in err
    assert {path.stem for path in tmp_path.iterdir()} == {"recovery"}


def test_loss_that_no_scenario_feeds(capsys, tmp_path):
    code, _, err = run(capsys, "--out", tmp_path, "--loss", "RangeLoss(3, 2)")
    assert code == 2
    assert err.splitlines()[-1] == (
        "dense-imb curves: error: RangeLoss(3, 2) is in no figure: it takes features."
    )


@pytest.mark.parametrize(
    "loss", ['DiceLoss(per="instance")', 'DiceLoss(per="instance") + FocalLoss']
)
def test_a_loss_of_instances_is_refused_before_any_figure(capsys, tmp_path, loss):
    code, out, err = run(capsys, "--out", tmp_path / "out", *QUICK, "--loss", loss)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "is in no figure: it needs an instance map, which no scenario has; drop per=" in err
    assert not (tmp_path / "out").exists()


def test_quiet_prints_no_files_and_captions_no_defaults(capsys, tmp_path):
    code, out, _ = run(
        capsys, "--out", tmp_path, *QUICK, "--scenario", "probability", "--quiet",
        "--loss", "DiceLoss", "--loss", 'CrossEntropyLoss(balance={"scope": "image"})',
    )  # fmt: skip
    assert (code, out) == (0, "")
    lines = (tmp_path / "probability.txt").read_text().split("\n\n")[2:]
    text = "\n".join(lines)
    assert "balance=Balance(scope='image')" in text
    for default in ("None", "min_count", "gamma", "include_background"):
        assert default not in text


def test_figures_already_made_stay(capsys, tmp_path):
    code, _, err = run(
        capsys, "--out", tmp_path, *QUICK, "--scenario", "recovery",
        "--loss", "torch.nn:MSELoss", "--loss", "tests.curves.stand_in:Unreduced",
    )  # fmt: skip
    assert code == 2
    warning, error = err.splitlines()
    assert "skipped Unreduced in recovery: Unreduced has no value" in warning
    assert "Unreduced is in no figure: Unreduced has no value" in error
    assert "Unreduced" not in (tmp_path / "recovery.txt").read_text()
    assert (tmp_path / "recovery.png").exists()
    assert {c.name for c in Table.read(tmp_path / "recovery.csv").curves} == {"MSELoss"}


def test_full_disk_is_one_sentence(capsys, tmp_path, monkeypatch):
    def fill_the_disk(figure, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fill_the_disk)
    code, out, err = run(
        capsys, "--out", tmp_path, *QUICK, "--scenario", "recovery", "--loss", "torch.nn:MSELoss",
        "--format", "json", "png",
    )  # fmt: skip
    assert code == 2
    assert err == f"dense-imb curves: error: No space left on device: {tmp_path}/recovery.png.\n"
    assert out.split() == [str(path) for path in tmp_path.iterdir()]
    assert [path.name for path in tmp_path.iterdir()] == ["recovery.json"]


def test_gap_is_a_warning(capsys, tmp_path):
    code, _, err = run(
        capsys, "--out", tmp_path, "--frame", "6x10", "--scenario", "signal-size",
        "--loss", "tests.curves.stand_in:Gap",
    )  # fmt: skip
    assert code == 0
    assert err == (
        "dense-imb curves: warning: a gap in signal-size: Gap returned nan at "
        "signal size = 0.5333 and at 14 more points\n"
    )


@pytest.mark.slow
def test_everything_in_seconds(capsys, tmp_path):
    start = time.process_time()
    code, out, err = run(capsys, "--out", tmp_path)
    assert (code, err) == (0, "")
    # 13 s when it was measured; processor time, so that a busy machine does not fail it
    assert time.process_time() - start < 40
    assert len(out.split()) == 4 * (3 + len(SCENARIOS))
