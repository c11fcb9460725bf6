"""Every error that comity raises on purpose.

    ComityError
    ├── ConfigError (also a ValueError)   the parts, settings or inputs do not fit; nothing has moved yet
    ├── ContributionError                 one sender's contribution breaks what was asked for
    ├── ChannelError                      a cohort's contributions could not be opened
    │   ├── TooFewParticipants            fewer answers than the quorum; the run can be resumed
    │   └── BadShare                      a secret share that does not fit the others
    ├── WireError                         bytes that are no message
    ├── BudgetExceeded                    the next spend would pass the privacy budget
    └── LedgerError                       a record, state or drawer that does not match its hash

The grammar of a message: what must hold, what was got, what to do.
*The 'clip' of Gaussian must be a number > 0. Got -1.0. Use clip=math.inf to switch clipping off.*
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ComityError(Exception):
    """The root of every error raised on purpose by comity.

    Catch it to catch all of them; anything else that escapes is a defect.

    Example:
        >>> import comity as co
        >>> try:
        ...     co.Momentum(rate=-1.0)
        ... except co.ComityError as error:
        ...     print(error)
        The 'rate' of Momentum must be a finite number > 0. Got -1.0.
    """


class ConfigError(ComityError, ValueError):
    """Parts, settings or inputs that do not fit. Nothing has moved yet.

    Also a ValueError. The message says what must hold, what was got, and what to do instead.
    """


class ContributionError(ComityError):
    """A contribution that breaks what was asked for: shape, dtype, range, weight, sender or round.

    In a run nobody has to catch it: the contribution is refused, the round goes on without it, and
    `run.ledger.refused` names the round, the sender and the reason.
    """


class ChannelError(ComityError):
    """The contributions of a cohort could not be made visible.

    The round did not close: what the hub had before is what it has now.
    """


class TooFewParticipants(ChannelError):
    """Fewer accepted answers than the quorum asks for, after every retry. The run can be resumed.

    Run the same again with the same folder: it goes on after the last round that closed. The ledger says
    who was dropped or refused, and why.
    """


class BadShare(ChannelError):
    """A secret share that does not fit the others.

    Somebody sent a share that was damaged or forged; the sum is not opened.
    """


class WireError(ComityError):
    """Bytes that are not a comity message, or that declare more than the limit.

    `wire.decode` raises nothing else, whatever the bytes are, and allocates nothing that they only declare.
    """


class BudgetExceeded(ComityError):
    """The next spend would pass the privacy budget; it was not made.

    Nothing was released after it. Each attempt at a round is charged by itself, so earlier attempts at this round may
    have been charged and released; their spends stand in the ledger. The state of the last closed round is kept.
    """


class LedgerError(ComityError):
    """A ledger entry, saved state or drawer that does not match its hash, or a folder of another run.

    The message names the file or the entry. Restore the folder from a copy, or delete it and start again.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name.

    Args:
        name: what was written.
        known: the names that exist.

    Returns:
        `" Did you mean 'outcome'?"` with a leading space, or `""` when nothing is near.
    """
    names = [str(k) for k in known]
    folded = {n.casefold(): n for n in names}
    match = get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[match[0]]}'?" if match else ""
