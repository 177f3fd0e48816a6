"""On the release: its test suites at the commit that is checked out, and the soak job."""

from __future__ import annotations

import json
import sys
import time

from .site import Site, fail, show

SUITES = {
    "tests/pipeline": ["pipeline::wallet_to_block", "pipeline::proof_to_finality",
                       "pipeline::reward_stage", "pipeline::backpressure"],
    "tests/observability": ["metrics::consensus_round", "metrics::pipeline_stage",
                            "metrics::snapshot_timetoke", "metrics::vrf_selection",
                            "schema::telemetry_schema"],
    "tests/firewood_lifecycle": ["lifecycle::ingest", "lifecycle::rollback",
                                 "lifecycle::schema_bump"],
}  # fmt: skip
EXIT_TESTS_FAILED = 101


def suite(site: Site, name: str) -> None:
    """What ``cargo test`` prints for the suite, at the commit that is checked out."""
    if name not in SUITES:
        fail(f"suite: expected one of {', '.join(SUITES)}, got {name!r}", 2)
    site.hang_while("suite-hangs")
    checkout = site.root / "checkout"
    if site.is_on("suite-dirty-tree"):
        (checkout / "local-change.patch").write_text("not committed\n")
    if site.is_on("suite-other-commit"):
        import subprocess

        argv = ["git", "-C", str(checkout), "checkout", "-q", "--detach", "main~1"]
        subprocess.run(argv, check=True)
    tests = [] if site.is_on("suite-empty") else SUITES[name]
    failing = tests[-1:] if site.is_on("suite-fails") else []
    lines = [f"running {len(tests)} tests" if len(tests) != 1 else "running 1 test"]
    if site.is_on("suite-skips"):
        lines.append("skipping: cluster could not be started on this machine")
    lines += [f"test {test} ... {'FAILED' if test in failing else 'ok'}" for test in tests]
    if failing:
        lines += ["", "failures:", "", *(f"    {test}" for test in failing)]
    word = "FAILED" if failing else "ok"
    counts = f"{len(tests) - len(failing)} passed; {len(failing)} failed"
    summary = f"test result: {word}. {counts}; 0 ignored; 0 measured; 0 filtered out;"
    if not site.is_on("suite-no-summary"):
        lines += ["", f"{summary} finished in 0.41s", ""]
    sys.stdout.write("\n".join(["", *lines]) + "\n")
    if failing:
        fail("error: test failed, to rerun pass `--test`", EXIT_TESTS_FAILED)


def soak(site: Site) -> None:
    """The newest soak job: it began when the development cluster last took a build."""
    from datetime import UTC, datetime

    if site.is_on("soak-job-missing"):
        fail("soak: no job has run on this cluster")
    lines = (site.root / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    builds = [e for e in events if (e["cluster"], e["kind"]) == ("development", "build")]
    newest = max(builds, key=lambda event: float(event["at"]))
    offset = json.loads((site.root / "clock.json").read_text())["offset_s"]
    commit = "0" * 40 if site.is_on("soak-job-other-commit") else newest["data"]["commit"]
    times = {"started": newest["at"], "ended": time.time() + offset}
    shown = {key: datetime.fromtimestamp(at, UTC).isoformat() for key, at in times.items()}
    show({"commit": commit, "passed": not site.is_on("soak-job-failed"), **shown})
