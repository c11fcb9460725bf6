"""The tests in two processes at once: nearly twice as quick on two cores.

python tests/halves.py [options of pytest]    what the first half prints is shown when both are done
"""

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
FIRST = ("docs", "engines", "equivalence", "methods", "privacy", "test_*.py")
"""What takes half of the time (and all of Ray); whatever is not named here is in the second half."""


def main(options: list[str]) -> int:
    """The exit status: 0 where both ended well."""
    first = [str(path) for name in FIRST for path in sorted(TESTS.glob(name))]
    rest = [f"--ignore={path}" for path in first]
    pytest = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile() as said:
        # One cache cannot be written by two.
        here = subprocess.Popen([*pytest, "-p", "no:cacheprovider", *first], stdout=said, stderr=subprocess.STDOUT)
        try:
            code = subprocess.call([*pytest, str(TESTS), *rest])
        finally:
            here.wait()
            said.seek(0)
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
    return code or here.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
