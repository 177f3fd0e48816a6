"""A site's command sees what the site lists for it, and no token of ours."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib import reach, site
from runbook_lib.changes.kit_script import Kit, script
from runbook_lib.clusters import Cluster
from runbook_lib.errors import ParameterError
from runbook_lib.site import Site, parse_site
from runbook_lib.sources.commands import SiteCommands
from runbook_lib.sources.node import Fleet
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.wire import Wire
from runbook_lib.strict import PROJECT, parse_yaml

from ..sources.conftest import World

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
ALWAYS = {"PATH", "HOME", "LANG", "TMPDIR"}
OURS = {
    "GITHUB_TOKEN", "RPP_RPC_TOKEN", "RUNBOOK_SCRATCH", "RUNBOOK_SIGNING_PASSPHRASE",
    "SSH_AUTH_SOCK",
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in OURS | {"LANG", "TMPDIR"}:
        monkeypatch.setenv(name, f"/value/of/{name}")
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    made = World(tmp_path / "tape", Redactor())
    yield made
    made.close()


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
    cluster = Cluster.model_validate({**example()["clusters"]["development"], "nodes": [node]})
    Fleet(world.scope(), cluster).get(str(tmp_path / "seen"), Nothing)
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert seen & OURS == {"RPP_RPC_TOKEN"}


def example() -> dict[str, Any]:
    return parse_yaml((PROJECT / "params/sites/example.yaml").read_bytes(), "s.yaml")


def parsed(values: dict[str, Any]) -> Site:
    return parse_site(json.dumps(values).encode(), "s.yaml")


@pytest.mark.parametrize("variable", ["GITHUB_TOKEN", "CHAT_WEBHOOK", "CARGO_REGISTRY_PASSWORD"])
def test_a_suite_that_lists_a_secret_is_refused(variable: str) -> None:
    """One that the site names elsewhere, or one whose name says so."""
    values = example()
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
    values = example()
    values["clock"] = {"source": "offset-file", "path": "c", "wait": {"argv": ["wind"]}}
    node = {"name": "a", "rpc_command": {"argv": ["ask"]}}
    values["clusters"]["testnet"]["nodes"] = [node]
    at: Any = values
    *tables, last = key.removesuffix(".0").split(".")
    for name in tables:
        at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
    at[last] = [variable] if key.endswith(".0") else variable

    with pytest.raises(ParameterError) as caught:
        parsed(values)
    assert f"s.yaml: {key}: expected no variable of the signing key, got {variable!r}" in (
        caught.value.problems
    )


def test_a_listed_variable_whose_name_says_secret_is_one_and_a_kit_forgets_the_others() -> None:
    """Nobody has to name it twice; a kit is run in a shell that may hold them all."""
    values = example()
    values["commands"]["deploy"]["env"] = ["OPS_API_KEY", "PROXY_TOKEN", "SSH_AUTH_SOCK"]
    named = parsed(values).secret_names()
    assert named - parsed(example()).secret_names() == {"OPS_API_KEY"}

    made = Kit("v1.4.0/canary/0001", Mock(), ())
    [line] = [line for line in script(made, parsed(values)).splitlines() if b"unset" in line]
    names = line.decode().removeprefix("unset _ ").partition(" #")[0].split()
    assert set(names) == named - {"OPS_API_KEY", "PROXY_TOKEN"}
