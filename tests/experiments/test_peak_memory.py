"""The measurement of peak memory has every command, and measures the command alone."""

from pathlib import Path

from tests.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "peak_memory.py"


def test_the_sizes_are_options():
    done = run_script(SCRIPT, "--help")
    assert done.returncode == 0
    for option in ("--events", "--scored-events", "--side", "--images", "--sections"):
        assert option in done.stdout


def test_the_peak_is_that_of_the_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import peak_memory

    row = peak_memory.Row("simulate", "", "simulate a.h5 --events 20 --photons 30 --quiet")
    peak, seconds = peak_memory.measure(row, tmp_path)
    assert 100 < peak < 5000
    assert seconds > 0.1
    assert (tmp_path / "a.h5").exists()


def test_every_command_of_data_has_a_row(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import peak_memory

    rows = [*peak_memory.rows_of_hits([100], [50]), *peak_memory.rows_of_large_images(64),
            *peak_memory.rows_of_small_images(9)]  # fmt: skip
    commands = {row.words.split()[0] for row in rows}
    assert commands == {"simulate", "convert", "inspect", "train", "evaluate", "denoise",
                        "report", "segment", "predict", "compare", "export"}  # fmt: skip
