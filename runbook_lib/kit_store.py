"""A recovery kit that stands in for a store that is gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .changes.kit_model import Kit, folder_of
from .errors import ParameterError
from .evidence.record import Record
from .files import replace_file
from .kits import STORE, open_kit
from .site import Site, read_site
from .strict import parse_yaml, project_path

SITE = "site.yaml"


def without_store(stage: str, folder: Path, params: Mapping[str, Any]) -> Path:
    """A site file whose store is the kit's own, in which the apply it undoes stands.

    Raises ParameterError while the store can be read: only there is the request to stop seen.
    """
    kit, path = open_kit(folder), project_path(str(params["site"]))
    site = read_site(str(params["site"]))
    if kit.stage != stage or folder.name != folder_of(site, kit.name).name:
        raise ParameterError(f"{folder}: expected the kit of a {stage} attempt, got {kit.name}")
    if os.access(site.store_path, os.R_OK | os.X_OK) and any(site.store_path.iterdir()):
        raise ParameterError(
            f"--no-store: expected the store to be gone, got {site.store_path.name} readable;"
            " recover without it"
        )
    values = parse_yaml(path.read_bytes(), str(path))
    folder = folder.resolve()
    values |= {"store": str(folder / STORE), "kits": str(folder.parent)}
    made = folder / SITE
    replace_file(made, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    _stand_in(kit, site, folder / STORE)
    return made


def _stand_in(kit: Kit, site: Site, root: Path) -> None:
    """The apply's attempt in the kit's store, as far as the kit knows it."""
    target = root / kit.name
    if target.exists():
        return
    scratch = root / ".new"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    record = Record(scratch / "record.jsonl")
    plan = kit.plan
    source = "rehearsal" if site.clock.source == "offset-file" else "live"
    opened = {
        "release": kit.release,
        "commit": plan.commit,
        "stage": kit.stage,
        "attempt": int(kit.name.rpartition("/")[2]),
        "mode": "apply",
        "source": source,
        "cluster": kit.cluster,
        "site": site.name,
        "declared": [],
        "heads": {},
        "now": kit.made,
        "operator": kit.author,
        "run": "headless",
        "kit": kit.name,
    }
    record.append("opened", opened)
    body = {"digest": kit.digest, "plan": plan.model_dump(mode="json"), "author": kit.author}
    record.append("plan", {**body, "approved_by": list(kit.approved_by), "margins": [], "rows": []})
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch.rename(target)
