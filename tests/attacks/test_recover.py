"""A recovery's parameters are those of the log: who can write the store can edit what lies ready."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbook_lib import launch
from runbook_lib.errors import LogDamaged, ParameterError, StageRefused
from runbook_lib.evidence import seal
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.store import Store
from runbook_lib.opening import prepare_attempt
from runbook_lib.params import way_back

from ..conftest import Terminal
from ..messages import saying
from .conftest import ATTESTATION, MALLORY, attest, chained, resealed

REASON = "the forge is down, called ada"
NEXT = "to go on with others than the log's give the reason: --reason 'WHY'"


@pytest.fixture
def ready(
    practice: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The parameters that lie ready in an attempt; ``ran`` are those of every stage that is run."""
    path = practice.sealed() / "recovery" / "params.yaml"
    path.parent.mkdir(exist_ok=True)
    opened = Store(practice.root / "store").attempts("v1.4.0")[-1].opened
    path.write_text(yaml.safe_dump(way_back(opened)))
    ran = list[Any]()

    def run_stage(stage: str, params: Any, **more: Any) -> Any:
        ran.append(params)
        return SimpleNamespace(exit_code=0, verdict=None, folder=None, problems=[])

    monkeypatch.setattr(launch, "run_stage", run_stage)
    yield SimpleNamespace(path=path, ran=ran, terminal=Terminal(capsys), site=str(practice.site))


def recovery(practice: Any, **more: Any) -> dict[str, Any]:
    keys = ("site", "release", "commit", "mode")
    return {**{key: practice.params[key] for key in keys}, **more}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("site", "/tmp/another/site.yaml"),
        ("release", "v6.6.6"),
        ("nodes", ["main-1"]),
        ("takeover_minutes", 0.01),
        ("break_glass", "as good as any other reason"),
        ("undoes", 7),
    ],
)
def test_a_parameter_that_is_not_the_logs_is_refused(ready: Any, name: str, value: Any) -> None:
    """Another site, release or node, or what lets an edited file pass."""
    logged = yaml.safe_load(ready.path.read_text()).get(name)
    edit(ready.path, **{name: value})

    assert ready.terminal.run("recover", "development", "-f", ready.path) == 3
    assert ready.terminal.err == (
        f"{ready.path}: {name}: expected {logged!r} as the log has it, got {value!r}\n"
        f"{ready.path}: {NEXT}\n"
    )
    assert ready.ran == []


def test_a_reason_lets_others_pass_and_what_is_left_out_is_the_logs(ready: Any) -> None:
    """The reason goes into the recovery's log; what people are told may be written into the file."""
    ready.path.write_text("nodes: [dev-1]\nsummary: rewards were paid twice\n")

    assert ready.terminal.run("recover", "development", "-f", ready.path, "--reason", REASON) == 0
    (ran,) = ready.ran
    assert (ran["nodes"], ran["break_glass"], ran["undoes"]) == (["dev-1"], REASON, 1)
    assert (ran["site"], ran["release"], ran["mode"]) == (ready.site, "v1.4.0", "apply")


@pytest.mark.parametrize("how", ["gone", "empty", "a link"])
def test_without_its_log_a_file_that_lies_ready_is_refused(ready: Any, how: str) -> None:
    """Deleting the log is no way around it."""
    log = ready.path.parents[1] / "log.jsonl"
    other = log.rename(log.with_name("other"))
    if how != "gone":
        log.write_text("") if how == "empty" else log.symlink_to(other)

    assert ready.terminal.run("recover", "development", "-f", ready.path) == 3
    assert ready.ran == []


def test_an_attempts_own_parameters_are_held_to_its_log(ready: Any) -> None:
    """``run --continue -f <attempt>/params.yaml`` is as easily led elsewhere."""
    path = ready.path.parents[1] / "params.yaml"
    edit(path, site="/tmp/x.yaml")

    assert ready.terminal.run("run", "development", "--continue", "-f", path) == 3
    assert ready.terminal.err == (
        f"{path}: site: expected {ready.site!r} as the log has it, got '/tmp/x.yaml'\n"
        f"{path}: {NEXT}\n"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("commit", "d" * 40), ("issue", 7), ("previous_release", "v0")]
)
def test_a_recovery_opened_by_hand_is_held_to_the_log_it_undoes(
    practice: Any, name: str, value: Any
) -> None:
    """In JupyterLab, where no command reads the file."""
    practice.params |= {"issue": 3, "previous_release": "v1.3.0"}
    practice.sealed()
    given = recovery(practice, **{name: value})
    with pytest.raises(ParameterError) as caught:
        prepare_attempt("development_recovery", given, "by hand")
    made = prepare_attempt("development_recovery", {**given, "break_glass": REASON}, "by hand")

    where = "v1.4.0/development/0001"
    assert str(caught.value) == (
        f"{where}: {name}: expected {practice.params[name]!r} as the log has it, got {value!r}\n"
        f"{where}: {NEXT}"
    )
    assert made.opened.params["break_glass"] == REASON


def altered(folder: Path) -> None:
    chained(folder, lambda found: found[0].update(operator="mallory"))


def unsigned(folder: Path) -> None:
    attest(folder, seal.seals(folder)[0].payload)


FORGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "log": (altered, "5 log: "),
    "log and seal": (
        lambda folder: (altered(folder), resealed(folder, MALLORY)),
        "2 signers: no signature of a listed key; ",
    ),
    "no seal": (
        lambda folder: shutil.rmtree(folder / seal.FOLDER), "1 attestations: no attestation; ",
    ),
    "no signature": (unsigned, "2 signers: no signature of a listed key"),
    "a seal without end": (
        lambda folder: (folder / ATTESTATION).write_bytes(b"[" * 100_000), "1 attestations: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["apply", "plan"])
@pytest.mark.parametrize(("alter", "said"), FORGED.values(), ids=FORGED)
def test_a_recovery_takes_nothing_of_a_sealed_apply_whose_signature_does_not_hold(
    practice: Any, alter: Callable[[Path], object], said: str, mode: str
) -> None:
    """Neither to change nodes nor to plan it; with a reason it does, which the log keeps."""
    alter(practice.sealed())
    given = recovery(practice, mode=mode)
    with pytest.raises(LogDamaged) as caught:
        prepare_attempt("development_recovery", given, "by hand")
    made = prepare_attempt("development_recovery", {**given, "break_glass": REASON}, "by hand")

    wanted = "v1.4.0/development/0001: expected its log as it was signed, got "
    assert str(caught.value).startswith(f"{wanted}{said}")
    assert str(caught.value).endswith(
        "; to take it back all the same give the reason: --reason 'WHY'"
    )
    assert made.opened.undoes.name == "v1.4.0/development/0001"


def test_the_signed_log_of_another_attempt_is_not_this_ones(practice: Any) -> None:
    """Whole, signed, and laid in the place of the newest."""
    first = practice.sealed()
    newest = practice.sealed()
    shutil.rmtree(newest)
    shutil.copytree(first, newest)
    with saying(
        LogDamaged,
        "v1.4.0/development/0002: expected its log as it was signed, got the log of"
        " v1.4.0/development/0001; to take it back all the same give the reason: --reason 'WHY'",
    ):
        prepare_attempt("development_recovery", recovery(practice), "by hand")


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_a_killed_apply_and_one_that_failed_are_taken_back_without_a_reason(
    practice: Any, how: str
) -> None:
    """The one has no seal; the seal of the other holds, whatever its verdict is."""
    stage = practice.open()
    cards = practice.walk(stage, deploy=1 if how == "failed" else 0)
    if how == "failed":
        with suppress(StageRefused):
            stage.enforce()
        practice.write_notebook(cards)
        assert seal_by_hand(practice.folder()).exit_code != 0
    made = prepare_attempt("development_recovery", recovery(practice), "by hand")

    assert made.opened.undoes.attempt == 1


def test_a_recovery_that_is_gone_on_with_looks_again(practice: Any) -> None:
    """What it undoes may have been altered since it was opened."""
    folder = practice.sealed()
    made = prepare_attempt("development_recovery", recovery(practice), "by hand")
    again = recovery(practice, attempt=made.number)
    assert prepare_attempt("development_recovery", again, "by hand").number == made.number
    unsigned(folder)
    with pytest.raises(LogDamaged, match="expected its log as it was signed, got 2 signers: "):
        prepare_attempt("development_recovery", again, "by hand")
