"""Sites of the benchmark: a process with some of them, each in a thread of its own.

    python -m hubs.sites '{"url": ..., "certificate": ..., "names": [...], "work": ..., "size": ..., "folder": ...}'

Prints, at the end, the CPU seconds from one round to the next, of the whole process.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import comity as co
from hubs import work


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    threads = [threading.Thread(target=_site, args=(order, name)) for name in order["names"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marks, each = work.MARKS, len(threads)
    first, last = marks[each - 1], marks[-1]
    rounds = len(marks) // each
    print(json.dumps({"cpu": (last[1] - first[1]) / max(1, rounds - 1)}))


def _site(order: dict[str, Any], name: str) -> None:
    fed = work.collaboration(order["work"], order["size"])
    to, folder = work.pinned(order["url"], name, order["certificate"]), Path(order["folder"]) / name
    co.join(fed, to, work.Fixed(order["size"], name), identity=work.secret(name), folder=folder)


if __name__ == "__main__":
    main()
