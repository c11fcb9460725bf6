"""What parties of a comparison far away agree to: its settings as plain JSON, held against one's own line by line."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comity.comparison.settings import Settings
from comity.core.checks import part, refusal
from comity.core.errors import ConfigError
from comity.core.recipe import canonical, differences
from comity.data.dictionary import Dictionary

VERSION = 1
TITLE = "Comparison"


@dataclass(frozen=True)
class Terms:
    """A comparison far away, as the hub and each party have it.

    Attributes:
        settings: how it is run. No rows are moved, whatever they say, and each party has its own table.
        dictionary: codes and ranges, of which all must have the same; None for none.
        title: what to call the data.
        called: what to call a party, as "hospital".
        command: how to get the same again, for the report.

    Raises:
        ConfigError: no settings.

    Example:
        >>> Terms(Settings("readmitted", rounds=10)).plain["rounds"]
        10
    """

    settings: Settings
    dictionary: Dictionary | None = None
    title: str = ""
    called: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        part("settings", "a comparison", self.settings, ("target", "repeats", "words_from"), "Settings(target)")
        if not (self.dictionary is None or isinstance(self.dictionary, Dictionary)):
            raise refusal("dictionary", "a comparison", "a Dictionary", self.dictionary)
        for name in ("title", "called", "command"):
            if not isinstance(getattr(self, name), str):
                raise refusal(name, "a comparison", "text", getattr(self, name))
        object.__setattr__(self, "settings", replace(self.settings, pooled=False, party=None))

    @property
    def plain(self) -> dict[str, Any]:
        """What must be the same everywhere, JSON."""
        s, listed = self.settings, self.dictionary
        return {
            "version": VERSION,
            "target": s.target,
            "model": s.model,
            "rounds": s.rounds,
            "repeats": s.repeats,
            "seed": s.seed,
            "groups": list(s.groups),
            "unseen": s.unseen,
            "words": s.words_from,
            "fill": s.fill,
            "fair": s.fair,
            "private": s.private and {"epsilon": s.private.epsilon, "delta": s.private.delta,
                                      "accountant": s.private.accountant},
            "dictionary": hashlib.sha256(listed.to_toml().encode()).hexdigest() if listed is not None else "",
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """The sha256 (hex) of what must be the same."""
        return hashlib.sha256(canonical(self.plain).encode()).hexdigest()

    def check(self, theirs: Any) -> None:
        """Does the hub compare the same?

        Raises:
            ConfigError: it does not; each difference is said.
        """
        lines = differences(self.plain, dict(theirs) if isinstance(theirs, Mapping) else {})
        if lines:
            raise ConfigError(
                "The hub must compare what this party compares. It differs (ours → theirs): "
                f"{'; '.join(lines[:10])}. Agree with its operator on the settings."
            )
