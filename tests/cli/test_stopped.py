"""Signals end a command in order: temporary files are removed, one line says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
from torch.multiprocessing.spawn import ProcessExitedException

from dense_imb.base.files import write_whole
from dense_imb.base.refusals import mark_shared
from dense_imb.cli import main
from dense_imb.cli._parser import Parser
from dense_imb.cli._script import continuable, guarded
from dense_imb.engine import launch


def test_a_signal_removes_temporary_files_and_has_its_own_exit_code(tmp_path, capsys):
    def work() -> None:
        def write(partial):
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

        write_whole(tmp_path / "whole.txt", write)

    before = signal.getsignal(signal.SIGTERM)
    assert guarded(Parser(program="dense-imb convert"), work) == 143
    assert capsys.readouterr().err == "dense-imb convert: stopped\n"
    assert [*tmp_path.iterdir()] == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_that_is_stopped_before_it_begins_can_be_continued(capsys):
    def work() -> None:
        signal.raise_signal(signal.SIGTERM)

    assert guarded(Parser(program="dense-imb train hits"), work) == 75
    assert capsys.readouterr().err == "dense-imb train hits: stopped\n"


def test_a_stop_that_a_library_hides_is_a_stop(capsys):
    def work() -> None:
        with suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        assert guarded(Parser(program="dense-imb export"), work) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "dense-imb export: stopped\n"


def test_a_handler_of_the_caller_stays(capsys):
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        assert guarded(Parser(), lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_command_that_can_be_continued_says_how(number, capsys):
    with (
        pytest.raises(SystemExit) as ended,
        continuable("dense-imb compare", "repeat the command to continue"),
    ):
        os.kill(os.getpid(), number)
    assert ended.value.code == 75
    told = capsys.readouterr().err
    name = signal.Signals(number).name
    assert told == f"dense-imb compare: stopped by {name}; repeat the command to continue\n"


@pytest.mark.parametrize(
    ("words", "early"),
    [
        (["train", "hits", "--out", "run"], "dense_imb.cli.train.config_of"),
        (["compare", "images"], "dense_imb.cli.compare._config"),
        (["demo"], "dense_imb.demo.demo"),
    ],
)
def test_such_a_command_is_continued_also_if_it_was_stopped_before_it_trained(
    words, early, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(early, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 75
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("rank", "n_sentences"), [("0", 1), ("1", 0)])
def test_a_refusal_of_all_processes_is_printed_by_the_first(rank, n_sentences, monkeypatch, capsys):
    def refuse() -> None:
        raise mark_shared(ValueError("Expected a, got b."))

    monkeypatch.setenv("RANK", rank)
    assert guarded(Parser(program="dense-imb train hits"), refuse) == 2
    assert capsys.readouterr().err.count("Expected a, got b.") == n_sentences


class _Process:
    """A process as `start_processes` returns it."""

    def __init__(self) -> None:
        words = [sys.executable, "-c", "import time; time.sleep(60)"]
        self._process = subprocess.Popen(words)
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def wait(self, grace_period: float) -> bool:
        raise ProcessExitedException("", 0, self.pid, self._process.wait(20))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_processes_that_are_just_started(number, code, monkeypatch):
    process = _Process()

    def start(*_: object, **__: object) -> SimpleNamespace:
        os.kill(os.getpid(), number)
        return SimpleNamespace(processes=[process], join=process.wait)

    module = sys.modules["dense_imb.engine.launch"]
    monkeypatch.setattr(module, "start_processes", start)
    assert launch(main, [], 1) == code
    assert not process.is_alive()


ORPHAN = """
import os, signal, sys, time
from dense_imb.engine import launch
def train(words):
    open(words[0], "w").close()
if __name__ == "__main__":
    launch(train, sys.argv[1:], 1)
else:  # in the new process, which imports this module before it does anything
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.1)
"""


def test_a_process_whose_parent_is_killed_while_it_imports_trains_nothing(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    command = [sys.executable, "orphan.py", "trained"]
    # its output ends when the orphan does
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stderr == ""
    assert not (tmp_path / "trained").exists()


SLOW = """
import os, signal, sys, time
from dense_imb.engine import launch
if __name__ == "__main__":
    launch(print, [], 1)
else:  # in the new process, which imports this module before it does anything
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
"""


def test_ctrl_c_waits_until_a_process_has_imported_everything(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "process 0 was ended by SIGINT" in done.stderr


@pytest.fixture
def hears_hangups():
    """Let SIGHUP end this process, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_hangups")
def test_a_closed_terminal_stops_the_processes(monkeypatch):
    process = _Process()

    def join(grace_period: float) -> bool:
        os.kill(os.getpid(), signal.SIGHUP)
        return False

    context = SimpleNamespace(processes=[process], join=join)
    module = sys.modules["dense_imb.engine.launch"]
    monkeypatch.setattr(module, "start_processes", lambda *_, **__: context)
    assert guarded(Parser(), lambda: launch(main, [], 1)) == 129
    with pytest.raises(ProcessExitedException):
        process.wait(0)
    assert process.exitcode == -signal.SIGTERM
