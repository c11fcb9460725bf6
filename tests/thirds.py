"""The tests in three processes at once: those between organisations mostly wait, the others share the cores.

python tests/thirds.py [options of pytest]    what each prints is shown when all are done
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
PARTS = (("docs", "engines", "equivalence", "methods", "privacy", "test_*.py"), ("service",))
"""What one process takes (all of Ray in the first), and another; whatever is not named here is in the third."""


def main(options: list[str]) -> int:
    """The exit status: 0 where all ended well."""
    parts = [[str(path) for name in names for path in sorted(TESTS.glob(name))] for names in PARTS]
    rest = [str(TESTS), *(f"--ignore={path}" for part in parts for path in part)]
    begun = [_begun([*options, "-p", "no:cacheprovider"], part) for part in parts]  # one cache cannot be written by all
    begun.append(_begun(options, rest))
    return max([_ended(*one) for one in begun], key=bool)


def _begun(options: list[str], paths: list[str]) -> Any:
    said = tempfile.TemporaryFile()  # noqa: SIM115  it is closed when it was shown
    command = [sys.executable, "-m", "pytest", *options, *paths]
    return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT), said


def _ended(process: Any, said: Any) -> int:
    try:
        code: int = process.wait()
    finally:
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
        said.close()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
