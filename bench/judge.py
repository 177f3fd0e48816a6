"""How often the judge is wrong, how often it can decide, and how fast it is: simulated, seeded.

``python bench/judge.py [--trials N] [--part NAME ...]`` prints Markdown tables; the same seed gives
the same figures. Every series has mean 1 and a marginal sd of 15 % unless its table says otherwise;
the tolerance is 10 %, lower is better. "+9.9 %" multiplies the current window.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri, stdtrit

from runbook_lib.metrics.intervals import Floats, observe
from runbook_lib.metrics.judge import Rule, Statistic, judge_all
from runbook_lib.outcomes import Outcome

SD = 0.15
CHUNK = 100
LONG, SHORT, LOOKS = 10_080, 240, 12
PHIS = (0.0, 0.5, 0.9, 0.97)
LOCATION: tuple[Statistic, ...] = ("location",)
BOTH: tuple[Statistic, ...] = ("location", "tail")

Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
"""(generator, points) -> CHUNK series, shape (CHUNK, points), and their expected window means."""


@dataclass(frozen=True)
class Process:
    name: str
    draw: Draw
    cycle: int = 0


@dataclass(frozen=True)
class Trial:
    """Share of trials that any look judged PASS or FAIL, and what the last look said."""

    ever_pass: float
    ever_fail: float
    passed: float
    failed: float

    @property
    def undecided(self) -> float:
        return 1 - self.passed - self.failed


def noise(rng: np.random.Generator, points: int, phi: float) -> Floats:
    """Standard AR(1) noise, shape (CHUNK, points), stationary from its first point."""
    draws = rng.standard_normal((CHUNK, points))
    draws[:, 0] /= np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], draws) * np.sqrt(1 - phi**2))


def ar1(phi: float) -> Process:
    def draw(rng: np.random.Generator, points: int) -> tuple[Floats, Floats]:
        return 1 + SD * noise(rng, points, phi), np.ones(CHUNK)

    return Process(f"AR(1), phi {phi:g}", draw)


def walk(share: float) -> Process:
    """A random walk from level 1, ``share`` of the window's expected variance, in white noise."""

    def draw(rng: np.random.Generator, points: int) -> tuple[Floats, Floats]:
        steps = np.cumsum(rng.standard_normal((CHUNK, points)), axis=-1) * np.sqrt(6 / points)
        rest = rng.standard_normal((CHUNK, points))
        return 1 + SD * (np.sqrt(share) * steps + np.sqrt(1 - share) * rest), np.ones(CHUNK)

    return Process(f"random walk, {share:.0%} of the variance", draw)


def shift(phi: float) -> Process:
    """AR(1) and one level shift of one sd, up or down, at a random instant of each window."""

    def draw(rng: np.random.Generator, points: int) -> tuple[Floats, Floats]:
        size = SD * rng.choice([-1.0, 1.0], (CHUNK, 1))
        level = 1 + size * (np.arange(points) >= rng.integers(0, points, (CHUNK, 1)))
        return level + SD * noise(rng, points, phi), level.mean(axis=-1)

    return Process(f"level shift of 1 sd, phi {phi:g}", draw)


def cycles(phi: float, period: int) -> Process:
    """Half of the variance is a cycle, the other half AR(1)."""

    def draw(rng: np.random.Generator, points: int) -> tuple[Floats, Floats]:
        wave = np.sin(2 * np.pi * np.arange(points) / period)
        return 1 + SD * (wave + np.sqrt(0.5) * noise(rng, points, phi)), np.ones(CHUNK)

    return Process(f"cycle of {period} points, phi {phi:g}", draw, period)


def heavy(phi: float) -> Process:
    """Student t with 3 degrees of freedom at each instant, dependent like an AR(1)."""

    def draw(rng: np.random.Generator, points: int) -> tuple[Floats, Floats]:
        share = np.clip(ndtr(noise(rng, points, phi)), 1e-12, 1 - 1e-12)
        return 1 + SD * stdtrit(3, share) / np.sqrt(3), np.ones(CHUNK)

    return Process(f"t with 3 df, phi {phi:g}", draw)


def run(
    process: Process,
    change: float,
    points: int,
    ends: tuple[int, ...],
    statistics: tuple[Statistic, ...],
    trials: int,
    seed: int,
) -> Trial:
    """Judge ``trials`` pairs of windows, the current one at a look at each of ``ends``."""
    rng = np.random.default_rng(seed)
    rules = [
        Rule(
            direction="lower",
            tolerance=0.1,
            statistics=statistics,
            looks=len(ends),
            look=look,
            cycle=process.cycle,
        )
        for look in range(1, len(ends) + 1)
    ]
    counts = np.zeros(4)
    for _ in range(trials // CHUNK):
        baseline, before = process.draw(rng, points)
        current, after = process.draw(rng, points)
        current = current * ((1 + change) * before / after)[:, None]
        seen = np.array(
            [
                judged(baseline, current[:, :end], rule)
                for end, rule in zip(ends, rules, strict=True)
            ]
        )
        passed, failed = seen == Outcome.PASS, seen == Outcome.FAIL
        counts += [
            each.sum() for each in (passed.any(axis=0), failed.any(axis=0), passed[-1], failed[-1])
        ]
    return Trial(*(counts / (trials // CHUNK * CHUNK)))


def judged(baseline: Floats, current: Floats, rule: Rule) -> list[str]:
    names = [str(row) for row in range(len(baseline))]
    found = judge_all(observe(baseline), observe(current), rule, names)
    return [each.outcome.value for each in found]


def table(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a Markdown table, each row as soon as it is known."""
    print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def percent(value: float) -> str:
    return f"{value:.1%}"


HEADS = (
    "series",
    "FAIL at 0",
    "FAIL at +9.9 %",
    "PASS at +10.1 %",
    "PASS at 0",
    "FAIL at +25 %",
    "INCONCLUSIVE at 0",
)


def rates(
    processes: Iterable[Process],
    points: int,
    ends: tuple[int, ...],
    statistics: tuple[Statistic, ...],
    trials: int,
) -> Iterable[tuple[str, ...]]:
    for seed, process in enumerate(processes):
        same, inside, beyond, worse = (
            run(process, change, points, ends, statistics, trials, seed)
            for change in (0.0, 0.099, 0.101, 0.25)
        )
        yield (
            process.name,
            percent(same.ever_fail),
            percent(inside.ever_fail),
            percent(beyond.ever_pass),
            percent(same.passed),
            percent(worse.ever_fail),
            percent(same.undecided),
        )


def short(trials: int) -> None:
    title = f"n = {SHORT} a side, one look, location"
    table(title, HEADS, rates(map(ar1, PHIS), SHORT, (SHORT,), LOCATION, trials))


def long(trials: int) -> None:
    ends = tuple(LONG * look // LOOKS for look in range(1, LOOKS + 1))
    title = f"n = {LONG} a side, {LOOKS} looks declared and taken, location and tail"
    table(title, HEADS, rates(map(ar1, PHIS), LONG, ends, BOTH, trials))


def rough(trials: int) -> None:
    """Series that are not AR(1). Level shifts: the truth is that of the levels drawn."""
    for points, period, statistics in ((SHORT, 24, LOCATION), (LONG, 1440, BOTH)):
        phis = (0.0, 0.5, 0.9)
        processes = [
            *map(walk, (1.0, 0.5)),
            *map(shift, phis),
            *(cycles(phi, period) for phi in phis),
            *map(heavy, phis),
        ]
        title = f"Not AR(1): n = {points} a side, one look, {' and '.join(statistics)}"
        table(title, HEADS, rates(processes, points, (points,), statistics, trials))


def episodes(rng: np.random.Generator, points: int, share: float, length: float) -> Floats:
    """Zeros with episodes of ones, ``share`` of the time, ``length`` points each on average."""
    leave = 1 / max(length, 1 / (1 - share))
    enter = leave * share / (1 - share)
    state, series = rng.random(CHUNK) < share, np.empty((CHUNK, points))
    for point, draw in enumerate(rng.random((points, CHUNK))):
        series[:, point] = state
        state = np.where(state, draw >= leave, draw < enter)
    return series


def events(trials: int) -> None:
    """Proportions: how much of the time something was wrong, 5 points more being tolerated."""
    rule = Rule(direction="lower", tolerance=0.05, relative=False, kind="proportion")

    def decided(points: int, length: int, share: float, change: float) -> tuple[float, float]:
        rng, seen = np.random.default_rng(3), list[str]()
        for _ in range(trials // CHUNK):
            before = episodes(rng, points, share, length)
            seen += judged(before, episodes(rng, points, share + change, length), rule)
        return seen.count(Outcome.PASS) / len(seen), seen.count(Outcome.FAIL) / len(seen)

    table(
        "Shares of time, one look: tolerated +5 points",
        (
            "n",
            "points an episode",
            "baseline",
            "FAIL at +4.95",
            "PASS at +5.05",
            "PASS at 0",
            "FAIL at +15",
        ),
        (
            (
                f"{points}",
                f"{length}",
                f"{base:.0%}",
                percent(decided(points, length, base, 0.0495)[1]),
                percent(decided(points, length, base, 0.0505)[0]),
                percent(decided(points, length, base, 0.0)[0]),
                percent(decided(points, length, base, 0.15)[1]),
            )
            for points in (SHORT, 2000)
            for length in (1, 10)
            for base in (0.0, 0.01, 0.05, 0.2)
        ),
    )


def stage(trials: int) -> None:
    """A healthy stage: every series of it must pass."""
    seeds, healthy = min(trials, 200), {12: 0, 312: 0}
    rule = Rule(direction="lower", tolerance=0.1, looks=LOOKS, look=LOOKS)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        pairs = [(ar1(0.9).draw(rng, LONG)[0], ar1(0.9).draw(rng, LONG)[0]) for _ in range(4)]
        seen = np.concatenate([judged(*pair, rule) for pair in pairs])
        for size in healthy:
            healthy[size] += bool((seen[:size] == Outcome.PASS).all())
    rows = ((f"{size}", f"{seeds}", percent(count / seeds)) for size, count in healthy.items())
    table(
        f"Healthy stage: phi 0.9, 7 days at 60 s, last of {LOOKS} looks, location and tail",
        ("series in the stage", "seeds", "all PASS"),
        rows,
    )


def mann_whitney(baseline: Floats, current: Floats) -> bool:
    """Kayenta's "High": the 98 % interval of the shift lies above a quarter of its estimate.

    The interval's ends are order statistics of all pairwise differences (Hodges-Lehmann), found by
    bisection on their rank; normal approximation, as R's wilcox.test, which Kayenta calls, has it.
    """
    n, m = len(baseline), len(current)
    ordered, current = np.sort(baseline), np.sort(current)

    def difference(rank: float) -> float:
        low, high = current[0] - ordered[-1], current[-1] - ordered[0]
        for _ in range(40):
            middle = (low + high) / 2
            below = n * m - np.searchsorted(ordered, current - middle, side="left").sum()
            low, high = (middle, high) if below < rank else (low, middle)
        return float(high)

    half = float(ndtri(0.99)) * np.sqrt(n * m * (n + m + 1) / 12)
    return difference(n * m / 2 - half) > 0.25 * abs(difference(n * m / 2))


def kayenta(trials: int) -> None:
    """How often either rule raises an alarm; one look a window, or 12 as the window grows."""
    often = tuple(SHORT * look // LOOKS for look in range(1, LOOKS + 1))
    cases = ((SHORT, (SHORT,)), (SHORT, often), (LONG, (LONG,)))
    table(
        "Kayenta's rule on the same series: share judged worse (Kayenta, this judge), location",
        ("n", "looks", "phi", "no change", "+5 %, acceptable", "+25 %"),
        (
            (
                f"{points}",
                f"{len(ends)}",
                f"{phi:g}",
                *(alarms(phi, points, ends, change, trials) for change in (0.0, 0.05, 0.25)),
            )
            for points, ends in cases
            for phi in PHIS
        ),
    )


def alarms(phi: float, points: int, ends: tuple[int, ...], change: float, trials: int) -> str:
    rule = Rule(direction="lower", tolerance=0.1, statistics=LOCATION, looks=len(ends))
    chunks = min(trials, 400 if points == SHORT else 100) // CHUNK
    rng, ours, theirs = np.random.default_rng(11), 0, 0
    for _ in range(chunks):
        baseline = ar1(phi).draw(rng, points)[0]
        current = ar1(phi).draw(rng, points)[0] * (1 + change)
        seen = np.array([judged(baseline, current[:, :end], rule) for end in ends])
        ours += int((seen == Outcome.FAIL).any(axis=0).sum())
        theirs += sum(
            any(mann_whitney(before, after[:end]) for end in ends)
            for before, after in zip(baseline, current, strict=True)
        )
    return f"{percent(theirs / chunks / CHUNK)}, {percent(ours / chunks / CHUNK)}"


def speed(trials: int) -> None:
    """12 aggregates and 12 metrics of 25 validators each, as a stage calls it; ``trials`` unused."""
    rng = np.random.default_rng(0)
    rule = Rule(direction="lower", tolerance=0.1, looks=LOOKS)
    sets = [1] * 12 + [25] * 12
    data = [
        [1 + SD * rng.standard_normal((rows, LONG)) for rows in sets] for _ in ("before", "after")
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    for baseline, current in zip(*data, strict=True):
        judged(baseline, current, rule)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table(
        f"Speed: {sum(sets)} series x {LONG} points a side, location and tail",
        ("seconds", "peak MiB of the process", "of it while judging"),
        [(f"{took:.2f}", f"{peak / 1024:.0f}", f"{(peak - before) / 1024:.0f}")],
    )


PARTS = {
    "speed": speed,
    "short": short,
    "long": long,
    "rough": rough,
    "events": events,
    "stage": stage,
    "kayenta": kayenta,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="multiple of 100")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    for part in arguments.part:
        PARTS[part](max(arguments.trials, CHUNK))


if __name__ == "__main__":
    main()
