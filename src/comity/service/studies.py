"""A study: a Python file of one's own that says what is learnt together. Hub and parties each run their own copy.

import comity as co

title = "Readmission"                                   # optional: as people call it
rounds = 20
model = co.Linear(inputs=30, classes=2)
fed = co.Collaboration(co.FedAvg(model))                # without participants

def participant(data):                                  # at a party; data: the path that it names
    return co.Trainer(model, co.read(data))
"""

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from comity.collaboration import Collaboration
from comity.core.checks import part, refusal, text, whole
from comity.core.errors import ConfigError, nearest
from comity.core.recipe import recipe

MODULE = "study_file"
"""The module as which a study runs, whatever its file is called: its own classes have the same name everywhere."""
_KNOWN = ("fed", "rounds", "title", "participant")


@dataclass(frozen=True, slots=True)
class Study:
    """What is learnt together, as one's own file says it.

    Attributes:
        name: the file's, without its end: letters, digits, `.`, `-`, `_`.
        fed: what is learnt and how, without participants.
        rounds: closed rounds at the end, >= 1.
        title: as people call it; the name where the file gives none.
        file: where it was read.
    """

    name: str
    fed: Collaboration
    rounds: int
    title: str
    file: Path
    _make: Callable[[Any], Any] | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Run a file and take what it defines. Only a file of one's own: it may do whatever its reader may.

        Modules beside the file are found by it. Studies that one process loads should lie in one folder.

        Raises:
            ConfigError: it cannot be read or run (the file and the line are named), or does not define a study.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     file = Path(folder, "sums.py")
            ...     size = file.write_text("import comity as co\\nrounds = 3\\n"
            ...                            "fed = co.Collaboration(co.FedAvg(co.Linear(inputs=4, classes=2)))\\n")
            ...     study = Study.load(file)
            >>> study.name, study.rounds, study.title
            ('sums', 3, 'sums')
        """
        file = Path(path).absolute()
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", file.stem):
            raise ConfigError(
                f"A study must be called by letters, digits, '.', '-' and '_'. Got {file.name!r:.90}. Call it study.py."
            )
        found = _defined(file)
        rounds = _checked(file, partial(whole, "rounds", "a study", found["rounds"], 1))
        title = _checked(file, partial(text, "title", "a study", found.get("title", file.stem)))
        return cls(file.stem, _without(file, found["fed"]), rounds, title, file, _maker(file, found))

    @property
    def hash(self) -> str:
        """The sha256 (hex) of its recipe: what parties approve."""
        agreed: str = recipe(self.fed)["hash"]
        return agreed

    def participant(self, data: Any) -> Any:
        """What takes part for a party.

        Args:
            data: as the file's `participant` wants it; from the command, the path that it was given.

        Raises:
            ConfigError: the file has no `participant`, or it failed (the line is named), or gave something else.
        """
        if self._make is None:
            raise ConfigError(f"{self.file} must define participant(data) to take part. It does not. Add it.")
        made = _ran(self.file, partial(self._make, data))
        return _checked(self.file, partial(_contributing, made))


def _defined(file: Path) -> Mapping[str, Any]:
    """What a file defines.

    Raises:
        ConfigError: it cannot be read or run, or a name is missing.
    """
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} must be a study that can be read. Got: {error.strerror}. Name another.") from None
    names = vars(_module(file, source))
    for name in ("fed", "rounds"):
        if name not in names:
            near = nearest(name, [n for n in names if not n.startswith("_") and n not in _KNOWN])
            what = "a co.Collaboration without participants" if name == "fed" else "a whole number, 20 for one"
            raise ConfigError(f"{file} must define {name}, {what}. It does not.{near or ' Add it.'}")
    return names


def _module(file: Path, source: bytes) -> ModuleType:
    """Run a file as a module of a name of its own."""
    module = ModuleType(MODULE)
    module.__file__ = str(file)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    sys.modules[MODULE] = module  # dataclasses look themselves up there

    def run() -> None:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)  # the caller's own

    _ran(file, run)
    return module


def _ran(file: Path, what: Callable[[], Any]) -> Any:
    """Run code of a file; what it raises names the file and its line.

    Raises:
        ConfigError: it raised something.
    """
    try:
        return what()
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        raise ConfigError(f"{file}{_line(file, error)} must run. It fails: {kind}{said or 'it ends'}") from error


def _line(file: Path, error: BaseException) -> str:
    """Where in a file it failed, the innermost line of it."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f", line {error.lineno}"
    lines = [row.lineno for row in traceback.extract_tb(error.__traceback__) if row.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""


def _checked(file: Path, check: Callable[[], Any]) -> Any:
    """A value that was checked; a complaint names the file."""
    try:
        return check()
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _without(file: Path, fed: Any) -> Collaboration:
    if not isinstance(fed, Collaboration):
        said = f"Got a {type(fed).__name__}"
        raise ConfigError(f"{file}: 'fed' must be a co.Collaboration. {said}. Use co.Collaboration(co.FedAvg(model)).")
    if len(fed.participants):
        raise ConfigError(
            f"{file}: 'fed' must have no participants: each party brings its own. Got {len(fed.participants)}. "
            "Make them in participant(data)."
        )
    return fed


def _maker(file: Path, found: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    make: Any = found.get("participant")
    if make is None:
        return None
    try:
        inspect.signature(make).bind("")
    except (TypeError, ValueError):
        raise ConfigError(f"{file}: 'participant' must be a function of one argument, the data. Correct it.") from None
    made: Callable[[Any], Any] = make
    return made


def _contributing(made: Any) -> Any:
    if isinstance(made, type):
        raise refusal("participant", "a study", "a function that gives a participant", made)
    part("participant", "a study", made, ("contribute()",), "return co.Trainer(model, data), for one")
    return made
