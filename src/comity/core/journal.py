"""The journal: what must happen exactly once. A phase of a round, a step of a pipeline, a crowd worker's submission."""

from typing import Literal, Protocol, TypeAlias

from comity.core.contribution import Tree
from comity.core.envelope import Key

Outcome: TypeAlias = Literal["accepted", "duplicate", "stale"]


class Journal(Protocol):
    """Rows that are offered, claimed under a lease and committed once.

    Execution is at least once: a lease that runs out lets another try. The commit is exactly once.
    """

    def offer(self, key: Key, spec: Tree) -> None:
        """Make a piece of work known; offering the same key again changes nothing.

        Args:
            key: (run, round, attempt, phase, participant).
            spec: what is to be done, a small Tree.

        Raises:
            LedgerError: the key was offered before with another spec.
        """
        ...

    def claim(self, key: Key, who: str, lease: float) -> int | None:
        """Take a piece of work for `lease` seconds.

        Returns:
            A token, greater than every earlier one of this key; None while somebody else holds an
            unexpired lease or when the work is committed.

        Raises:
            LedgerError: the key was never offered.
        """
        ...

    def commit(self, key: Key, token: int, data: bytes) -> Outcome:
        """Record the result durably before answering.

        Returns:
            "accepted" when these bytes are now the result, "duplicate" when these very bytes already
            were, "stale" when the token was overtaken by a later claim or other bytes were committed
            first. Only "accepted" changes anything.
        """
        ...

    def read(self, key: Key) -> bytes | None:
        """The committed bytes, or None while there are none."""
        ...
