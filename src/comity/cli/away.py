"""`comity compare --hub`: a party's side of a comparison over a network."""

import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.cli.places import there
from comity.core.errors import ConfigError

if TYPE_CHECKING:
    from comity.comparison.compare import Comparison
    from comity.comparison.terms import Terms

FOLDER = ".compare"
"""After the identity's name: where what was answered is kept."""


def compared(
    table: Path,
    target: str,
    given: Mapping[str, Any],
    *,
    identity: Path,
    folder: Path | None = None,
    salt: Path | None = None,
    tell: Callable[[str, float], None] | None = None,
) -> "Comparison":
    """Take part until the results are there.

    Args:
        table: this party's own.
        target: the column to be predicted.
        given: the settings, as `compare` takes them.
        identity: the party's key file; beside it lies whom it joined.
        folder: of this comparison; by default one beside the identity, named by the terms.
        salt: a file of hashed words' salt.
        tell: is told what is being done and how much of all is done.

    Raises:
        ConfigError: the hub compares something else, or refuses; or it failed.
    """
    from comity.adapters.threads import one_thread
    from comity.comparison.agenda import OUTCOME, Agenda
    from comity.service.joining import Pinned
    from comity.service.keys import read_identity
    from comity.service.site import take_part

    terms, to, secret = terms_of(target, given), Pinned.read(identity), read_identity(identity)
    where = folder_of(identity, terms, folder)
    agenda = Agenda(to.name, table, terms, where, take=_taken, salt=_salt(salt), tell=tell)
    if agenda.stay:
        with one_thread():
            take_part(agenda, to, identity=secret, folder=where / "site")
    answer = agenda.answer()
    sys.stderr.write(f"{'models':<11}{where / OUTCOME}   for comity predict\n")
    return answer


def folder_of(identity: Path, terms: "Terms", folder: Path | None = None) -> Path:
    """Where this party keeps its side of a comparison: one folder each."""
    return folder or identity.with_name(identity.name + FOLDER) / terms.hash[:16]


def terms_of(target: str, given: Mapping[str, Any]) -> "Terms":
    """The terms that a command line gives."""
    from comity.comparison.settings import Settings, listed
    from comity.comparison.terms import Terms

    plain = {name: value for name, value in given.items() if name not in ("groups", "fair", "dictionary")}
    by, on = listed(given["groups"], given["fair"])
    return Terms(Settings(target, pooled=False, groups=by, fair=on, **plain), given["dictionary"])


def unused(given: Mapping[str, Path | None]) -> None:
    """Refuse what only a hub makes sense of.

    Raises:
        ConfigError: it is given.
    """
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"--{name} goes with --hub URL. Got it alone. Name the hub, or leave it out.")


def checked(
    tables: Sequence[Path], hub: str, identity: Path | None, party: str | None, outputs: Sequence[Path | None]
) -> Path:
    """Whose identity, once everything fits.

    Raises:
        ConfigError: it does not: the file of the identity, at least.
    """
    from comity.cli.places import apart, writable
    from comity.service.joining import Pinned

    if identity is None:
        raise ConfigError("--hub wants --identity FILE, the key with which this party joined. Got none. Name it.")
    if len(tables) != 1 or party is not None:
        raise ConfigError("With --hub there must be one table, this party's own. Got more. Leave out the others.")
    for path in outputs:
        writable(path)
    there(tables[0], "table")
    apart(outputs, tables)
    joined = Pinned.read(identity).url
    if hub.rstrip("/") != joined.rstrip("/"):
        raise ConfigError(f"--hub must be the one that this identity joined, {joined}. Got {hub:.200}. Use that.")
    return identity


def _taken(fed: Any, participant: Any, *, rounds: int, epsilon: float | None = None, delta: float = 1e-5) -> Any:
    """How a site takes part: as far as the step goes."""
    from comity.service.limits import Limits
    from comity.service.offers import Taken

    return Taken(fed, participant, Limits(rounds=rounds, epsilon=epsilon, delta=delta), apart=True)  # each step once


def _salt(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        found = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} must be a file of a salt. Got: {error.strerror}. Name another.") from None
    shown = blake2b(b"shown", key=found[:64], digest_size=4).hexdigest()
    sys.stderr.write(f"{'salt':<11}{shown}   all parties must see the same here, and tell each other, not the hub\n")
    return found
