"""From what is shown to HTML: templates, their filters, and the two files that go with every page."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from comity import __version__
from comity.core.errors import ConfigError
from comity.report import numbers
from comity.service.pages.guard import named

STATIC = {"style.css": "text/css", "live.js": "text/javascript"}


@lru_cache(maxsize=1)
def static() -> Mapping[str, tuple[bytes, str]]:
    """Files by their hashed name, with their type: they may be kept for ever."""
    folder = files("comity.service.pages") / "static"
    out = {}
    for name, kind in STATIC.items():
        data = (folder / name).read_bytes()
        stem, _, end = name.partition(".")
        out[f"{stem}-{named(data)}.{end}"] = data, f"{kind}; charset=utf-8"
    return out


@lru_cache(maxsize=1)
def environment() -> Any:
    """The templates.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("Pages need jinja2. It is not installed. Run: pip install 'comity[report]'") from error
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("comity.service.pages"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        name: getattr(numbers, name) for name in ("size", "count", "duration", "metric_name", "plural", "fixed")
    }
    made.filters |= {
        "clock": clock,
        "day": day,
        "ago": ago,
        "short": short,
        "url": lambda text: quote(str(text), safe=""),
    }
    made.filters |= {"upwards": upwards, "power": power, "iso": iso}
    links = {("style" if name.endswith("css") else "script"): f"/static/{name}" for name in static()}
    made.globals |= {"version": __version__, **links}
    return made


def render(template: str, **shown: Any) -> str:
    """A template as text."""
    return str(environment().get_template(template).render(**shown))


def clock(seconds: float | None) -> str:
    """A time of the day, UTC: `14:02:44`."""
    return numbers.DASH if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")


def day(seconds: float | None) -> str:
    """A date and time, UTC: `20 November 2026, 14:02`."""
    if seconds is None:
        return numbers.DASH
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when.day} {when.strftime('%B %Y, %H:%M')}"


def iso(seconds: float) -> str:
    """A moment as machines read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(seconds: float | None, now: float) -> str:
    """How long ago.

    Example:
        >>> ago(100.0, 101.0), ago(100.0, 104.0), ago(0.0, 250.0), ago(None, 0.0)
        ('now', '4 s ago', '4 min ago', 'never')
    """
    if seconds is None:
        return "never"
    past = max(0.0, now - seconds)
    if past < 2:
        return "now"
    for least, unit, text in ((172800, 86400, "days"), (5400, 3600, "h"), (90, 60, "min")):
        if past >= least:
            return f"{int(past // unit)} {text} ago"
    return f"{int(past)} s ago"


def short(text: str) -> str:
    """Eight digits of a hash, in groups of four."""
    return f"{text[:4]} {text[4:8]}".strip()


def upwards(value: float) -> str:
    """An epsilon with two decimals, rounded up."""
    import math

    return "∞" if math.isinf(value) else numbers.fixed(math.ceil(value * 100 - 1e-9) / 100, 2)


def power(value: float) -> tuple[str, str]:
    """A delta as mantissa and power of ten: 1e-5 is ("10", "−5")."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if not exponent:
        digits = f"{value:e}"
        mantissa, _, exponent = digits.partition("e")
        mantissa = f"{float(mantissa):g}"
    head = "10" if float(mantissa) == 1 else f"{mantissa} · 10"
    return head, str(int(exponent)).replace("-", numbers.MINUS)
