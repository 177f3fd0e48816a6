"""Judge two files of samples: CSV or parquet, a ``time`` column and one column a series.

``time`` is ISO 8601 (UTC where no offset is given) or seconds since 1970, in rising order at a
constant step; rows left out and empty cells are missing points. Windows that both cover whole days,
two at least, are judged with their daily cycle taken out.
"""

from pathlib import Path
from time import time

import numpy as np
import pandas as pd

from ..errors import ParameterError
from ..strict import validate
from .intervals import observe
from .judge import Judgement, Rule, judge_all

TIME, DAY, EARLIEST, MAX_ROWS = "time", 86_400, 1e9, 10_000_000
"""Numbers before EARLIEST (2001) or a year ahead are no seconds; so many rows are a wrong time."""
OWN = ("Unnamed: 0", "__index_level_0__")  # what pandas calls its own row numbers in a file


def judge_files(
    baseline: Path, current: Path, *, column: str | None = None, **rule: object
) -> tuple[Judgement, ...]:
    """Judge ``current`` against ``baseline``, every series or the one named ``column``.

    ``rule`` holds the fields of a Rule. Raises ParameterError naming the file.
    """
    (step, before), (other, after) = _read(baseline, column), _read(current, column)
    if set(before) != set(after) or not np.isclose(step, other, rtol=1e-3):
        wanted = f"{sorted(map(str, before))} every {step:g} s as in {baseline}"
        got = f"{sorted(map(str, after))} every {other:g} s"
        raise ParameterError(f"{current}: expected {wanted}, got {got}")
    cycle = round(DAY / step)
    daily = cycle > 1 and abs(cycle * step - DAY) < 1e-6 * DAY
    daily &= all(len(each) % cycle == 0 and len(each) >= 2 * cycle for each in (before, after))
    made = validate(Rule, {"cycle": cycle if daily else 0, **rule}, "judge")
    names = list(before)
    first, second = (observe(each[names].to_numpy().T) for each in (before, after))
    return judge_all(first, second, made, list(map(str, names)))


def _read(path: Path, column: str | None) -> tuple[float, pd.DataFrame]:
    """The step in seconds, and the series on a regular grid of it. Raises ParameterError."""
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        if table.index.name == TIME:
            table = table.reset_index()
        stamps = table[TIME]
        if not pd.api.types.is_numeric_dtype(stamps):
            since = pd.to_datetime(stamps, utc=True, format="ISO8601") - pd.Timestamp(0, tz="UTC")
            stamps = since / pd.Timedelta(seconds=1)
        times = np.asarray(stamps, dtype=np.float64)
        own = [name for name in OWN if name in table and (np.diff(table[name]) == 1).all()]
        names = [column] if column else [name for name in table if name not in (TIME, *own)]
        values = table[names].apply(pd.to_numeric).astype(float)
        if not names or any(pd.api.types.is_bool_dtype(table[name]) for name in names):
            raise ValueError("no series of numbers")
    except KeyError as error:
        wanted = f"the columns {TIME} and {column or 'one a series'}"
        raise ParameterError(f"{path}: expected {wanted}, got no {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise ParameterError(f"{path}: cannot be read: {error}") from error
    gaps = np.diff(times)
    likely = (times >= EARLIEST) & (times < time() + 366 * DAY)
    if not len(gaps) or not (gaps > 0).all() or not likely.all():
        expected = "two rising instants or more, ISO 8601 or seconds since 1970, from 2001 on"
        raise ParameterError(f"{path}: {TIME}: expected {expected}, got others")
    step = float(np.median(gaps))
    places = (times - times[0]) / step
    off = np.flatnonzero(abs(places - np.rint(places)) > 0.05)
    if off.size or places[-1] >= MAX_ROWS:
        where = f"row {off[0] + 2}" if off.size else f"{places[-1]:.0f} steps"
        raise ParameterError(f"{path}: {TIME}: expected a constant step of {step:g} s, got {where}")
    values.index = np.rint(places).astype(int)
    return step, values.reindex(range(int(values.index[-1]) + 1))
