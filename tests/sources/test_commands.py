"""The site's commands: typed answers, and no answer mistaken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbook_lib import reach
from runbook_lib.canonical import digest_bytes
from runbook_lib.errors import SourceError
from runbook_lib.sources.commands import Build, DryRun, RuleTest
from runbook_lib.sources.stage_commands import Probe
from runbook_lib.sources.tape import read_entries

from .conftest import World, commands, says

DIGEST, COMMIT = "sha256:" + "d" * 64, "c" * 40
BUILD = {"digest": DIGEST, "commit": COMMIT, "version": "v1.4.0"}


def test_version_tells_the_build_that_runs(world: World) -> None:
    """Digest, commit and version, as the site's inspection prints them."""
    found = commands(world, version=says(json.dumps(BUILD), "", 0, "{node}")).version("n1")
    assert found == Build(digest=DIGEST, commit=COMMIT, version="v1.4.0")
    assert read_entries(world.folder)[0].key.endswith('"0", "n1"]')


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (None, "expected commands.version in the site file, got none"),
        (says(code=1), "expected exit code 0, got 1: it said nothing"),
        (says(err="a\nno such node\n", code=4), "expected exit code 0, got 4: no such node"),
        (says("on stdout", code=4), "expected exit code 0, got 4: on stdout"),
        (says(""), "expected JSON, got: EOF while parsing a value at line 1 column 0"),
        (says(json.dumps(BUILD | {"digest": "d" * 64})), f"digest: expected text matching '^sha256:[0-9a-f]{{64}}$', got '{'d' * 64}'"),
        (says(json.dumps({"digest": DIGEST})), "commit: expected a value, got none (and 1 more)"),
        (reach.Command(argv=["/no/such/command"]), "expected the command to end, got: cannot be started: No such file or directory"),
    ],
)  # fmt: skip
def test_an_unreadable_version_is_an_error(
    world: World, command: reach.Command | None, problem: str
) -> None:
    """Not knowing what runs is not the same as the right thing running."""
    with pytest.raises(SourceError) as caught:
        commands(world, version=command).version("n1")
    assert str(caught.value) == f"version n1: {problem}"


def test_a_command_that_hangs_is_an_error(world: World) -> None:
    """After its own time-out."""
    hanging = reach.Command(argv=["sleep", "60"], timeout_s=0.1)
    with pytest.raises(SourceError) as caught:
        commands(world, read_config=hanging).read_config("n1")
    assert str(caught.value) == (
        "read_config n1: expected the command to end, got: ended by us after 0.1 s"
    )


def test_a_config_is_kept_byte_for_byte(world: World) -> None:
    """Line ends and blanks matter to a digest."""
    text = b"a = 1\r\n \n"
    found = commands(world, read_config=says(text.decode())).read_config("n1")

    assert (found.text, found.raw, found.digest) == (text, text, digest_bytes(text))
    assert not found.secret


def test_the_secrets_of_a_config_stay_off_the_tape(world: World) -> None:
    """Its digest is that of the whole file; what is recorded and compared is without them."""
    text = b'[network.rpc]\nauth_token = "do-not-tell-anyone"\n'
    found = commands(world, read_config=says(text.decode())).read_config("n1")

    assert found.text == b'[network.rpc]\nauth_token = "[redacted]"\n'
    assert (found.raw, found.digest, found.secret) == (text, digest_bytes(text), True)
    bodies = [path for path in world.folder.rglob("*") if path.is_file()]
    assert not [
        path
        for path in bodies
        if path.name != "index.jsonl" and b"do-not-tell" in path.read_bytes()
    ]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (says(err="dry run completed"), DryRun(True, (), "dry run completed")),
        (
            says(err="configuration error: unknown configuration key(s): rollout.x, a.b\nmore", code=2),
            DryRun(False, ("rollout.x", "a.b"), "configuration error: unknown configuration key(s): rollout.x, a.b\nmore"),
        ),
        (
            says(err="configuration error: missing field `data_dir`", code=2),
            DryRun(False, (), "configuration error: missing field `data_dir`"),
        ),
    ],
)  # fmt: skip
def test_the_chains_verdict_on_a_config(
    world: World, command: reach.Command, expected: DryRun
) -> None:
    """Valid, or invalid in the chain's own words."""
    assert commands(world, dry_run=command).dry_run(Path("/x/config.toml")) == expected


@pytest.mark.parametrize("given", ["", "--strict-config-validation"])
def test_a_dry_run_is_strict_whatever_the_site_says(world: World, given: str) -> None:
    """Without the flag the chain passes over unknown keys; it is added once."""
    echo = reach.Command(argv=["echo", "{config}", *filter(None, [given])])

    said = commands(world, dry_run=echo).dry_run(Path("/x/c.toml")).text
    assert said == "/x/c.toml --strict-config-validation"


@pytest.mark.parametrize(
    ("code", "text"),
    [(2, "error: unexpected argument '--dry-run' found"), (1, "panicked"), (3, "configuration error: x")],
)  # fmt: skip
def test_other_ends_of_a_dry_run_are_no_verdict(world: World, code: int, text: str) -> None:
    """The command line's own usage error ends with 2 as well."""
    with pytest.raises(SourceError) as caught:
        commands(world, dry_run=says(err=text, code=code)).dry_run(Path("/x/config.toml"))
    assert str(caught.value) == (
        "dry_run config.toml: expected exit code 0, or 2 with 'configuration error:',"
        f" got {code}: {text}"
    )


def test_a_probe_reports_what_it_saw(world: World) -> None:
    """Unreachable is an answer; another backend's answer is none."""
    body = {"backend": "prometheus", "reachable": False, "status": None, "latency_ms": None}
    asked = commands(world, probe=says(json.dumps(body)))
    assert asked.probe("prometheus") == Probe(
        backend="prometheus", reachable=False, status=None, latency_ms=None
    )
    with pytest.raises(SourceError) as caught:
        asked.probe("alertmanager")
    assert str(caught.value) == "probe alertmanager: expected 'alertmanager', got 'prometheus'"


def test_promtools_verdict_on_the_tests_of_a_rule(world: World, tmp_path: Path) -> None:
    """Passed, or failed with what was seen in place of what was asked for."""
    passed = says("  SUCCESS", "Unit Testing:  t.yaml", 0, "{file}")
    failed = "  FAILED:\n    expr: x, time: 2h30m,\n        exp: {} 1E+00\n        got: nil"

    assert commands(world, test_rules=passed).test_rules(tmp_path / "t.yaml").ok
    found = commands(world, test_rules=says("", failed, 1)).test_rules(tmp_path / "t.yaml")
    assert found == RuleTest(False, failed.strip())


@pytest.mark.parametrize(
    ("command", "got"),
    [
        (says(err="  FAILED:\n1:89: parse error", code=1), "1: 1:89: parse error"),
        (says(err="promtool: not found", code=127), "127: promtool: not found"),
        (says(err="no such flag", code=0), "0: no such flag"),
        (says(), "0: it said nothing"),
    ],
)
def test_other_ends_of_a_rule_test_are_no_verdict(
    world: World, command: reach.Command, got: str
) -> None:
    """Exit code 1 alone is no disproof, exit code 0 alone no proof."""
    with pytest.raises(SourceError) as caught:
        commands(world, test_rules=command).test_rules(Path("t.yaml"))
    assert caught.value.problem == (
        f"expected promtool's SUCCESS or FAILED, got {got};"
        " install promtool where commands.test_rules runs"
    )


def test_revision_and_tree(world: World) -> None:
    """40 hex digits; a clean tree says nothing, a leading blank counts."""
    asked = commands(world, revision=says(COMMIT + "\n"), tree_status=says(" M file\n?? other\n"))
    assert asked.revision() == COMMIT
    assert asked.tree_status() == " M file\n?? other"
    assert commands(world, tree_status=says()).tree_status() == ""
    with pytest.raises(SourceError) as caught:
        commands(world, revision=says("main")).revision()
    assert str(caught.value) == "revision: expected 40 hex digits, got 'main'"
