"""What a party's desk must not forget over a restart, and what it was asked already.

    FOLDER/desk/KIND-REPEAT-WHO   a preparation ("joint"), or a model that stays here ("own", "personal")
    FOLDER/asked.jsonl            what was asked, one line each, written before it is answered

A question may be repeated: it is given the same answer. Another question under the same name is refused: each answer
tells something of the rows, and a hub that asks twice learns more than was agreed.
"""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from comity.comparison.desk import Desk
from comity.core.contribution import Tree
from comity.core.errors import ContributionError, LedgerError, WireError
from comity.core.wire import decode_tree, encode_tree
from comity.ledger import folder as files

ALL = "all"
KEEPS: Final[Mapping[str, str]] = {"prepare": "joint", "alone": "own", "personal": "personal"}
"""Steps after which a desk holds something new, and what."""
OFTEN: Final[Mapping[str, int]] = {"counts": 4, "score": 3, "seconds": 1_000_000}
"""Questions that a step may have for one split: rounds of a median, models that are scored. All others have one."""
ASKED, FOLDER = "asked.jsonl", "desk"


class Remembered:
    """A desk's memory on disk.

    Args:
        folder: of the party's side of a comparison.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self._folder = folder / FOLDER

    def keep(self, desk: Desk, step: str, repeat: int, without: str) -> None:
        """Keep what a step left at the desk; what belongs to splits that are over goes, but models of the first."""
        if (kind := KEEPS.get(step)) is None:
            return
        tree = {"repeat": repeat, "without": without, "tree": desk.memory(kind, repeat, without)}
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(kind, repeat, without)
        files.write(path, encode_tree(tree), 0o600)
        for other in self._folder.glob(f"{kind}-*"):
            old, who = other.name.split("-")[1:]
            over = int(old) != repeat and (kind == "joint" or int(old) > 0)
            if over or (kind == "joint" and who != ALL and other != path):
                other.unlink()

    def restore(self, desk: Desk) -> None:
        """Give the desk what was kept.

        Raises:
            LedgerError: a file is damaged.
        """
        for path in sorted(self._folder.glob("*-*-*")):
            try:
                tree: Any = decode_tree(path.read_bytes())
                kind = path.name.split("-")[0]
                desk.remember(kind, int(tree["repeat"]), str(tree["without"]), tree["tree"])
            except (WireError, KeyError, TypeError, ValueError) as error:
                raise LedgerError(f"{path} must be what this desk kept. It is damaged. Restore it.") from error

    def model(self, kind: str, repeat: int = 0) -> Tree:
        """A model that was kept; None where there is none."""
        path = self._path(kind, repeat, "")
        if not path.exists():
            return None
        tree: Any = decode_tree(path.read_bytes())
        found: Tree = tree["tree"]
        return found

    def _path(self, kind: str, repeat: int, without: str) -> Path:
        whose = sha256(without.encode()).hexdigest()[:16] if without and kind == "joint" else ALL
        return self._folder / f"{kind}-{repeat}-{whose}"


class Allowance:
    """What a hub may ask, each only so often.

    Args:
        folder: of the party's side of a comparison.
    """

    def __init__(self, folder: Path) -> None:
        """What was asked before this process.

        Raises:
            LedgerError: the file is damaged.
        """
        self._path, self._asked = folder / ASKED, {}  # type: tuple[Path, dict[str, list[str]]]
        data = self._path.read_bytes() if self._path.exists() else b""
        whole = data.rfind(b"\n") + 1
        try:
            for line in data[:whole].splitlines():
                name, what = json.loads(line)
                self._asked.setdefault(name, []).append(what)
        except (ValueError, TypeError):
            raise LedgerError(f"{self._path} must say what was asked. It is damaged. Restore it.") from None
        if whole < len(data):
            os.truncate(self._path, whole)

    def ask(self, slot: Mapping[str, Any], what: str, most: int = 1) -> None:
        """Something is asked under this name: written down before it is answered.

        Args:
            slot: the name.
            what: what is asked, as a hash.
            most: so many different ones are answered.

        Raises:
            ContributionError: it is one too many.
        """
        name = json.dumps(slot, sort_keys=True)
        known = self._asked.setdefault(name, [])
        if what in known:
            return
        if len(known) >= most:
            raise ContributionError(
                f"The step '{slot.get('step')}' was answered before, and is not answered to another question. "
                "A hub that lost its folder must begin another comparison."
            )
        known.append(what)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as f:
            f.write(json.dumps([name, what]) + "\n")
            f.flush()
            os.fsync(f.fileno())
