"""What a comparison is asked for, refused before a table is touched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comity.comparison.families import families
from comity.comparison.private import family_of, noise_of, promised
from comity.core.checks import flag, path, refusal, seeded, whole, word
from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary
from comity.privacy.budget import Budget


@dataclass(frozen=True)
class Settings:
    """How a comparison is run.

    Attributes:
        target: the column to be predicted.
        party: the column that says whose a row is; None where each party has a table of its own.
        model: "auto", "linear", "mlp" or "trees".
        rounds: of joint training.
        repeats: random splits.
        seed: of splits, models and training.
        pooled: also move the rows to the hub, for the ceiling.
        groups: columns by whose words scores are given too.
        unseen: also train without each party in turn, once, and score there.
        words_from: "open", "hashed" or "dictionary".
        fill: "mean" or "median".
        fair: the column of groups by which a fairer joint model is trained too; "" for none.
        private: epsilon and delta of a joint model that is trained with noise too; None for none.

    Raises:
        ConfigError: a setting out of its range.
    """

    target: str
    party: str | None = None
    model: str = "auto"
    rounds: int = 30
    repeats: int = 5
    seed: int = 0
    pooled: bool = True
    groups: tuple[str, ...] = ()
    unseen: bool = True
    words_from: str = "open"
    fill: str = "mean"
    fair: str = ""
    private: Budget | None = None

    def __post_init__(self) -> None:
        families(self.model)
        for name, given in (("target", self.target), ("party", self.party or "none"), ("fair", self.fair or "none")):
            if not isinstance(given, str) or not given:
                raise refusal(name, "", "the name of a column", given)
        for name in ("rounds", "repeats"):
            object.__setattr__(self, name, whole(name, "", getattr(self, name), 1))
        for name in ("pooled", "unseen"):
            object.__setattr__(self, name, flag(name, "", getattr(self, name)))
        object.__setattr__(self, "seed", seeded("", self.seed))
        word("words_from", "", self.words_from, ("open", "hashed", "dictionary"))
        word("fill", "", self.fill, ("mean", "median"))
        if self.target == self.party:
            raise ConfigError(f"The target and the party must be two columns. Got '{self.target}' for both.")
        if self.private is not None:
            family_of(self.model)
            noise_of(promised(self.private), self.rounds)


def given(dictionary: Any, runs: Any, words: tuple[Any, ...], tell: Any) -> None:
    """Refuse early what is needed late.

    Raises:
        ConfigError: no path, no text, no function.
    """
    if not (dictionary is None or isinstance(dictionary, Dictionary)):
        path("dictionary", "", dictionary)
    if runs is not None:
        path("runs", "", runs)
    for name, said in zip(("title", "called", "command"), words, strict=True):
        if not (isinstance(said, str) or (said is None and name != "command")):
            raise refusal(name, "", "text", said)
    if tell is not None and (not callable(tell) or isinstance(tell, type)):
        raise refusal("tell", "", "a function of what is done and how much", tell)


def listed(groups: Sequence[str], fair: str | None) -> tuple[tuple[str, ...], str]:
    """The columns of groups, that of fairness last; and that of fairness, "" for none.

    Raises:
        ConfigError: no list of names.
    """
    if isinstance(groups, str):
        raise ConfigError(f"The 'groups' must be a list of columns. Got '{groups}'. Use ['{groups}'].")
    if not isinstance(groups, Sequence) or not all(isinstance(name, str) for name in groups):
        raise refusal("groups", "", "a list of columns", groups)
    if fair is not None and not isinstance(fair, str):
        raise refusal("fair", "", "the name of a column", fair)
    return tuple(dict.fromkeys([*groups, *([fair] if fair else [])])), fair or ""
