"""Judge two files of samples: CSV or parquet, a ``time`` column and one column a series.

``time`` is ISO 8601 (UTC where no offset is given) or seconds since 1970, in rising order at a
constant step; rows left out and empty cells are missing points. Windows that both cover whole days,
two at least, are judged with their daily cycle taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, JsonValue, ValidationError

from ..errors import ParameterError
from ..outcomes import Model, Outcome, worst
from ..verdicts import ExitCode
from .judge import judge_all
from .judgement import Direction, Judgement, Rule, Statistic
from .longrun import Floats
from .windows import observe

TIME = "time"
DAY = 86_400
LATEST = 1e11
"""Seconds since 1970 beyond the year 5000 are milliseconds by mistake."""
MAX_ROWS = 10_000_000
"""More rows than this after filling gaps is a wrong time stamp, not a window."""


class JudgeReport(Model):
    """What the judge says of every series two files have in common."""

    baseline: str
    current: str
    step: float
    judgements: tuple[Judgement, ...] = Field(min_length=1)

    @property
    def outcome(self) -> Outcome:
        return worst(each.outcome for each in self.judgements)

    @property
    def exit_code(self) -> ExitCode:
        codes = {Outcome.PASS: ExitCode.PASSED, Outcome.FAIL: ExitCode.REFUSED}
        return codes.get(self.outcome, ExitCode.INCONCLUSIVE)

    def document(self) -> dict[str, JsonValue]:
        """As JSON: the fields of the series that decided, and under ``all`` those of every series.

        Changes are shares of the baseline unless the tolerance is absolute.
        """
        series = [_document(each, self.step) for each in self.judgements]
        decisive = next(each for each in series if each["outcome"] == self.outcome.value)
        files: dict[str, JsonValue] = {
            "baseline_file": self.baseline,
            "current_file": self.current,
            "step_seconds": self.step,
        }
        return {**decisive, **files, "all": list(series)}


def judge_files(
    baseline: Path,
    current: Path,
    *,
    direction: Direction,
    tolerance: float,
    relative: bool = True,
    column: str | None = None,
    looks: int = 1,
    look: int | None = None,
    statistics: Sequence[Statistic] = ("location",),
) -> JudgeReport:
    """Judge ``current`` against ``baseline``, every series or the one named ``column``.

    Raises ParameterError naming file and column when a file is not what it should be.
    """
    before, after = _read(baseline, column), _read(current, column)
    _check_alike(baseline, before, current, after)
    rule = _rule(
        direction=direction,
        tolerance=tolerance,
        relative=relative,
        looks=looks,
        look=look,
        statistics=tuple(statistics),
        cycle=_daily_cycle(before, after),
    )
    order = [after.names.index(name) for name in before.names]
    judgements = judge_all(observe(before.values), observe(after.values[order]), rule, before.names)
    return JudgeReport(
        baseline=str(baseline), current=str(current), step=before.step, judgements=judgements
    )


@dataclass(frozen=True)
class _Samples:
    """Series on a regular grid: ``values`` has shape (S, n), NaN where missing; step in seconds."""

    names: tuple[str, ...]
    values: Floats
    step: float


def _document(judgement: Judgement, step: float) -> dict[str, JsonValue]:
    decisive, more = judgement.decisive, judgement.more_needed
    return {
        "series": judgement.subject,
        "outcome": judgement.outcome.value,
        "reason": judgement.reason,
        "estimate": decisive.estimate,
        "interval": list(decisive.interval),
        "tolerance": judgement.rule.tolerance,
        "direction": judgement.rule.direction,
        "relative": judgement.rule.relative,
        "looks": judgement.rule.looks,
        "look": judgement.rule.look,
        "baseline": decisive.baseline.model_dump(mode="json"),
        "current": decisive.current.model_dump(mode="json"),
        "more_needed": more,
        "more_needed_seconds": None if more is None else more * step,
        "statistics": [each.model_dump(mode="json") for each in judgement.comparisons],
    }


def _rule(**fields: Any) -> Rule:
    try:
        return Rule(**fields)
    except ValidationError as error:
        raise ParameterError(
            [
                f"judge: {'.'.join(map(str, each['loc']))}: {each['msg']}, got {each['input']!r}"
                for each in error.errors()
            ]
        ) from error


def _daily_cycle(before: _Samples, after: _Samples) -> int:
    cycle = round(DAY / before.step)
    lengths = (before.values.shape[-1], after.values.shape[-1])
    whole = abs(cycle * before.step - DAY) < 1e-6 * DAY and cycle > 1
    return cycle if whole and all(n % cycle == 0 and n >= 2 * cycle for n in lengths) else 0


def _check_alike(first: Path, before: _Samples, second: Path, after: _Samples) -> None:
    missing = sorted(set(before.names) ^ set(after.names))
    if missing:
        where = ", ".join(
            f"{name!r} only in {first if name in before.names else second}" for name in missing
        )
        raise ParameterError(f"{second}: columns: expected those of {first}, got {where}")
    if not np.isclose(before.step, after.step, rtol=1e-3):
        raise ParameterError(
            f"{second}: {TIME}: expected a step of {before.step:g} s as in {first}, "
            f"got {after.step:g} s"
        )


def _read(path: Path, column: str | None) -> _Samples:
    table = _columns(path)
    if TIME not in table:
        raise ParameterError(
            f"{path}: expected a column {TIME!r}, got {', '.join(table) or 'none'}"
        )
    names = tuple(name for name in table if name != TIME)
    if column is not None:
        if column not in names:
            raise ParameterError(f"{path}: expected a column {column!r}, got {', '.join(names)}")
        names = (column,)
    if not names:
        raise ParameterError(f"{path}: expected a series beside {TIME!r}, got none")
    times = _times(path, table[TIME])
    step, places = _grid(path, times)
    values = np.full((len(names), int(places[-1]) + 1), np.nan)
    for row, name in enumerate(names):
        values[row, places] = _numbers(path, name, table[name])
    return _Samples(names, values, step)


def _columns(path: Path) -> Mapping[str, Any]:
    """Arrow columns by name; those of a CSV are text."""
    import pyarrow as pa  # 0.1 s: only who reads files pays it
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline().rstrip("\r\n").split(",")
            texts = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
            table = csv.read_csv(path, convert_options=texts)
        else:
            raise ParameterError(f"{path}: expected a .csv or .parquet file, got {path.suffix!r}")
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ParameterError(f"{path}: cannot be read: {error}") from error
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ParameterError(f"{path}: expected each column once, got {', '.join(twice)} twice")
    return dict(zip(names, table.columns, strict=True))


def _numbers(path: Path, name: str, column: Any) -> Floats:
    import pyarrow as pa

    cells = column.to_pylist() if pa.types.is_string(column.type) else None
    if cells is None:
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise ParameterError(f"{path}: {name}: expected numbers, got {column.type}")
        return np.asarray(column.to_numpy(), dtype=np.float64)
    values = np.empty(len(cells))
    for line, cell in enumerate(cells):
        try:
            values[line] = float(cell) if cell else np.nan
        except ValueError as error:
            raise ParameterError(
                f"{path}: {name}: row {line + 2}: expected a number, got {cell!r}"
            ) from error
    return values


def _times(path: Path, column: Any) -> Floats:
    """Seconds since 1970."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        stamps = column.to_numpy()
        return np.asarray(stamps.astype("datetime64[us]").astype(np.int64) / 1e6)
    if not pa.types.is_string(column.type):
        return _numbers(path, TIME, column)
    return np.array([_seconds(path, row, cell) for row, cell in enumerate(column.to_pylist())])


def _seconds(path: Path, row: int, cell: str | None) -> float:
    try:
        return float(cell or "")
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(cell or "")
    except ValueError as error:
        raise ParameterError(
            f"{path}: {TIME}: row {row + 2}: expected ISO 8601 or seconds since 1970, got {cell!r}"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _grid(
    path: Path, times: Floats
) -> tuple[float, np.ndarray[tuple[int, ...], np.dtype[np.intp]]]:
    """The step in seconds, and each row's place on the grid of that step."""
    if len(times) < 2:
        raise ParameterError(f"{path}: expected at least 2 rows, got {len(times)}")
    if not np.isfinite(times).all() or np.abs(times).max() > LATEST:
        raise ParameterError(
            f"{path}: {TIME}: expected seconds since 1970, not milliseconds, none missing"
        )
    gaps = np.diff(times)
    wrong = np.flatnonzero(gaps <= 0)
    if wrong.size:
        raise ParameterError(
            f"{path}: {TIME}: row {wrong[0] + 3}: expected a later time than the row before"
        )
    step = float(np.median(gaps))
    places = np.rint((times - times[0]) / step)
    off = np.flatnonzero(np.abs((times - times[0]) / step - places) > 0.05)
    if off.size:
        raise ParameterError(
            f"{path}: {TIME}: row {off[0] + 2}: expected a constant step of {step:g} s, "
            f"got {gaps[off[0] - 1]:g} s"
        )
    if places[-1] >= MAX_ROWS:
        raise ParameterError(f"{path}: {TIME}: expected at most {MAX_ROWS} steps of {step:g} s")
    return step, places.astype(np.intp)
