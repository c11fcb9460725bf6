"""The journal: what must happen exactly once. A phase of a round, a step of a pipeline, a crowd worker's submission."""

from typing import Literal, Protocol, TypeAlias

from comity.core.contribution import Tree
from comity.core.envelope import Key

Outcome: TypeAlias = Literal["accepted", "duplicate", "stale"]


class Journal(Protocol):
    """Rows that are offered, claimed under a lease and committed once.

    Execution is at least once: a lease that runs out lets another try. The commit is exactly once: the token
    decides, never a clock. Whatever was answered is durable; after an error or a kill, ask the same again.
    """

    def offer(self, key: Key, spec: Tree) -> None:
        """Make a piece of work known; offering the same key again changes nothing.

        Args:
            key: (run, round, attempt, phase, participant).
            spec: what is to be done, a small Tree. The same spec is the same bytes on the wire, the order of
                names included.

        Raises:
            LedgerError: the key was offered before with another spec.
            ConfigError: the key or the spec is none.
        """
        ...

    def claim(self, key: Key, who: str, lease: float) -> int | None:
        """Take a piece of work for `lease` seconds.

        `who` names one worker. It may claim again what it holds, after a restart or to go on for longer: it
        gets a new token, and the one before is overtaken.

        Returns:
            A token >= 1, greater than every earlier one of this key; None while somebody else holds an
            unexpired lease or when the work is committed.

        Raises:
            LedgerError: the key was never offered.
            ConfigError: `who` is empty, or `lease` is not a finite number of seconds > 0.
        """
        ...

    def commit(self, key: Key, token: int, data: bytes) -> Outcome:
        """Record the result durably before answering.

        Returns:
            "accepted" when these bytes are now the result, "duplicate" when these very bytes already
            were (whoever committed them), "stale" when the token was overtaken by a later claim or other
            bytes were committed first. Only "accepted" changes anything. A lease that ran out is no reason
            to refuse: as long as nobody claimed after it, the token counts.

        Raises:
            LedgerError: the key was never offered, or the token never given.
            ConfigError: `token` is not an integer >= 1, or `data` is not bytes.
        """
        ...

    def read(self, key: Key) -> bytes | None:
        """The committed bytes, or None while there are none, offered or not.

        Raises:
            LedgerError: the bytes are not those that were committed.
        """
        ...
