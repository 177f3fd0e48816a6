"""Commands: what their words mean, and how they end."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import reach
from runbook_lib.canonical import digest_bytes
from runbook_lib.checks.suites import SuiteRun, read_suite
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources import wire
from runbook_lib.sources.commands import Probe, Provisioned, ToolVerdict, fill
from runbook_lib.sources.process import Ended, run
from runbook_lib.sources.tape import read_entries
from runbook_lib.strict import PROJECT

from ..conftest import until
from ..messages import saying
from .conftest import World, commands, says

DIGEST, COMMIT = "sha256:" + "d" * 64, "c" * 40
BUILD = {"digest": DIGEST, "commit": COMMIT, "version": "v1.4.0"}


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
        (reach.Command(argv=["sleep", "60"], timeout_s=0.1),
         "expected the command to end, got: ended by us after 0.1 s"),
        (reach.Command(argv=["/no/such/command"]), "expected the command to end, got: cannot be started: No such file or directory"),
    ],
)  # fmt: skip
def test_an_unreadable_version_is_an_error(
    world: World, command: reach.Command | None, problem: str
) -> None:
    with saying(SourceError, f"version n1: {problem}"):
        commands(world, version=command).version("n1")
    said = "suite tests/x: expected commands.suites.tests/x in the site file, got none"
    with saying(SourceError, said):
        commands(world).suite("tests/x")


def test_a_config_is_kept_byte_for_byte_and_its_secrets_stay_off_the_tape(world: World) -> None:
    text = b'a = 1\r\n \n[network.rpc]\nauth_token = "do-not-tell-anyone"\n'
    found = commands(world, read_config=says(text.decode())).read_config("n1")

    assert found.text == text.replace(b"do-not-tell-anyone", b"[redacted]")
    assert (found.raw, found.digest, found.secret) == (text, digest_bytes(text), True)
    bodies = [p for p in world.folder.rglob("*") if p.is_file() and p.name != "index.jsonl"]
    assert not [path for path in bodies if b"do-not-tell" in path.read_bytes()]
    assert not commands(world, read_config=says("a = 1\n")).read_config("n2").secret


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (says(err="dry run completed"), ToolVerdict(True, "dry run completed")),
        (
            says(err="configuration error: unknown configuration key(s): rollout.x, a.b\nmore", code=2),
            ToolVerdict(False, "configuration error: unknown configuration key(s): rollout.x, a.b\nmore", ("rollout.x", "a.b")),
        ),
        (
            says(err="configuration error: missing field `data_dir`", code=2),
            ToolVerdict(False, "configuration error: missing field `data_dir`"),
        ),
    ],
)  # fmt: skip
def test_the_chains_verdict_on_a_config(
    world: World, command: reach.Command, expected: ToolVerdict
) -> None:
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
    said = "dry_run config.toml: expected exit code 0, or 2 with 'configuration error:', got"
    with saying(SourceError, f"{said} {code}: {text}"):
        commands(world, dry_run=says(err=text, code=code)).dry_run(Path("/x/config.toml"))


def test_a_probe_reports_what_it_saw(world: World) -> None:
    body = {"backend": "prometheus", "reachable": False, "status": None, "latency_ms": None}
    asked = commands(world, probe=says(json.dumps(body)))
    assert asked.probe("prometheus") == Probe(**body)
    with saying(SourceError, "probe alertmanager: expected 'alertmanager', got 'prometheus'"):
        asked.probe("alertmanager")


def test_promtools_verdict_on_the_tests_of_a_rule(world: World, tmp_path: Path) -> None:
    passed = says("  SUCCESS", "Unit Testing:  t.yaml", 0, "{file}")
    failed = "  FAILED:\n    expr: x, time: 2h30m,\n        exp: {} 1E+00\n        got: nil"

    assert commands(world, test_rules=passed).test_rules(tmp_path / "t.yaml").ok
    found = commands(world, test_rules=says("", failed, 1)).test_rules(tmp_path / "t.yaml")
    assert found == ToolVerdict(False, failed.strip())


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
    said = f"test_rules: expected promtool's SUCCESS or FAILED, got {got};"
    with saying(SourceError, f"{said} install promtool where commands.test_rules runs"):
        commands(world, test_rules=command).test_rules(Path("t.yaml"))


def test_revision_and_tree(world: World) -> None:
    asked = commands(world, revision=says(COMMIT + "\n"), tree_status=says(" M file\n?? other\n"))
    assert asked.revision() == COMMIT
    assert asked.tree_status() == " M file\n?? other"
    assert commands(world, tree_status=says()).tree_status() == ""
    with saying(SourceError, "revision: expected 40 hex digits, got 'main'"):
        commands(world, revision=says("main")).revision()


# --- a test suite's own count ---------------------------------------------------------------------

GREEN = "running 3 tests\ntest a ... ok\ntest skipping_b ... ok\ntest c ... ignored, skipping it\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n"
NEXT = "    Starting \x1b[1m3\x1b[0m tests across 2 binaries (1 skipped)\n        PASS [   0.004s] node skipping_b\n     Summary [   0.020s] 3 tests run: 3 passed (1 slow), 1 skipped\n"
RED = "running 1 test\ntest d ... FAILED\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n"


@pytest.mark.parametrize(
    ("out", "code", "expected"),
    [
        (GREEN, 0, SuiteRun(0, 3, 2, 0, 1, True, ())),
        (GREEN + RED, 101, SuiteRun(101, 4, 2, 1, 1, True, ())),
        (GREEN + RED.split("\n\n")[0], 101, SuiteRun(101, 4, 2, 0, 1, False, ())),
        (GREEN.replace("running 3", "running 5"), 0, SuiteRun(0, 5, 2, 0, 1, False, ())),
        (GREEN + "Skipping: cluster cannot start\n", 0, SuiteRun(0, 3, 2, 0, 1, True, ("Skipping: cluster cannot start",))),
        (f"warning: unused `skipping`\n --> a.rs:3\n  |\n3 |  let skipping\n{GREEN}", 0, SuiteRun(0, 3, 2, 0, 1, True, ())),
        (f"warning: skipping duplicate package\n    Running skipping.rs\n{GREEN}warning: skipping", 0, SuiteRun(0, 3, 2, 0, 1, True, ("warning: skipping",))),
        (NEXT, 0, SuiteRun(0, 3, 3, 0, 1, True, ())),
        (NEXT.replace("3 passed (1 slow)", "1 passed, 1 failed, 1 timed out"), 100, SuiteRun(100, 3, 1, 2, 1, True, ())),
        (NEXT.replace("3 tests run: 3", "2/3 tests run: 2"), 100, SuiteRun(100, 3, 2, 0, 1, False, ())),
        (NEXT.partition("Summary")[0], 100, SuiteRun(100, 3, 0, 0, 0, False, ())),
        (GREEN.replace("ok.", "\x1b[32mok\x1b[0m."), 0, SuiteRun(0, 3, 2, 0, 1, True, ())),
        ("", 0, SuiteRun(0, 0, 0, 0, 0, True, ())),
        ("error: no test target named `x`", 101, SuiteRun(101, 0, 0, 0, 0, True, ())),
    ],
)  # fmt: skip
def test_a_suites_own_count(world: World, out: str, code: int, expected: SuiteRun) -> None:
    ended = commands(world, suites={"tests/x": says(out, code=code)}).suite("tests/x")
    assert read_suite(ended) == expected


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 3), max_size=4))
def test_counts_add_up_over_any_number_of_binaries(counts: list[tuple[int, int, int]]) -> None:
    text = "".join(
        f"running {sum(each)} test{'' if sum(each) == 1 else 's'}\nnoise\ntest result: "
        f"{'FAILED' if each[1] else 'ok'}. {each[0]} passed; {each[1]} failed; {each[2]} ignored;"
        " 0 measured; 0 filtered out; finished in 1.00s\n\n"
        for each in counts
    )
    run = read_suite(Ended(0, text.encode(), b""))
    sums = tuple(sum(each[n] for each in counts) for n in range(3))
    assert (run.passed, run.failed, run.ignored, run.complete) == (*sums, True)
    assert run.announced == sum(sums)


@given(
    st.text() | st.lists(st.sampled_from([*GREEN.splitlines(), *NEXT.splitlines()])).map("\n".join)
)
def test_no_other_text_is_a_count(text: str) -> None:
    run = read_suite(Ended(0, text.encode(), b""))
    assert not run.passed or re.search(r"test result: ok\. 2|Summary \[", text)
    assert not (run.passed and run.complete) or re.search(r"running 3|Starting", text)


# --- commands that change the world ---------------------------------------------------------------


def test_placeholders_are_filled_once_and_only_known_ones() -> None:
    words = ["{a}-{b}", "{}", '{"k": 1}']
    assert fill("commands.x", words, a="{b}", b="2") == ["{b}-2", *words[1:]]
    with saying(ParameterError, "site: commands.x: expected placeholders among {a}, {b}, got {c}"):
        fill("commands.x", ["{c}"], b="2", a="1")
    with saying(ParameterError, "site: commands.x: expected placeholders among none, got {c}"):
        fill("commands.x", ["{c}"])


def test_changes_are_marked_as_such_and_return_how_they_ended(world: World, tmp_path: Path) -> None:
    words = ["{node}", "{artifact}", "{digest}", "{config}"]
    asked = commands(
        world,
        deploy=says("done", "", 0, *words),
        restart=says("", "no", 3),
        provision=says(
            '{"node": "n9", "url": "http://127.0.0.9:1/"}', "", 0, "{cluster}{name}{config}"
        ),
        deprovision=says(),
    )
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    end = {"lock": lock, "outputs": tmp_path / "step"}
    values = {"artifact": "/artifact", "digest": DIGEST, "config": "/config"}
    ended = [
        asked.change("deploy", "n1", node="n1", **values)(**end),
        asked.change("restart", "n1", node="n1")(**end),
        asked.change("provision", "n9", cluster="dev", name="n9", config="/config")(**end),
        asked.change("deprovision", "n9")(**end),
    ]
    os.close(lock)
    assert [each.code for each in ended] == [0, 3, 0, 0]
    assert ended[1].stderr == b"no"
    entries = read_entries(world.folder)
    assert {entry.purpose for entry in entries} == {"change"}
    assert entries[0].key.endswith(f'"n1", "/artifact", "{DIGEST}", "/config"]')
    made = wire.decode("provision n9", ended[2].stdout, Provisioned)
    assert made == Provisioned(node="n9", url="http://127.0.0.9:1")


def test_a_node_is_provisioned_at_a_url() -> None:
    wrong = b'{"node": "n9", "url": "ftp://x"}'
    with saying(
        SourceError,
        "provision n9: url: expected an http(s) URL without credentials, query or fragment, got 'ftp://x'",
    ):
        wire.decode("provision n9", wrong, Provisioned)


# --- How a command ends: in time when it only reads, never when it changes the world --------------


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
    assert run(python(code), timeout_s=60) == Ended(3, f"{PROJECT}\n".encode(), b"bad\n")
    # Its input ends, so that it never waits for a terminal.
    assert run(python("import sys; print(sys.stdin.read())"), timeout_s=60).stdout == b"\n"
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
