"""dense-imb denoise: files in, the same hits with a verdict out."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import pytest
import torch

from dense_imb.cli import main
from dense_imb.config import TrainConfig
from dense_imb.hits import (
    Events,
    Geometry,
    HitsFile,
    MissingShardsError,
    mask_file,
    mask_files,
    open_hits,
    read_masking,
    verify,
)
from dense_imb.hits.baselines import HitDensity, Identity
from dense_imb.hits.drift import EventProfile
from dense_imb.metrics import OperatingPoint
from dense_imb.tasks.kind import kind_named


def run(*arguments: object) -> int:
    return main(["denoise", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for seed in range(3):
        name = f"{folder / 'abc'[seed]}.h5"
        options = ["--events", "20", "--signal", "30", "--noise", "60", "--seed", str(seed)]
        assert main(["simulate", name, *options]) == 0
    return folder


@dataclass
class Model:
    """A trained model as far as the commands know one."""

    name: str = "net"
    geometry: Geometry | None = None
    n_classes: int = 2

    def score(self, events: Events) -> torch.Tensor:
        return HitDensity().score(events)


class Run:
    """A run on hits as far as the commands know one."""

    model = Model()
    config = TrainConfig()
    kind = kind_named("hits")
    folder = Path("run")
    devices: ClassVar[list[str | None]] = []  # of the networks that were loaded

    def trained(self, *, device: str | None = None) -> Model:
        self.devices.append(device)
        return self.model

    def require(self, kind: str, what: str) -> None:
        assert kind == "hits"

    def validation_events(self) -> None:
        """As a run of an older version."""

    def operating_point(
        self, *, retention: float = 0.97, fakes: float | None = None, purity: float | None = None
    ) -> OperatingPoint:
        threshold = 1 - retention if fakes is purity is None else (fakes or purity)
        return OperatingPoint(threshold, "probability", retention, 0.5, 0.5, 10, 10)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("dense_imb.runs.open_run", lambda path: Run())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    return tmp_path / "run"


def test_a_file_comes_out_with_its_hits_and_a_verdict(folder, tmp_path, capsys):
    source, target = folder / "a.h5", tmp_path / "clean.h5"
    assert run("hit-density", source, target, "--choose-on", folder / "b.h5") == 0
    before, after = verify(source), verify(target)
    assert all(after[name] == digest for name, digest in before.items() if name != "/")
    with HitsFile(target) as hits:
        made_by, keep = read_masking(hits), hits[:].hit["keep"]
        label = hits[:].label
    assert made_by.scorer == "hit density"
    assert 0.97 <= made_by.operating_point.retention < 0.99
    printed = capsys.readouterr()
    assert f"{target}: 20 events, 1,800 hits, {keep.sum():,} kept" in printed.out
    assert "% of the signal kept; " in printed.out
    assert keep[label > 0].mean() > 0.9
    assert keep[label == 0].mean() < 0.5
    assert "denoise" in printed.err  # the progress bars
    assert "choose threshold" in printed.err


def test_a_baseline_with_options_says_so_in_the_file(folder, tmp_path, capsys):
    model = "hit-density(radius_xy=5,radius_t=10)"
    assert run(model, folder / "a.h5", tmp_path / "x.h5", "--threshold", 0.5) == 0
    with HitsFile(tmp_path / "x.h5") as hits:
        assert read_masking(hits).scorer == "hit density (radius_xy=5, radius_t=10)"
        score = torch.from_numpy(hits[:].hit["score"])
        assert torch.equal(score, HitDensity(5, 10).score(hits[:]))
    assert "scaled" not in capsys.readouterr().err


def test_the_reaches_of_a_baseline_follow_the_frame(folder, tmp_path, capsys):
    small = tmp_path / "small.h5"
    size = ["--width", "45", "--height", "40", "--time-steps", "100", "--events", "3"]
    assert main(["simulate", str(small), *size]) == 0
    assert run("hit-density", small, tmp_path / "x.h5", "--threshold", 0.5) == 0
    assert "scaled to 45 x 40 x 100: hit density radius_xy=8" in capsys.readouterr().err
    with HitsFile(tmp_path / "x.h5") as hits:
        score = torch.from_numpy(hits[:].hit["score"])
        assert torch.equal(score, HitDensity(8, 12).score(hits[:]))
    out = ("--out", tmp_path / "out", "--threshold", 0.5)
    assert run("hit-density", folder / "a.h5", small, *out) == 2
    assert "Expected files of one geometry for hit density" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_kept_hits(folder, tmp_path, capsys):
    arguments = ("median-filter", folder / "a.h5", tmp_path / "k.h5", "--threshold", 0.01)
    assert run(*arguments, "--only-kept") == 0
    with HitsFile(tmp_path / "k.h5") as hits:
        assert f"1,800 hits, {hits.n_hits:,} kept" in capsys.readouterr().out
        assert 0 < hits.n_hits < 1800
        assert len(hits) == 20


def test_a_folder_of_files_skips_finished_ones(folder, tmp_path, capsys):
    out = tmp_path / "clean"
    assert run("hit-density", folder / "a.h5", "--out", out, "--threshold", 0.8) == 0
    first = (out / "a.h5").stat().st_mtime_ns
    assert run("hit-density", folder / "*.h5", "--out", out, "--threshold", 0.8) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.h5", "b.h5", "c.h5"]
    assert (out / "a.h5").stat().st_mtime_ns == first
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("finished before") for line in lines] == [False, True, False, False]
    assert run("hit-density", folder / "*.h5", "--out", out, "--threshold", 0.7) == 2
    assert "got one by hit density at 0.8" in capsys.readouterr().err
    assert run("hit-density", folder / "*.h5", "--out", out, "--threshold", 0.7, "--overwrite") == 0
    assert (out / "a.h5").stat().st_mtime_ns != first


def test_only_the_same_scorer_source_and_options_are_finished(folder, tmp_path, capsys):
    source, out = tmp_path / "a.h5", tmp_path / "clean"
    shutil.copy(folder / "a.h5", source)
    words = (source, "--out", out, "--threshold", 0.8)
    assert run("hit-density", *words) == 0
    with HitsFile(out / "a.h5") as hits:
        masking = read_masking(hits)
    assert masking is not None
    assert (masking.scorer, masking.operating_point.threshold) == ("hit density", 0.8)
    assert len(masking.scorer_digest or "") == len(masking.source_digest or "") == 16
    before = (out / "a.h5").read_bytes()
    for scorer, more, sentence in [
        ("median-filter", (), "to be masked by median filter at 0.8"),
        ("hit-density(radius_xy=5)", (), "got one by hit density"),
        ("hit-density", ("--only-kept",), "with kept hits only, got one by"),
    ]:
        assert run(scorer, *words, *more) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "choose another name or folder, or pass --overwrite" in error
    shutil.copy(folder / "b.h5", source)  # another source of this name
    assert run("hit-density", *words) == 2
    assert "a.h5 to hold the hits of" in capsys.readouterr().err
    shutil.copy(folder / "a.h5", source)
    with h5py.File(source, "r+") as file:
        file["hit/t"][0] += 1  # edited in place
    assert run("hit-density", *words) == 2
    assert "restore the file from a copy" in capsys.readouterr().err
    assert (out / "a.h5").read_bytes() == before


def test_an_interrupted_call_is_resumed(folder, tmp_path, capsys, monkeypatch):
    words = ("hit-density", folder / "a.h5", tmp_path / "x.h5", "--threshold", 0.5)
    words = (*words, "--batch-size", 4)
    calls = []

    def failing(self: HitDensity, events: Events) -> torch.Tensor:
        calls.append(len(events))
        if len(calls) == 7:
            raise OSError("the disk is full")
        return score(self, events)

    score = HitDensity.score
    with monkeypatch.context() as patch:
        patch.setattr(HitDensity, "score", failing)
        assert run(*words, "--resume") == 2
    assert len([*(tmp_path / "x.h5.shards").glob("*.h5")]) == 3
    assert run(*words, "--shards") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "got 3 of 5, of an earlier call; finish it with --resume, or begin again with" in error
    assert run(*words, "--resume") == 0
    assert run(*words[:2], tmp_path / "y.h5", *words[3:]) == 0
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()
    assert run(*words, "--resume") == 0
    assert "finished before" in capsys.readouterr().out
    assert run(*words, "--threshold", 0.6, "--resume") == 2
    assert "got one by hit density at 0.5; choose another name" in capsys.readouterr().err


def test_shards_are_left_on_demand(folder, tmp_path, capsys):
    words = ("hit-density", folder / "*.h5", "--threshold", 0.5, "--batch-size", 4, "--shards")
    for ending in ("", "finished before"):
        assert run(*words, "--out", tmp_path / "out") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.endswith(ending) for line in lines] == [True] * 3
    with open_hits(tmp_path / "out" / "b.h5.shards" / "*.h5") as hits:
        assert (len(hits), len(hits.files)) == (20, 5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.h5.shards",
        "b.h5.shards",
        "c.h5.shards",
    ]


def test_missing_shards_of_other_processes_have_the_code_of_a_resumable_call(
    folder, tmp_path, capsys, monkeypatch
):
    def missing(*arguments: object, **options: object) -> None:
        raise MissingShardsError("5 shards", "4", "repeat the command with {resume}")

    monkeypatch.setattr("dense_imb.hits.shards.mask_in_shards", missing)
    words = ("hit-density", folder / "a.h5", tmp_path / "x.h5", "--threshold", 0.5, "--resume")
    assert run(*words) == 75
    error = "dense-imb denoise: error: Expected 5 shards, got 4; repeat the command with --resume."
    assert capsys.readouterr().err.splitlines()[-1] == error


def test_unlike_events_are_noticed(folder, tmp_path, trained, capsys, monkeypatch):
    profile = EventProfile()
    with open_hits(folder / "a.h5") as hits:
        profile.update(hits[:], HitDensity().score(hits[:]))
    monkeypatch.setattr(Run, "validation_events", lambda self: profile)
    assert run(trained, folder / "b.h5", tmp_path / "x.h5") == 0
    assert "warning" not in capsys.readouterr().err
    noisy = str(tmp_path / "noisy.h5")
    assert main(["simulate", noisy, "--events", "20", "--signal", "30", "--noise", "600"]) == 0
    assert run(trained, noisy, tmp_path / "y.h5") == 0
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"dense-imb denoise: warning: {noisy} looks unlike the validation ")
    assert "about 630 hits (median), 90 in validation" in error


def test_the_network_runs_on_the_device(folder, tmp_path, trained, capsys, monkeypatch):
    monkeypatch.setattr(Run, "devices", [])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = (trained, folder / "a.h5", tmp_path / "x.h5", "--overwrite", "--device")
    assert run(*words, "cpu") == 0
    assert run(*words, "auto") == 0
    assert Run.devices == ["cpu", None]
    assert run(*words, "cuda") == 2
    assert "a GPU for --device cuda, got none" in capsys.readouterr().err


def test_a_run_brings_its_operating_point(folder, tmp_path, trained):
    assert run(trained, folder / "a.h5", tmp_path / "x.h5", "--retention", 0.75) == 0
    assert run(trained, folder / "a.h5", tmp_path / "y.h5", "--threshold", 0.5) == 0
    assert run(trained, folder / "a.h5", tmp_path / "z.h5", "--fakes", 0.125) == 0
    assert run(trained, folder / "a.h5", tmp_path / "w.h5", "--purity", 0.75) == 0
    wanted = (("x.h5", 0.25), ("y.h5", 0.5), ("z.h5", 0.125), ("w.h5", 0.75))
    for name, threshold in wanted:
        with HitsFile(tmp_path / name) as hits:
            assert read_masking(hits).scorer == "net"
            assert read_masking(hits).operating_point.threshold == threshold


def test_a_run_of_another_frame_is_refused_before_any_work(
    folder, tmp_path, trained, monkeypatch, capsys
):
    monkeypatch.setattr(Run, "model", Model(geometry=Geometry(44, 64, 1000)))
    for target in ((tmp_path / "x.h5",), ("--out", tmp_path / "out")):
        assert run(trained, folder / "a.h5", *target) == 2
        error = capsys.readouterr().err.splitlines()
        assert "44 x 64 pixels and 1000 time steps, as net was trained on" in error[-1]
    assert list(tmp_path.iterdir()) == [trained]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["hit-densty", "a.h5", "x.h5"], "Did you mean 'hit-density'?"),
        (["runs/unet", "a.h5", "x.h5"], "Expected the folder of a run at runs/unet, got none."),
        (["hit-density", "a.h5", "x.h5"], "Expected --choose-on, a labelled hits file"),
        (["hit-density", "a.h5", "--threshold", "0.5"], "got 1 files; name the folder"),
        (["hit-density", "a.h5", "b.h5", "x.h5"], "got 3 files; name the folder"),
        (["hit-density", "a.h5", "b.h5"], "Expected no file at b.h5, got one"),
        (["hit-density", "a.h5", "b.h5", "--overwrite"], "got b.h5, which is none; remove it"),
        (
            ["blank", "a.h5", "x.h5", "--threshold", "2"],
            "Expected `threshold` from 0 to 1, as scores are, got 2.",
        ),
        (
            ["blank", "a.h5", "x.h5", "--threshold", "-1"],
            "`threshold` to be a number of at least 0",
        ),
        (["blank", "d.h5", "x.h5", "--threshold", "1"], "/d.h5, got none. Did you mean "),
        (["blank", "a.h5", "no/x.h5", "--threshold", "1"], "No such file or directory"),
        (["blank", "a.h5", "x.h5", "--choose-on", "b.h5", "--retention", "2"], "above 0 and up to"),
        (["blank", "a.h5", "x.h5", "--choose-on", "b.h5", "--threshold", "1"], "got both"),
        (["blank", "a.h5", "x.h5", "--threshold", "1", "--batch-size", "0"], "`batch_size`"),
        (["blank", "a.h5", "x.h5", "--threshold", "1", "--fakes", "1"], "--fakes or --threshold"),
        (
            ["blank", "a.h5", "x.h5", "--choose-on", "b.h5", "--fakes", "1", "--purity", "0.9"],
            "Expected one of --retention, --fakes and --purity, got fakes and purity; drop one.",
        ),
        (
            ["blank", "a.h5", "x.h5", "--choose-on", "b.h5", "--fakes", "1"],
            "Expected noise-only events for --fakes, got none; add events without signal "
            "(dense-imb simulate FILE --signal 0 --noise 200 makes some), or choose by --retention",
        ),
        (
            ["identity", "a.h5", "x.h5", "--choose-on", "b.h5", "--purity", "0.9"],
            "Expected a threshold with --purity 0.9, got a purity of at most 0.3333 at any "
            "threshold; choose --purity 0.333 or less.",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    folder, capsys, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(*arguments) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_nearest_run_is_suggested(folder, trained, tmp_path, capsys):
    (tmp_path / "rum").mkdir()  # no run
    assert run(tmp_path / "runn", folder / "a.h5", tmp_path / "x.h5") == 2
    wanted = f"Expected the folder of a run at {tmp_path / 'runn'}, got none. Did you mean "
    assert f"{wanted}'{trained}'?" in capsys.readouterr().err


def test_a_table_is_no_hits_file_and_is_converted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my hits.csv").write_text("event,x,y,t\n0,1,1,1\n")
    assert run("blank", "my hits.csv", "x.h5", "--threshold", "1") == 2
    error = capsys.readouterr().err
    assert f"got a CSV file; make a hits file of it: dense-imb convert '{tmp_path}/my hits" in error
    words = shlex.split(error[error.index("convert") :].rstrip(".\n"))
    assert main([*words, "--width", "8", "--height", "8"]) == 0
    assert run("blank", "my hits.h5", "x.h5", "--threshold", "1") == 0


def test_the_help_names_both_ways_to_write_files(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    usage = capsys.readouterr().out.split("\n\n")[0]
    assert "MODEL IN OUT" in usage
    assert "MODEL IN ... --out FOLDER" in usage


def test_overwrite_replaces_denoised_files(folder, tmp_path):
    target = tmp_path / "x.h5"
    assert run("blank", folder / "a.h5", target, "--threshold", 0.5) == 0
    assert run("identity", folder / "b.h5", target, "--threshold", 0.5, "--overwrite") == 0
    with HitsFile(target) as hits:
        assert read_masking(hits).scorer == "identity"


def test_raw_data_in_a_folder_are_never_replaced(folder, tmp_path, capsys):
    """`--out FOLDER` of other raw files, with --overwrite."""
    other = Path(shutil.copy(folder / "b.h5", tmp_path / "a.h5"))
    before = other.read_bytes()
    words = ("identity", folder / "a.h5", "--out", tmp_path, "--threshold", 0.5)
    for more in ((), ("--overwrite",), ("--overwrite", "--shards")):
        assert run(*words, *more) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "a.h5" in error
        assert "--overwrite;" not in error
        assert not error.endswith("--overwrite.")
        assert other.read_bytes() == before
    for call in (mask_files, lambda one, to, *how, **o: mask_file(one, to / "a.h5", *how, **o)):
        with pytest.raises(ValueError, match="to replace a denoised file, got .*a.h5, which is no"):
            call(folder / "a.h5", tmp_path, Identity(), 0.5, overwrite=True)


def test_overwrite_replaces_nothing_foreign(folder, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("precious")
    arguments = ("blank", folder / "a.h5", tmp_path / "notes.txt", "--threshold", 0.5)
    assert run(*arguments, "--overwrite") == 2
    assert "to replace a denoised file" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_dbscan_without_scikit_learn_says_the_cure(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert run("dbscan", folder / "a.h5", tmp_path / "x.h5", "--threshold", 0.5) == 2
    assert "pip install scikit-learn" in capsys.readouterr().err


def test_noise_only_events_beside_the_others_choose_by_fakes(folder, tmp_path, capsys):
    """The cure of the refusal works: simulated events without signal, in a second file."""
    empty = tmp_path / "empty.h5"
    size = ("--events", "20", "--signal", "0", "--noise", "60", "--seed", "9", "--quiet")
    assert main(["simulate", str(empty), *size]) == 0
    (tmp_path / "signal.h5").write_bytes((folder / "b.h5").read_bytes())
    both, target = tmp_path / "*.h5", tmp_path / "out"
    common = ("hit-density", folder / "a.h5", "--out", target, "--choose-on", both)
    assert run(*common, "--fakes", 0.5) == 0
    with HitsFile(target / "a.h5") as hits:
        point = read_masking(hits).operating_point
    assert point.n_noise_only == 20
    assert 0 < point.fakes <= 0.5


def test_a_rule_denoises_hits_of_sensors(tmp_path):
    from tests.runs.tiny import write_events
    from tests.tasks.hits.test_networks_of_hits import telescope_events

    raw, clean = tmp_path / "raw.h5", tmp_path / "clean.h5"
    write_events(raw, telescope_events(3))
    main(["denoise", "hit-density", str(raw), str(clean), "--threshold", "0.5", "--quiet"])
    assert HitsFile(clean)[:].hit["keep"].any()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_leaves_no_half_written_file(folder, tmp_path, monkeypatch, number):
    words = ("hit-density", folder / "a.h5", tmp_path / "clean.h5", "--threshold", 0.5)
    score, left = HitDensity.score, []

    def stopped(self: HitDensity, events: Events) -> torch.Tensor:
        if events.n_hits:
            left.extend(tmp_path.iterdir())
            os.kill(os.getpid(), number)
        return score(self, events)

    monkeypatch.setattr(HitDensity, "score", stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        assert run(*words) == 128 + number
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(left) == 1
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
