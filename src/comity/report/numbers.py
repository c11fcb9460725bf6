"""How a number is written: in a report, in a terminal, anywhere a person reads it.

Rounded for reading only: differences come from unrounded values. What is undefined is a dash, never 0.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

Interval: TypeAlias = Mapping[str, Any] | None
"""`{"mean", "low", "high"}`: a value with its 95 % interval; None or a null mean is undefined."""

MINUS, DASH = "−", "–"
METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
IN_TARGET_UNITS = frozenset({"rmse", "mae"})
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def number(value: Any) -> float | None:
    """The value as a finite float, or None when it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def known(interval: Interval) -> tuple[float, float | None, float | None] | None:
    """(mean, low, high) of an interval, or None when it is undefined.

    Low and high are None together when there is no interval, as after a single repeat.
    """
    if interval is None or (mean := number(interval.get("mean"))) is None:
        return None
    low, high = number(interval.get("low")), number(interval.get("high"))
    return (mean, None, None) if low is None or high is None else (mean, low, high)


def metric_name(key: str) -> str:
    """The name of a metric for readers: `roc_auc` is `ROC AUC`."""
    return METRICS.get(key, key.replace("_", " "))


def fixed(value: float, decimals: int = 3, *, signed: bool = False) -> str:
    """A number with fixed decimals, commas and U+2212; signed, it keeps its sign even when it rounds to 0."""
    digits = f"{abs(value):,.{decimals}f}"
    if signed:
        return (MINUS if value < 0 else "+") + digits
    return (MINUS if value < 0 and digits.strip("0.,") else "") + digits


def decimals(metric: str, value: float) -> int:
    """Decimals of a score: 3, fewer for errors in the target's units when they are large."""
    if metric not in IN_TARGET_UNITS or abs(value) < 10:
        return 3
    return max(0, 3 - int(math.log10(abs(value))))


def spread(mean: float, low: float, high: float, places: int) -> str:
    """The interval beside a value: `± 0.015`, or `(0.790 to 0.841)` where it is uneven by a last digit or more."""
    if abs((high - mean) - (mean - low)) < 10.0**-places:
        return f"± {fixed((high - low) / 2, places)}"
    return f"({fixed(low, places)} to {fixed(high, places)})"


def value(interval: Interval, metric: str = "") -> str:
    """The mean alone, `0.835`, or a dash."""
    got = known(interval)
    return DASH if got is None else fixed(got[0], decimals(metric, got[0]))


def margin(interval: Interval, metric: str = "") -> str:
    """The 95 % interval alone, `± 0.015`, or nothing."""
    got = known(interval)
    if got is None or got[1] is None or got[2] is None:
        return ""
    return spread(got[0], got[1], got[2], decimals(metric, got[0]))


def score(interval: Interval, metric: str = "") -> str:
    """A score with its interval.

    Example:
        >>> score({"mean": 0.835, "low": 0.820, "high": 0.850})
        '0.835 ± 0.015'
        >>> score(None)
        '–'
    """
    return f"{value(interval, metric)} {margin(interval, metric)}".rstrip()


def hundredths(interval: Interval) -> Interval:
    """The same interval in points, hundredths of a score."""
    got = known(interval)
    if got is None:
        return None
    return {k: None if v is None else 100 * v for k, v in zip(("mean", "low", "high"), got, strict=True)}


def gain(interval: Interval) -> str:
    """The mean of a gain in points, signed: `+4.1`, or a dash."""
    got = known(hundredths(interval))
    return DASH if got is None else fixed(got[0], 1, signed=True)


def gain_margin(interval: Interval) -> str:
    """The 95 % interval of a gain in points, `± 1.2`, or nothing."""
    got = known(hundredths(interval))
    if got is None or got[1] is None or got[2] is None:
        return ""
    return spread(got[0], got[1], got[2], 1)


def points(interval: Interval) -> str:
    """A gain in points with its interval, from metric units.

    Example:
        >>> points({"mean": 0.041, "low": 0.029, "high": 0.053})
        '+4.1 ± 1.2'
        >>> points({"mean": -0.008, "low": -0.015, "high": -0.001})
        '−0.8 ± 0.7'
    """
    return f"{gain(interval)} {gain_margin(interval)}".rstrip()


def gap(interval: Interval) -> str:
    """A gap in points with its interval, from metric units; without a sign.

    Example:
        >>> gap({"mean": 0.046, "low": 0.032, "high": 0.060})
        '4.6 ± 1.4'
    """
    got = known(hundredths(interval))
    if got is None:
        return DASH
    ends = "" if got[1] is None or got[2] is None else spread(got[0], got[1], got[2], 1)
    return f"{fixed(got[0], 1)} {ends}".rstrip()


def percent(share: float) -> str:
    """A share for readers.

    Example:
        >>> percent(0.221), percent(0.034), percent(-0.2)
        ('22 %', '3.4 %', '−20 %')
    """
    return f"{fixed(100 * share, 1 if 0 < abs(share) < 0.0995 else 0)} %"


def energy(watt_hours: float) -> str:
    """An estimate of energy, so with two digits.

    Example:
        >>> energy(0.016), energy(0.00234), energy(1.24), energy(53_000)
        ('16 mWh', '2.3 mWh', '1.2 Wh', '53 kWh')
    """
    amount, units = 1000 * float(watt_hours), ["mWh", "Wh", "kWh", "MWh"]
    if 0 < amount < 0.05:
        return "under 0.1 mWh"
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        del units[0]
    return f"{amount:,.{0 if amount >= 9.95 or amount == 0 else 1}f} {units[0]}"


def size(count: float) -> str:
    """Bytes in powers of 1000 with three digits.

    Example:
        >>> size(533_000), size(1_062_000), size(12)
        ('533 kB', '1.06 MB', '12 B')
    """
    amount = float(count)
    units = ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        del units[0]
    unit = units[0]
    places = 0 if unit == "B" or amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:,.{places}f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for readers.

    Example:
        >>> duration(0.9), duration(192), duration(7500)
        ('0.9 s', '3 min 12 s', '2 h 5 min')
    """
    if seconds < 0.05:
        return "under 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def clock(seconds: float) -> str:
    """Seconds on a clock, `0:01:31`."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def count(n: int) -> str:
    """A count with commas: `43,740`."""
    return f"{n:,}"


def word(n: int) -> str:
    """A small number in words up to twelve, above that in figures."""
    return WORDS[n] if 0 <= n < len(WORDS) else count(n)


def plural(noun: str, n: int = 2) -> str:
    """The noun for n things, by the simple rules of English: hospital, hospitals; party, parties; class, classes."""
    if n == 1:
        return noun
    if noun[-1:] == "y" and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def digest(text: str) -> str:
    """The first 16 digits of a hash in groups of four: `sha256:9f2c 41d7 8e05 b3aa`."""
    head, _, tail = text.rpartition(":")
    groups = " ".join(tail[i : i + 4] for i in range(0, min(16, len(tail)), 4))
    return f"{head}:{groups}" if head else groups
