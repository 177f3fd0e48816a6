"""A node's data folder, and what the commands of a storage recovery do to it.

    data/state.json                       {"height", "state_root"}: what the node holds
    data/firewood.wal                     records: a line of JSON each
    data/cf_meta/, cf_pruning_snapshots/<20 digits>.json, cf_pruning_proofs/<20 digits>.bin
    data/restored.json                    only between a restore and the start that takes it up
    kept/LABEL/                           what was moved aside; a name is never used twice

A running node has its data in memory and writes them when it stops.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WAL, STATE, RESTORED = "firewood.wal", "state.json", "restored.json"
RECORDS = 64
"""How many of the last blocks a write-ahead log holds."""


class StorageError(Exception):
    """What a command of storage recovery refuses, in its own words."""


def key_of(seed: int, chain_id: str) -> str:
    return f"{seed}/{chain_id}"


def root_of(key: str, height: int) -> str:
    return hashlib.sha256(f"{key}/state/{height}".encode()).hexdigest()


def records(key: str, last: int, most: int) -> list[dict[str, Any]]:
    """The log's last records up to block ``last``."""
    first = max(last - most + 1, 0)
    return [{"height": h, "state_root": root_of(key, h)} for h in range(first, last + 1)]


def encode(found: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in found)


def read_wal(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The whole records of a log, and what is wrong with the rest. Raises OSError."""
    lines = path.read_text().splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return whole, "" if len(whole) == len(lines) else f"record {len(whole)} breaks off"


def write(data: Path, key: str, height: int) -> None:
    data.mkdir(parents=True)
    _state(data, key, height, most=1)


def flush(data: Path, key: str, height: int) -> None:
    """What a node writes as it stops: its state, the log up to it, and its pruning data."""
    if not data.is_dir():
        return
    _state(data, key, height, RECORDS)
    if not (data / "cf_meta").exists():
        _meta(data)
        pruning(data / "cf_pruning_snapshots", data / "cf_pruning_proofs", key, height)


def _state(data: Path, key: str, height: int, most: int) -> None:
    (data / WAL).write_text(encode(records(key, height, most)))
    _put(data / STATE, {"height": height, "state_root": root_of(key, height)})


def _meta(data: Path) -> None:
    (data / "cf_meta").mkdir()
    (data / "cf_meta" / "layout_version").write_text("1\n")


def pruning(manifests: Path, proofs: Path, key: str, height: int) -> None:
    """The chain's own manifest and proof of a pruned height."""
    for folder in (manifests, proofs):
        folder.mkdir(parents=True, exist_ok=True)
    proof = hashlib.shake_128(f"{key}/proof/{height}".encode()).digest(256)
    digests = {n: hashlib.sha256(n.encode()).hexdigest() for n in ("schema", "parameter")}
    (proofs / f"{height:020}.bin").write_bytes(proof)
    _put(manifests / f"{height:020}.json", {
        "layout_version": 1,
        "block_height": height,
        "state_root": root_of(key, height),
        "schema_digest": digests["schema"],
        "parameter_digest": digests["parameter"],
        "schema_version": 1,
        "parameter_version": 1,
        "proof_file": f"{height:020}.bin",
        "proof_checksum": hashlib.sha256(proof).hexdigest(),
    })  # fmt: skip


def problem(data: Path) -> str:
    """Why a node cannot start on these data; empty when it can."""
    try:
        json.loads((data / STATE).read_text())
        wrong = read_wal(data / WAL)[1]
    except (OSError, ValueError):
        return "storage: no state to start from"
    return f"storage: WAL corrupt: {wrong}" if wrong else ""


def take_up(data: Path) -> tuple[int, str] | None:
    """A starting node's (height, root) when its data were restored before; they are its own now."""
    if not (data / RESTORED).exists():
        return None
    state = json.loads((data / STATE).read_text())
    (data / RESTORED).unlink()
    return int(state["height"]), str(state["state_root"])


# --- the commands ---------------------------------------------------------------------------------


def inspect_wal(home: Path) -> dict[str, Any]:
    """Its whole records, the last one's height and root, and whether it is corrupt; where nothing
    is restored yet in place of data put aside, those of the log that was kept last."""
    folder = home / "data"
    if not folder.exists():
        folder = max((home / "kept").glob("*"), default=folder, key=lambda p: p.stat().st_ctime_ns)
    try:
        found, wrong = read_wal(folder / WAL)
    except OSError as error:
        raise StorageError(f"{WAL}: {error.strerror}") from error
    last = found[-1] if found else {"height": None, "state_root": ""}
    return {"records": len(found), "corrupt": bool(wrong), "problem": wrong, **last}


def keep_data(home: Path, label: str) -> str:
    """Move the data aside, under a new name; the name. What ``label`` restored since stays."""
    data, kept = home / "data", home / "kept"
    _locked(home)
    known = sorted(p.name for p in kept.glob("*") if p.name.partition("+")[0] == label)
    if not data.exists() or _restored(data).get("label") == label:
        if not known:
            raise StorageError("no data to keep")
        return known[-1]
    kept.mkdir(exist_ok=True)
    name = label if not known else f"{label}+{len(known):03}"
    data.rename(kept / name)  # one step: there is no instant at which half of it is kept
    return name


def restore_snapshot(home: Path, bundle: Path, label: str) -> dict[str, Any]:
    data = home / "data"
    _locked(home)
    if (done := _restored(data)).get("label") == label:
        return done
    if data.exists():
        raise StorageError("data are in place: keep them aside first")
    about = json.loads((bundle / "bundle.json").read_text())
    scratch = home / f".data.{label}"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(bundle / "chunks", scratch / "db")
    for source, target in (("manifests", "snapshots"), ("proofs", "proofs")):
        shutil.copytree(bundle / source, scratch / f"cf_pruning_{target}")
    _meta(scratch)
    state = {"height": about["height"], "state_root": about["state_root"]}
    _put(scratch / STATE, state)
    (scratch / WAL).write_text(encode([state]))
    _put(scratch / RESTORED, {"label": label, **state})
    scratch.rename(data)
    return _restored(data)


def replay_proofs(home: Path, height: int) -> dict[str, Any]:
    """Verify the restored proofs, replay the kept log up to ``height``; the chain's report of it."""
    data = home / "data"
    _locked(home)
    restored = _restored(data)
    if not restored:
        raise StorageError("nothing was restored here")
    end, corrupt = {k: restored[k] for k in ("height", "state_root")}, False
    if height > end["height"]:
        names = sorted(p for p in (home / "kept").glob("*") if p.name.startswith(restored["label"]))
        found, wrong = read_wal(names[-1] / WAL)
        mine = [record for record in found if end["height"] < record["height"] <= height]
        if not mine or mine[-1]["height"] != height:
            raise StorageError(f"{WAL}: expected a record of height {height}, got none")
        end, corrupt = mine[-1], bool(wrong)
        (data / WAL).write_text(encode(mine))
        _put(data / STATE, end)
    manifests = [json.loads(p.read_text()) for p in (data / "cf_pruning_snapshots").glob("*.json")]
    proven = all(
        hashlib.sha256((data / "cf_pruning_proofs" / m["proof_file"]).read_bytes()).hexdigest()
        == m["proof_checksum"]
        for m in manifests
    )
    newest = max(manifests, key=lambda manifest: int(manifest["block_height"]))
    return {
        "wal_corruption_detected": corrupt,
        "pruning_proof_verified": proven,
        "restored_root": restored["state_root"],
        "expected_state_root": newest["state_root"],
        "commitment_root": end["state_root"],
        "restored_matches_expected": restored["state_root"] == newest["state_root"],
        "height": end["height"],
    }


def _restored(data: Path) -> dict[str, Any]:
    path = data / RESTORED
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _locked(home: Path) -> None:
    if (home / "running.json").exists():
        raise StorageError("the data are locked by a running node")


def _put(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document) + "\n")
