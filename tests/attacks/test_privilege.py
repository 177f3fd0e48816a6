"""A site's command sees what the site lists for it, and no token of ours."""

from __future__ import annotations

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


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in (
        "GITHUB_TOKEN",
        "RPP_RPC_TOKEN",
        "RUNBOOK_SCRATCH",
        "SSH_AUTH_SOCK",
        "LANG",
        "TMPDIR",
    ):
        monkeypatch.setenv(name, f"/value/of/{name}")
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    made = World(tmp_path / "tape", Redactor())
    yield made
    made.close()


class Nothing(Wire):
    """An answer of which nothing is read."""


def shows(*env: str) -> reach.Command:
    return reach.Command(argv=[sys.executable, "-c", SHOW], env=list(env))


@pytest.mark.parametrize("env", [(), ("SSH_AUTH_SOCK",), ("NOT_SET", "RPP_RPC_TOKEN")])
def test_a_command_gets_what_a_shell_needs_and_what_is_listed(
    world: World, env: tuple[str, ...]
) -> None:
    """Nothing else of the operator's environment, whatever its name."""
    seen = json.loads(world.scope().run(shows(*env)).stdout)

    assert set(seen) == ALWAYS | {"LC_CTYPE"} | set(env) - {"NOT_SET"}


def test_a_suite_of_the_candidate_sees_no_token(world: World) -> None:
    """Its own code runs there."""
    script = 'echo "skipping $GITHUB_TOKEN$RPP_RPC_TOKEN$RUNBOOK_SCRATCH!"'
    suite = reach.Command(argv=["sh", "-c", script])
    run = SiteCommands(world.scope(), site.Commands(suites={"tests/x": suite})).suite("tests/x")

    assert run.skipped_lines == ("skipping !",)


def test_a_changing_command_and_one_that_asks_a_node_get_their_own_list(
    world: World, tmp_path: Path
) -> None:
    """The shell that keeps the exit code hands on no more; each node's command has a list too."""
    scope = world.scope()
    with (tmp_path / "lock").open("w") as lock:
        ended = scope.run(
            shows("SSH_AUTH_SOCK"), purpose="change", lock=lock.fileno(), outputs=tmp_path / "step"
        )
    assert not set(json.loads(ended.stdout)) & {"GITHUB_TOKEN", "RPP_RPC_TOKEN"}
    assert json.loads(ended.stdout)["SSH_AUTH_SOCK"] == "/value/of/SSH_AUTH_SOCK"

    say = 'printf "HTTP/1.1 200 OK\\r\\n\\r\\n{}"; env >"{path}"'
    values = example()["clusters"]["development"]
    command = {"argv": ["sh", "-c", say], "env": ["RPP_RPC_TOKEN"]}
    node = {"name": "a", "validator": "v", "peer": "p", "control": "ours", "rpc_command": command}
    cluster = Cluster.model_validate({**values, "nodes": [node]})
    Fleet(scope, cluster).get(str(tmp_path / "seen"), Nothing)
    seen = (tmp_path / "seen").read_text()
    assert "RPP_RPC_TOKEN=/value/of/RPP_RPC_TOKEN" in seen
    assert "GITHUB_TOKEN" not in seen


def example() -> dict[str, Any]:
    return parse_yaml((PROJECT / "params/sites/example.yaml").read_bytes(), "s.yaml")


def parsed(values: dict[str, Any]) -> Site:
    return parse_site(json.dumps(values).encode(), "s.yaml")


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("GITHUB_TOKEN", "expected no secret, got GITHUB_TOKEN"),
        ("CHAT_WEBHOOK", "expected no secret, got CHAT_WEBHOOK"),
        ("CARGO_REGISTRY_PASSWORD", "expected no secret, got CARGO_REGISTRY_PASSWORD"),
        ("A=B", "expected the name of an environment variable, got something else"),
    ],
)
def test_a_suite_that_lists_a_secret_is_refused(variable: str, problem: str) -> None:
    """One that the site names elsewhere, or one whose name says so."""
    values = example()
    values["commands"]["suites"]["tests/pipeline"]["env"] = [variable]
    where = "env.0" if "=" in variable else "env"

    with pytest.raises(ParameterError) as caught:
        parsed(values)
    assert str(caught.value) == f"s.yaml: commands.suites.tests/pipeline.{where}: {problem}"


def test_a_listed_variable_whose_name_says_secret_is_kept_out_of_the_evidence() -> None:
    """Nobody has to name it twice; an agent's socket is no secret."""
    values = example()
    values["commands"]["deploy"]["env"] = ["OPS_API_KEY", "SSH_AUTH_SOCK"]

    assert parsed(values).secret_names() - parsed(example()).secret_names() == {"OPS_API_KEY"}


def test_a_recovery_kit_forgets_the_tokens_that_its_commands_do_not_list() -> None:
    """It is run in a shell that may hold them all."""
    values = example()
    values["commands"]["deploy"]["env"] = ["PROXY_TOKEN", "SSH_AUTH_SOCK"]
    made = Kit("v1.4.0/canary/0001", "v1.4.0", "canary", Mock(), ())

    [line] = [line for line in script(made, parsed(values)).splitlines() if b"unset" in line]
    names = line.decode().removeprefix("unset _ ").partition(" #")[0].split()
    assert set(names) == parsed(values).secret_names() - {"PROXY_TOKEN"}
