"""The one place that starts a process: the site's commands, without a shell.

A command that only reads is ended when its time is up. One that changes the world is not: it
inherits the cluster's lock and writes to files, so that it neither dies with us nor is left
unseen, and whoever comes next waits for it or sees that it is still at work.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..files import open_own
from ..strict import PROJECT

MAX_OUTPUT = 16 * 1024 * 1024
# Leaves the command's exit code beside its output, also when nobody waits for it any more.
_KEEP_CODE = (
    'rm -f "$0.code"; "$@"; code=$?; echo $code >"$0.tmp" && mv "$0.tmp" "$0.code"; exit $code'
)


@dataclass(frozen=True)
class Ended:
    """How a command ended. ``code`` is None when it could not be started or did not end in time.

    ``digest`` is that of stdout with its secrets, where somebody asked to keep it.
    """

    code: int | None
    stdout: bytes
    stderr: bytes
    problem: str = ""
    digest: str = ""
    raw: bytes | None = field(default=None, repr=False)


def _environment(names: Sequence[str] = ()) -> dict[str, str]:
    """What a shell needs, and ``names``: a candidate's own code runs here and may send it on."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name in ("HOME", "LANG", "TMPDIR", *names) or name.startswith("LC_")
    }
    # `python3` in a site's command is the interpreter we run on.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**given, "PATH": path}


def program(name: str) -> str:
    """Where a command's program lies; as it was named when it is not found."""
    return name if os.sep in name else shutil.which(name, path=_environment()["PATH"]) or name


def run(
    argv: list[str],
    *,
    timeout_s: float,
    env: Sequence[str] = (),
    lock: int | None = None,
    outputs: Path | None = None,
) -> Ended:
    """Run ``argv`` in the project root. With ``lock`` (a descriptor) it is a changing command.

    ``outputs`` is a path stem: a changing command writes to ``<stem>.out`` and ``<stem>.err``, and
    its exit code to ``<stem>.code`` even when we are gone before it ends.
    """
    if lock is not None and outputs is not None:
        argv = ["/bin/sh", "-c", _KEEP_CODE, str(outputs), *argv]
    with _output(outputs, ".out") as out, _output(outputs, ".err") as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=PROJECT,
                env=_environment(env),
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
            )
        except OSError as error:
            return Ended(None, b"", b"", f"cannot be started: {error.strerror}")
        problem = ""
        try:
            _await(process, timeout_s)
        except subprocess.TimeoutExpired:
            problem = f"still at work after {timeout_s:g} s (process {process.pid})"
            if lock is None:
                _end(process)
                problem = f"ended by us after {timeout_s:g} s"
        except BaseException:  # an interrupt: what only reads need not go on
            if lock is None:
                _end(process)
            raise
        code = None if problem else process.returncode
        return Ended(code, _head(out), _head(err), problem)


def _output(stem: Path | None, suffix: str) -> IO[bytes]:
    """A file to keep, or one without a name, of which nothing is left even when we are killed."""
    if stem is None:
        return tempfile.TemporaryFile()
    file = os.fdopen(open_own(stem.with_name(stem.name + suffix)), "r+b")
    file.truncate()
    return file


def _await(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Raises subprocess.TimeoutExpired.

    ``Popen.wait`` with a time-out looks twice as late each time, up to 50 ms: a stage runs dozens.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or an old one
        process.wait(timeout_s)
        return
    try:
        end = select.poll()
        end.register(descriptor, select.POLLIN)
        ended = end.poll(timeout_s * 1000)
    finally:
        os.close(descriptor)
    process.wait(None if ended else 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MAX_OUTPUT)
