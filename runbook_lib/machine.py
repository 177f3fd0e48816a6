"""What a run needs of the machine before its kernel starts."""

import json
import resource
from contextlib import suppress
from pathlib import Path

from .errors import MachineError, NotebookError
from .notebook import KERNEL
from .strict import PROJECT

OPEN_FILES = 256


def require_kernel() -> None:
    """Jupyter finds our kernel by its name, and it may open files. Raises NotebookError, MachineError.

    A folder of ``JUPYTER_PATH`` or of the user may hold another by that name, which would judge.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    ours, found = PROJECT / "kernels" / KERNEL, None
    folder = KernelSpecManager().find_kernel_specs().get(KERNEL, "none")
    with suppress(OSError, ValueError):
        found = json.loads(Path(folder, "kernel.json").read_bytes())
    if found != json.loads((ours / "kernel.json").read_bytes()):
        do = "install this package anew, or take that folder out of JUPYTER_PATH"
        raise NotebookError(f"kernel {KERNEL}: expected a copy of {ours}, got {folder}; {do}")
    if (limit := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) < OPEN_FILES:
        raise MachineError(f"ulimit -n: expected at least {OPEN_FILES} open files, got {limit}")
