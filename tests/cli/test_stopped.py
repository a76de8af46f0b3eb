"""Signals end a command in order: temporary files are removed, one line says so."""

from __future__ import annotations

import os
import signal

import pytest

from dense_imb.base.files import write_whole
from dense_imb.cli._parser import Parser
from dense_imb.cli._script import continuable, guarded


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
