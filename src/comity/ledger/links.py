"""What a participant is connected by, as declared."""

from dataclasses import dataclass, field

from comity.core.checks import number, refusal
from comity.core.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Link:
    """What a participant is connected by, as declared: bits per second both ways, and what an exchange takes besides.

    A question and its answer take `delay + 8·down / rate down + 8·up / rate up` seconds for so many bytes, where a rate
    is that of the link times 1 - `loss`: what is lost is sent again. This is a bound from below, not a simulation of
    packets: rates are those that are reached, not those of the contract. That TCP slows down when packets are lost
    (Mathis, Semke, Mahdavi and Ott, Computer Communication Review 1997) is left to whoever declares the rates.

    Attributes:
        up: bits per second that the participant sends, > 0; infinity where it does not matter.
        down: bits per second that it receives, > 0.
        delay: seconds for the way there and back (round-trip time), once for each question, >= 0.
        loss: share of what is sent that is lost, in [0, 1).

    Raises:
        ConfigError: a figure out of range.

    Example:
        >>> import comity as co
        >>> link = co.Link(up=1e6, down=10e6, delay=0.05)
        >>> link.seconds(45e6, 45e6)
        396.05
        >>> co.Link.of("dsl") == co.Link.of("up=384e3,down=1.5e6,delay=0.05")
        True
    """

    up: float
    down: float
    delay: float = field(default=0.0, kw_only=True)
    loss: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        for name, within in _RANGES.items():
            object.__setattr__(self, name, float(number(name, "Link", getattr(self, name), within)))

    def seconds(self, bytes_up: float, bytes_down: float = 0) -> float:
        """How long a question of `bytes_down` with its answer of `bytes_up` takes: for planning, before any run.

        Raises:
            ConfigError: a number of bytes that is not finite or below 0.

        Example:
            >>> Link(up=8e6, down=float("inf"), loss=0.5).seconds(1_000_000)
            2.0
        """
        up = number("bytes_up", "seconds", bytes_up, "[0, inf)")
        down = number("bytes_down", "seconds", bytes_down, "[0, inf)")
        return self.delay + 8 * (down / self.down + up / self.up) / (1 - self.loss)

    @classmethod
    def of(cls, text: str) -> "Link":
        """A link in words: figures such as "up=5e6,down=50e6,delay=0.02", or the name of a sort of connection.

        Figures of the names are the traffic shaping profiles of WebPageTest (github.com/WPO-Foundation/webpagetest,
        www/settings/connectivity.ini.sample): old and modest, and meant to be so.

        | name | up, bit/s | down, bit/s | delay, s |
        |---|---|---|---|
        | `2g` | 256,000 | 280,000 | 0.8 |
        | `3g` | 768,000 | 1,600,000 | 0.3 |
        | `4g` | 9,000,000 | 9,000,000 | 0.17 |
        | `lte` | 12,000,000 | 12,000,000 | 0.07 |
        | `dsl` | 384,000 | 1,500,000 | 0.05 |
        | `cable` | 1,000,000 | 5,000,000 | 0.028 |

        Raises:
            ConfigError: neither.
        """
        if not isinstance(text, str):
            raise refusal("text", "Link.of", _WORDS, text)
        if profile := _PROFILES.get(text.strip().lower()):
            up, down, delay = profile
            return cls(up, down, delay=delay)
        return cls(**_figures(text))


_RANGES = {"up": "(0, inf]", "down": "(0, inf]", "delay": "[0, inf)", "loss": "[0, 1)"}
_PROFILES = {
    "2g": (256e3, 280e3, 0.8),
    "3g": (768e3, 1.6e6, 0.3),
    "4g": (9e6, 9e6, 0.17),
    "lte": (12e6, 12e6, 0.07),
    "dsl": (384e3, 1.5e6, 0.05),
    "cable": (1e6, 5e6, 0.028),
}
_USE = "Use up=5e6,down=50e6."
_WORDS = f"figures such as up=5e6,down=50e6 or one of {', '.join(_PROFILES)}"


def _figures(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, said = (piece.strip() for piece in part.partition("="))
        try:
            value = float(said)
        except ValueError:
            hint = nearest(text.strip().lower(), _PROFILES).strip()
            raise refusal("text", "Link.of", _WORDS, text, hint) from None
        if name not in _RANGES or name in found:
            why = "twice" if name in found else f"'{name:.20}'"
            raise ConfigError(f"A link must have {', '.join(_RANGES)}, each once. Got {why} in {text[:60]!r}. {_USE}")
        found[name] = value
    if lacking := [name for name in ("up", "down") if name not in found]:
        raise ConfigError(
            f"A link must have up and down, in bits per second. Got no {lacking[0]} in {text[:60]!r}. {_USE}"
        )
    return found
