"""A site's command sees what the site lists for it, and no token of ours."""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import nbformat
import pytest
from jupyter_client.kernelspec import get_kernel_spec
from jupyter_client.manager import run_kernel

import runbook_lib
from runbook_lib import reach, site
from runbook_lib.changes.kit import Kit, script
from runbook_lib.errors import NotebookError, ParameterError
from runbook_lib.launch import prepare_copy
from runbook_lib.notebook import KERNEL, NOTEBOOKS, filled_in
from runbook_lib.playbook import NOTEBOOKS as NAMES
from runbook_lib.site import Cluster, Site, parse_site
from runbook_lib.sources.commands import SiteCommands
from runbook_lib.sources.node import Fleet
from runbook_lib.sources.wire import Wire

from ..conftest import example_site, put, ran
from ..messages import saying
from ..sources.conftest import World

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
ALWAYS = {"PATH", "HOME", "LANG", "TMPDIR"}
OURS = {
    "GITHUB_TOKEN", "RPP_RPC_TOKEN", "RUNBOOK_SCRATCH", "RUNBOOK_SIGNING_PASSPHRASE",
    "SSH_AUTH_SOCK",
}  # fmt: skip


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in OURS | {"LANG", "TMPDIR"}:
        monkeypatch.setenv(name, f"/value/of/{name}")
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    return world


class Nothing(Wire):
    """An answer of which nothing is read."""


@pytest.mark.parametrize("env", [(), ("SSH_AUTH_SOCK",), ("NOT_SET", "RPP_RPC_TOKEN")])
@pytest.mark.parametrize("changing", [False, True])
def test_a_command_gets_what_a_shell_needs_and_what_is_listed(
    world: World, tmp_path: Path, env: tuple[str, ...], changing: bool
) -> None:
    """Nothing else of the operator's environment, whether it reads or changes."""
    command = reach.Command(argv=[sys.executable, "-c", SHOW], env=list(env))
    with (tmp_path / "lock").open("w") as lock:
        more = {"purpose": "change", "lock": lock.fileno(), "outputs": tmp_path / "step"}
        seen = json.loads(world.scope().run(command, **more if changing else {}).stdout)  # type: ignore[arg-type]

    assert set(seen) - {"PWD", "SHLVL", "_", "OLDPWD"} == ALWAYS | {"LC_CTYPE"} | set(env) - {"NOT_SET"}  # fmt: skip


def test_the_candidates_suite_sees_no_token_and_a_nodes_command_its_own(
    world: World, tmp_path: Path
) -> None:
    """The suite is the candidate's own code; the node's command has a list of its own."""
    suite = reach.Command(argv=["sh", "-c", 'echo "skipping $GITHUB_TOKEN$RPP_RPC_TOKEN!"'])
    run = SiteCommands(world.scope(), site.Commands(suites={"tests/x": suite})).suite("tests/x")
    assert run.stdout == b"skipping !\n"

    argv = ["sh", "-c", 'printf "HTTP/1.1 200 OK\\r\\n\\r\\n{}"; env >"{path}"']
    command = {"argv": argv, "env": ["RPP_RPC_TOKEN"]}
    node = {"name": "a", "validator": "v", "peer": "p", "control": "ours", "rpc_command": command}
    cluster = Cluster.model_validate({**example_site()["clusters"]["development"], "nodes": [node]})
    Fleet(world.scope(), cluster).get(str(tmp_path / "seen"), Nothing)
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert seen & OURS == {"RPP_RPC_TOKEN"}


def parsed(values: dict[str, Any]) -> Site:
    return parse_site(json.dumps(values).encode(), "s.yaml")


@pytest.mark.parametrize("variable", ["GITHUB_TOKEN", "CHAT_WEBHOOK", "CARGO_REGISTRY_PASSWORD"])
def test_a_suite_that_lists_a_secret_is_refused(variable: str) -> None:
    """One that the site names elsewhere, or one whose name says so."""
    values = example_site()
    values["commands"]["suites"]["tests/pipeline"]["env"] = [variable]

    with pytest.raises(ParameterError) as caught:
        parsed(values)
    where = "s.yaml: commands.suites.tests/pipeline.env"
    assert str(caught.value) == f"{where}: expected no secret, got {variable}"


@pytest.mark.parametrize("variable", ["RUNBOOK_SIGNING_KEY", "RUNBOOK_SIGNING_PASSPHRASE"])
@pytest.mark.parametrize(
    "key",
    [
        *("commands.deploy.env.0", "commands.suites.tests/pipeline.env.0"),
        *("clock.wait.env.0", "clusters.testnet.nodes.0.rpc_command.env.0"),
        *("forge.token_env", "telemetry.prometheus.headers_env.x-key", "secrets_env.0"),
    ],
)
def test_nobody_is_handed_the_key_that_signs(key: str, variable: str) -> None:
    """No command by its environment, no server by a header."""
    values = example_site()
    values["clock"] = {"source": "offset-file", "path": "c", "wait": {"argv": ["wind"]}}
    values["clusters"]["testnet"]["nodes"] = [{"name": "a", "rpc_command": {"argv": ["ask"]}}]
    name = key.removesuffix(".0")
    put(values, name, [variable] if name != key else variable)

    with pytest.raises(ParameterError) as caught:
        parsed(values)
    assert f"s.yaml: {key}: expected no variable of the signing key, got {variable!r}" in (
        caught.value.problems
    )


def test_a_listed_variable_whose_name_says_secret_is_one_and_a_kit_forgets_the_others() -> None:
    """Nobody has to name it twice; a kit is run in a shell that may hold them all."""
    values = example_site()
    values["commands"]["deploy"]["env"] = ["OPS_API_KEY", "PROXY_TOKEN", "SSH_AUTH_SOCK"]
    named = parsed(values).secret_names()
    assert named - parsed(example_site()).secret_names() == {"OPS_API_KEY"}

    made = Kit("v1.4.0/canary/0001", Mock(), ())
    [line] = [line for line in script(made, parsed(values)).splitlines() if b"unset" in line]
    names = line.decode().removeprefix("unset _ ").partition(" #")[0].split()
    assert set(names) == named - {"OPS_API_KEY", "PROXY_TOKEN"}


# --- A kernel imports nothing from the folder it works in, whoever starts it ----------------------


EVIL = "import os; open(os.environ['MARK'], 'a').write(__name__ + '\\n')\n"
LAID = "runbook_lib/__init__ numpy sitecustomize runbook_lib ipykernel_launcher json jsonschema"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the store's ``recovery/`` would be, everything in it a colleague's."""
    folder = tmp_path / "recovery"
    for name in [*(f"{name}.py" for name in LAID.split()), "evil.pth"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(EVIL)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    for name in [name for name in os.environ if name.startswith("RUNBOOK_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.mark.parametrize("path", ["", ".", os.pathsep, f"..{os.pathsep}."])
def test_a_kernel_started_by_its_name_runs_nothing_beside_it(
    beside: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """As plain Jupyter starts it, also where PYTHONPATH is relative."""
    monkeypatch.setenv("PYTHONPATH", path)
    said: list[Any] = []
    code = "import runbook_lib, numpy, json; print(runbook_lib.__file__)"
    with run_kernel(kernel_name=KERNEL, cwd=str(beside), startup_timeout=120) as client:
        client.execute_interactive(code, timeout=120, output_hook=said.append)

    text = "".join(message["content"].get("text", "") for message in said)
    assert text == f"{runbook_lib.__file__}\n"
    assert not (beside.parent / "mark").exists()


def test_a_run_started_in_such_a_folder_runs_nothing_beside_it(beside: Path) -> None:
    """The engine takes our kernel, whichever the notebook and the command name."""
    book = nbformat.read(NOTEBOOKS / NAMES["preflight"], as_version=4)
    book.metadata["kernelspec"]["name"] = "python3"
    nbformat.write(book, beside / "book.ipynb")
    papermill = Path(sys.executable).with_name("papermill")
    argv = (papermill, "--engine", "runbook", "-k", "python3", "book.ipynb", "out.ipynb")
    done = ran(*argv, cwd=beside, env={**os.environ, "RUNBOOK_REPLAY_OK": "1"})

    assert done.returncode in (0, 1, 2, 4), done.stderr
    assert not (beside.parent / "mark").exists()


def test_notebooks_and_copies_name_the_kernel(tmp_path: Path) -> None:
    """So that plain Jupyter starts it, for what is laid ready, too."""
    spec = get_kernel_spec(KERNEL)
    laid = [json.loads(filled_in(NOTEBOOKS / name, {})) for name in NAMES.values()]

    assert {book["metadata"]["kernelspec"]["name"] for book in laid} == {"runbook"}
    assert spec.argv[:4] == ["python", "-P", "-m", "ipykernel_launcher"]
    assert spec.env == {"PYTHONPATH": ""}


@pytest.mark.parametrize("name", ["python3", "evil", ""])
def test_a_copy_that_names_another_kernel_is_not_opened(tmp_path: Path, name: str) -> None:
    """Somebody edited it since."""
    path = prepare_copy("canary", {}, tmp_path)
    assert prepare_copy("canary", {}, tmp_path) == path
    path.write_text(path.read_text().replace('"name": "runbook"', f'"name": "{name}"'))
    with saying(NotebookError, f"{path}: expected the kernel runbook, got {name!r}; remove it"):
        prepare_copy("canary", {}, tmp_path)
