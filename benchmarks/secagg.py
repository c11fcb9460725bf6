"""Secure aggregation beside plain averaging: CPU seconds of one thread, ratios in one run, the sum checked to the bit.

    OMP_NUM_THREADS=1 python benchmarks/secagg.py [--quick] [--write]

`plain` adds float32 vectors as they arrive and divides; the hub of `SecAgg` checks keys, adds masked vectors,
relays signatures, puts secrets together and takes masks away. Participants are timed each for itself, in the median:
quantising and masks; keys, shares, signatures and reveals. Bytes are those of their messages. With `--flower PYTHON`,
where flwr is installed, its quantising, masks and sums are timed beside it, as many as its protocol takes, no keys.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import cryptography
import numpy as np

import comity as co
from comity.channels.secagg import SecAgg
from comity.core.contribution import Contribution
from comity.core.parts import Until
from comity.core.round import Round
from comity.core.wire import size

PAGE, MARKS = Path(__file__).parents[1] / "docs" / "benchmarks.md", ("<!-- secagg -->", "<!-- /secagg -->")
SECRET = co.testing.fixed_secret(0)
BOUND, PIECE = 1.0, 2**15
FLOWER = """
import json, time
import numpy as np
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.common.secure_aggregation.quantization import quantize
D, K, N, GONE = {d}, {k}, {n}, {gone}
T = time.thread_time
def least(work, times=3):
    out = []
    for _ in range(times):
        s = T(); work(); out.append(T() - s)
    return min(out)
x = [np.random.default_rng(0).normal(size=D).astype("float32") * 0.1]
key = bytes(range(32))
held = {{}}
def client():
    q = quantize(x, 1.0, 2**22)
    for i in range(K + 1):
        mask = pseudo_rand_gen(key[i:] + key[:i], 2**32, [(D,)])
        q = parameters_addition(q, mask) if i % 2 else parameters_subtraction(q, mask)
    held["up"] = sum((a % 2**32).astype("int64").nbytes for a in q)
def one():
    held["q"] = parameters_subtraction(held["q"], pseudo_rand_gen(key, 2**32, [(D,)]))
client_s = least(client)
held["q"] = quantize(x, 1.0, 2**22)
once = least(one, 5)
held["r"] = quantize(x, 1.0, 2**22)
def add():
    held["q"] = parameters_addition(held["q"], held["r"])
masks = N - GONE + GONE * K
print(json.dumps({{"client": client_s, "hub": once * masks + least(add, 5) * (N - GONE), "up": held["up"]}}))
"""


def quantised(x: np.ndarray, asked: int) -> np.ndarray:
    """As `FixedPoint` does: towards zero, clipped, a piece in cache at a time."""
    most = (2**31 - 1) // asked
    out, held = np.empty(x.size, np.int32), np.empty(PIECE)
    for i in range(0, x.size, PIECE):
        part = held[: min(PIECE, x.size - i)]
        np.multiply(x[i : i + PIECE], most / BOUND, out=part, dtype=np.float64)
        np.clip(part, -most, most, out=part)
        out[i : i + PIECE] = part
    return out


def timed(work):
    """What it gives, and its CPU seconds."""
    began = time.thread_time()
    made = work()
    return made, time.thread_time() - began


class Bench:
    """One round of a cohort with the work of each side measured apart."""

    def __init__(self, channel: SecAgg, n: int, d: int, gone: int) -> None:
        self.channel, self.n, self.gone = channel, n, gone
        self.names = [f"p{i:05d}" for i in range(n)]
        self.base = np.random.default_rng(0).normal(size=d).astype("float32") * np.float32(0.1)
        self.turn = Round("bench", 0, roster=n, asked=n, expected=float(n))
        self.memories = {name: {} for name in self.names}
        self.spent = dict.fromkeys(self.names, 0.0)
        self.masking, self.up = dict.fromkeys(self.names, 0.0), dict.fromkeys(self.names, 0)
        self.outside = 0.0
        self.want = np.zeros(d, np.int64)

    def mine(self, name, work):
        """What one member does, on its own account and not on the hub's."""
        began = time.thread_time()
        made, self.memories[name] = work(self.memories[name], replace(self.turn, me=name), SECRET.side(name))
        took = time.thread_time() - began
        self.spent[name] += took
        self.up[name] += size(made)
        self.outside += time.thread_time() - began
        return replace(made, sender=name), took

    def ask(self, who, body, until):
        for name in who:
            message = body(name)
            yield self.mine(name, lambda m, r, s, q=message: self.channel.answer(q, m, r, s))[0]

    def vector(self, i):
        return self.base * np.float32(1 + 0.01 * i)

    def seals(self, session, dropped):
        """What arrives; none of the time in here is the hub's."""
        for i, name in enumerate(self.names):
            if i in dropped:
                continue
            before, began = self.outside, time.thread_time()
            x, view = self.vector(i), session.view(name)
            q, quantising = timed(lambda x=x: quantised(x, self.n))
            self.want += q
            c = Contribution("delta", {"w": q}, 1.0)
            sealed, masking = self.mine(name, lambda m, r, s, c=c, v=view: self.channel.seal(c, v, m, r, s))
            self.spent[name] += quantising
            self.masking[name] = masking + quantising
            del x, q, c
            self.outside = before + time.thread_time() - began
            yield sealed

    def hub(self):
        """CPU seconds of the hub for one round."""
        dropped = set(range(2, self.n, max(1, self.n // self.gone)) if self.gone else ())
        dropped = set(sorted(dropped)[: self.gone])
        began = time.thread_time()
        session = self.channel.setup(self.names, self.ask, self.turn)
        setting = time.thread_time() - began - self.outside
        began, self.outside = time.thread_time(), 0.0
        (got,) = self.channel.open(self.seals(session, dropped), session, self.ask, Until(1))
        opening = time.thread_time() - began - self.outside
        assert (got.value["w"] == self.want).all(), "The sum must be that of the fixed-point numbers, bit by bit."
        assert got.weight == self.n - len(dropped)
        return setting, opening

    def plain(self):
        """CPU seconds of plain averaging of as many float32 vectors."""
        total, spent = np.zeros(self.base.size, np.float32), 0.0
        for i in range(self.n - self.gone):
            x = self.vector(i)
            began = time.thread_time()
            np.add(total, x, out=total)
            spent += time.thread_time() - began
        began = time.thread_time()
        total /= np.float32(self.n - self.gone)
        return spent + time.thread_time() - began


def measured(n, d, gone, channel, flower):
    bench = Bench(channel, n, d, gone)
    setting, opening = bench.hub()
    plain = bench.plain()
    alive = [name for name in bench.names if bench.masking[name]]
    row = {
        "participants": n, "numbers": d, "dropped": gone, "neighbours": channel.degree,
        "participant masks and quantising s": float(np.median([bench.masking[x] for x in alive])),
        "participant keys and shares s": float(np.median([bench.spent[x] - bench.masking[x] for x in alive])),
        "hub keys s": setting, "hub s": setting + opening, "plain s": plain, "hub / plain": (setting + opening) / plain,
        "upload / float32": float(np.mean([bench.up[x] for x in alive])) / (4 * d),
    }  # fmt: skip
    if flower and d <= 1_000_000:
        code = FLOWER.format(d=d, k=channel.degree, n=n, gone=gone)
        done = subprocess.run([flower, "-c", code], capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            print(done.stderr[-500:], file=sys.stderr)
        else:
            theirs = json.loads(done.stdout.splitlines()[-1])
            ours = row["participant masks and quantising s"], row["hub s"], row["upload / float32"] * 4 * d
            row["Flower"] = {k: v / o for (k, v), o in zip(theirs.items(), ours, strict=True)}
    return row


def table(rows):
    head = ("participants x numbers", "dropped", "neighbours", "participant: quantise + mask", "keys, shares, reveals",
            "hub", "plain averaging", "hub / plain", "upload / float32")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        lines.append(
            f"| {r['participants']} x {r['numbers']:,} | {r['dropped']} | {r['neighbours']} "
            f"| {r['participant masks and quantising s']:.4f} s | {r['participant keys and shares s']:.4f} s "
            f"| {r['hub s']:.3f} s | {r['plain s']:.3f} s | {r['hub / plain']:.1f} | {r['upload / float32']:.5f} |"
        )
    for r in rows:
        if "Flower" in r:
            f = r["Flower"]
            cpu = f"participant {f['client']:.0f} times, hub {f['hub']:.0f} times the CPU time"
            lines += ["", f"Flower's SecAgg+ at {r['numbers']:,} numbers: {cpu}, {f['up']:.1f} times the upload."]
    return "\n".join(lines)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--quick", action="store_true")
    ask.add_argument("--write", action="store_true")
    ask.add_argument("--flower", default="")
    given = ask.parse_args()
    channel = SecAgg(degree=20, corrupt=0.02, dropout=0.05)
    cases = [(40, 100_000, 2)] if given.quick else [(100, 1_000_000, 5), (100, 10_000_000, 5)]
    rows = [measured(n, d, gone, channel, given.flower) for n, d, gone in cases]
    versions = {"comity": co.__version__, "cryptography": cryptography.__version__, "numpy": np.__version__,
                "python": platform.python_version()}  # fmt: skip
    print(table(rows))
    print(json.dumps({"secagg": rows, "seed": 0, "versions": versions, "date": str(date.today())}))
    if given.write:
        text, (a, b) = PAGE.read_text(encoding="utf-8"), MARKS
        before, rest = text.split(a)
        PAGE.write_text(f"{before}{a}\n{table(rows)}\n{b}{rest.split(b)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
