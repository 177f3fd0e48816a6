"""Commands: ended in time when they only read, never when they change the world."""

import os
import re
import sys
from pathlib import Path

import pytest

from runbook_lib.sources.process import Ended, run
from runbook_lib.strict import PROJECT

from ..conftest import until


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_commands_code_its_output_to_16_mib_and_its_input_are_as_they_are() -> None:
    code = "import os,sys; print(os.getcwd()); print('bad', file=sys.stderr); sys.exit(3)"
    ended = run(python(code), timeout_s=60)
    assert ended == Ended(3, f"{PROJECT}\n".encode(), b"bad\n")
    # Its input ends, so that it never waits for a terminal.
    turned = run(python("import sys; print(sys.stdin.read()[::-1])"), timeout_s=60, stdin=b"abc")
    assert turned.stdout == b"cba\n"
    long = run(python("import sys; sys.stdout.write('x' * (17 << 20))"), timeout_s=60)
    assert len(long.stdout) == 16 << 20
    gone = run(["/no/such/command"], timeout_s=60)
    assert (gone.code, gone.problem) == (None, "cannot be started: No such file or directory")


def test_a_reading_command_has_no_lock_of_ours_that_it_could_keep(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)
    ended = run(python(f"import os; os.fstat({lock})"), timeout_s=60)
    os.close(lock)
    assert ended.code == 1


def test_ends_are_seen_where_the_system_has_no_descriptor_of_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    ended, late = run(["true"], timeout_s=60), run(["sleep", "60"], timeout_s=0.05)
    assert (ended.code, late.code, late.problem) == (0, None, "ended by us after 0.05 s")


def test_a_reading_command_is_ended_with_its_children() -> None:
    code = (
        "import subprocess,sys,time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    ended = run(python(code), timeout_s=1)
    assert (ended.code, ended.problem) == (None, "ended by us after 1 s")
    until(lambda: is_gone(int(ended.stdout)), "the end of its child")


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_changing_command_is_left_to_finish_with_the_lock(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    code = (
        f"import os, pathlib, sys, time\nos.fstat({lock})\nprint('working', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)\nsys.exit(5)"
    )
    stem, left = tmp_path / "step", tmp_path / "step.code"
    left.write_text("0\n")
    ended = run(python(code), timeout_s=1, lock=lock, outputs=stem)
    os.close(lock)
    assert (ended.code, ended.stdout) == (None, b"working\n")
    assert re.fullmatch(r"still at work after 1 s \(process \d+\)", ended.problem)
    assert not left.exists()
    (tmp_path / "go").touch()
    until(left.exists, "its exit code")
    assert left.read_text() == "5\n"


def test_a_changing_command_that_does_not_exist_ends_with_the_shells_code(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        outputs = {"lock": lock.fileno(), "outputs": tmp_path / "step"}
        ended = run(["/no/such/command"], timeout_s=60, **outputs)
    assert (ended.code, ended.problem) == (127, "")
    assert b"/no/such/command" in ended.stderr
