"""Commands over an attempt's files: as a table, and as one document."""

from pathlib import Path
from typing import Any

from runbook_lib.evidence import replay as replaying

from ..conftest import Terminal


def test_verify_seal_and_render_an_attempt(terminal: Terminal, practice: Any) -> None:
    # Its small stage is none that a kernel could judge again.
    practice.patch.setattr(replaying, "replay", lambda folder, run: ([], ""))
    folder = practice.sealed()

    assert terminal.run("verify", folder, "--trust", practice.site) == 0
    assert "verify: PASS" in terminal.out
    document = terminal.json("verify", folder, "--trust", practice.site)
    assert (document["outcome"], document["verdict"]) == ("PASS", "PASS")
    assert (document["exit_code_of_run"], len(document["rows"])) == (0, 13)

    assert terminal.json("seal", folder) == {"outcome": "PASS", "exit_code": 0}
    assert terminal.run("seal", folder) == 0
    assert "✓ PASS" in terminal.out

    page = folder.parent / "page.html"
    assert terminal.json("render", folder, "-o", page) == {"page": str(page)}
    assert terminal.run("render", folder / "10_development.ipynb", "-o", page) == 0
    assert terminal.out == f"{page}\n"
    assert page.read_text().startswith("<!doctype html>")

    (folder / "log.jsonl").write_text("")
    assert terminal.run("verify", folder, "--trust", practice.site) == 1


def test_the_head_and_the_differences_of_attempts_are_printed(
    terminal: Terminal, practice: Any
) -> None:
    """The head is what ``verify --head`` compares."""
    folder = practice.sealed()
    head = terminal.json("head", folder)

    assert head["sealed"] is True
    assert terminal.run("head", folder) == 0
    assert terminal.out == f"{head['head']}\n"
    assert terminal.run("verify", folder, "--trust", practice.site, "--head", head["head"]) == 0
    assert terminal.run("verify", folder, "--trust", practice.site, "--head", "sha256:0") == 1
    assert terminal.json("diff", folder, folder) == []
    assert terminal.run("diff", folder, folder) == 0
    assert "diff: 0" in terminal.out


def test_a_page_never_lies_among_the_sealed_files(
    terminal: Terminal, practice: Any, tmp_path: Path
) -> None:
    """A file more, and the evidence would not verify: an attempt's page goes to the working directory."""
    folder = practice.sealed()
    practice.patch.chdir(tmp_path)

    assert terminal.run("render", folder) == 0
    assert terminal.out == "10_development-0001.html\n"
    assert (tmp_path / "10_development-0001.html").read_text().startswith("<!doctype html>")
    assert terminal.run("render", folder, "-o", tmp_path / "none" / "page.html") == 3
    assert "page.html: expected a file or folder that can be used, got: No such" in terminal.err
    for inside in (folder / "page.html", folder / "figures" / "page.html"):
        assert terminal.run("render", folder, "-o", inside) == 3
        assert terminal.err == (
            f"{inside}: expected a page outside the attempt's folder, whose files are sealed, and of"
            " the shipped notebooks, got one in it; name another with -o\n"
        )
    assert terminal.run("verify", folder, "--trust", practice.site) == 0


def test_another_folder_is_no_damaged_attempt(terminal: Terminal, practice: Any) -> None:
    """The folder above, or a file of the attempt: a slip is told from evidence that was lost."""
    folder = practice.sealed()

    for verb in ("verify", "replay", "seal", "publish"):
        assert terminal.run(verb, folder.parent) == 3
        assert terminal.err == (
            f"{folder.parent}: expected the folder of an attempt, got one without log.jsonl and"
            " attestations; name the numbered one, as in <store>/v1.4.0/canary/0002\n"
        )
    assert terminal.run("verify", folder / "log.jsonl") == 3
    assert terminal.err == (f"{folder}/log.jsonl: expected the folder of an attempt, got a file\n")
    (folder / "log.jsonl").unlink()
    assert terminal.run("verify", folder, "--trust", practice.site) == 1


def test_only_what_holds_is_counter_signed(terminal: Terminal, practice: Any) -> None:
    """What was sealed where no key is: signed by whoever has looked at it, once it verifies else."""
    practice.patch.delenv("RUNBOOK_SIGNING_KEY")
    folder = practice.sealed()
    assert terminal.run("seal", "--sign", folder) == 3
    assert terminal.err == (
        "RUNBOOK_SIGNING_KEY: expected the key of one of the site's signers, got none\n"
    )
    practice.patch.setenv("RUNBOOK_SIGNING_KEY", str(practice.pem))
    kept = (folder / "log.jsonl").read_bytes()
    (folder / "log.jsonl").write_bytes(kept.replace(b"alice", b"malice", 1))

    assert terminal.run("seal", "--sign", folder) == 3
    assert terminal.err.endswith("; nobody should sign that\n")
    (folder / "log.jsonl").write_bytes(kept)
    assert terminal.run("seal", "--sign", folder) == 0
    assert terminal.out == f"{folder / 'attestations' / '0001.alice.json'}\n"
    assert terminal.run("verify", folder, "--trust", practice.site) == 0
