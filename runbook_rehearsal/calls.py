"""Answers ``run.sh``, by which the site's commands are started, by files and pipes in ``calls/``.

Who asks writes a command's words to a file named after its process id, makes a pipe ``.answer`` beside
it and puts the id into ``asked``. The answer is a line (exit code, whether anything was printed, whether
``.said`` holds a complaint) and what was printed.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

Carry = Callable[[list[str], Path], tuple[int, str, str]]
"""Words of a command and the folder it was called in -> exit code, what it prints, its complaint."""


class Calls:
    """Commands asked for in ``root``, carried out in threads until ``stop``."""

    def __init__(self, root: Path, carry: Carry) -> None:
        self._folder, self._carry = root / "calls", carry
        self._folder.mkdir(mode=0o700)
        os.mkfifo(self._folder / "asked", 0o600)
        self._reader = threading.Thread(target=self._read, name="rehearsal-calls", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        (self._folder / "pid").unlink(missing_ok=True)
        (self._folder / "asked").write_text("stop\n")
        self._reader.join()

    def _read(self) -> None:
        # Opened for both, so that it has no end while nobody asks.
        with os.fdopen(os.open(self._folder / "asked", os.O_RDWR), "rb", buffering=0) as asked:
            (self._folder / "pid").write_text(f"{os.getpid()}\n")
            for line in iter(asked.readline, b"stop\n"):
                threading.Thread(target=self._answer, args=(int(line),), daemon=True).start()

    def _answer(self, pid: int) -> None:
        call = self._folder / str(pid)
        cwd, *words, _ = call.read_bytes().decode(errors="surrogateescape").split("\0")
        call.unlink()
        try:
            code, printed, said = self._carry(words, Path(cwd))
        except Exception as error:  # whoever asked waits
            code, printed, said = 1, "", f"rehearsal network: {error!r}\n"
        if said:
            call.with_suffix(".said").write_text(said)
        there = ("text" if text else "none" for text in (printed, said))
        with suppress(OSError), _opened(call.with_suffix(".answer"), pid) as answer:
            print(code, *there, file=answer)
            answer.write(printed)
        call.with_suffix(".answer").unlink()


def _opened(pipe: Path, pid: int) -> IO[str]:
    """The pipe once whoever asked reads it. Raises OSError when they are gone."""
    while True:
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            os.kill(pid, 0)
            time.sleep(0.001)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "w")
