"""The helper as a process: asked over a port of this machine, killed and started again in the middle of a run."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from test_twoserver import HERE, NAMES, form, learning, opened, sealed, secret_of, seeds, turn

import comity as co
from comity.channels.helper import ask
from comity.channels.remote import Remote
from comity.cli import _status
from comity.core.wire import encode

COMITY = Path(sys.executable).with_name("comity")


@contextmanager
def running(folder, *more, port=0):
    """A helper; gives its URL, its key and the process."""
    command = [COMITY, "helper", "--folder", folder, "--port", str(port), *more]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            said = [process.stdout.readline().split() for _ in range(2)]
            assert [line[0] for line in said if line] == ["helper", "key"], process.stderr.read()
            yield said[0][1], said[1][1], process
        finally:
            process.kill()
            process.communicate(timeout=20)


def port_of(url):
    return url.rsplit(":", 1)[1]


def test_nothing_is_answered_twice_by_one_that_was_killed(tmp_path):
    with running(tmp_path) as (url, key, process):
        channel = co.TwoServer(url, key)
        (total,) = opened(channel, given := [sealed(channel, n) for n in NAMES])
        assert (total.value["w"] == sum(np.arange(6).reshape(2, 3) * (i + 1) - 5 for i in range(5))).all()
        process.kill()
        process.wait(20)
        with pytest.raises(co.ChannelError, match="Start it with comity helper"):
            opened(channel, given)
    with running(tmp_path, port=port_of(url)) as (again, same, _):
        assert (again, same) == (url, key)
        assert (opened(channel, given)[0].value["w"] == total.value["w"]).all()
        with pytest.raises(co.ChannelError, match="one list of members"):
            opened(channel, given[:-1])
        assert opened(
            channel, [sealed(channel, n, replace(HERE, number=1)) for n in NAMES[:3]], replace(HERE, number=1)
        )


def test_a_run_lives_through_a_helper_that_is_killed_after_it_answered(tmp_path, monkeypatch):
    """The answer of round 2 is lost on the way: the hub asks again, and the new process says the same."""
    with running(tmp_path) as (url, key, first):
        restarted = []
        whole = Remote.masks

        def lost(self, question):
            if question.value["turn"]["number"] == 1 and not restarted:
                httpx.post(url + "/masks", content=encode(question)).raise_for_status()
                first.kill()
                first.wait(20)
                restarted.append(running(tmp_path, port=port_of(url)))
                restarted[0].__enter__()
            return whole(self, question)

        monkeypatch.setattr(Remote, "masks", lost)
        try:
            run = learning(co.TwoServer(url, key), evaluate=False).run(4)
        finally:
            for one in restarted:
                one.__exit__(None, None, None)
    assert restarted
    assert run.ledger.rounds == 4
    assert [e.facts["attempt"] for e in run.ledger if e.kind == "round"] == [0, 0, 0, 0]
    plain = learning(co.Plain(), evaluate=False).run(4).shared
    assert max(np.abs(run.shared[k] - x).max() for k, x in plain.items()) < 1e-6


def test_what_it_is_sent_by_anybody_is_refused_and_it_goes_on(tmp_path):
    identities = tmp_path / "known.json"
    identities.write_text(json.dumps({n: secret_of(n).public_key().hex() for n in NAMES}))
    with running(tmp_path / "h", "--minimum", "4", "--identities", identities) as (url, key, process):
        channel = co.TwoServer(url, key)
        three = encode(ask(turn(), form(), seeds(channel, NAMES[:3])))
        strange = encode(ask(turn(), form(), seeds(channel, (*NAMES[:4], "stranger"))))
        for body, kind, says in (
            (three, "TooFewParticipants", "at least 4"),
            (strange, "ChannelError", "identity of stranger"),
            (b"junk", "ChannelError", "message"),
            (b"", "ChannelError", "message"),
        ):
            answer = httpx.post(url + "/masks", content=body)
            assert answer.status_code == 409
            assert answer.json()["kind"] == kind
            assert says in answer.json()["reason"]
        assert httpx.get(url + "/masks").status_code == 405
        assert httpx.get(url + "/helper.key").status_code == 404
        with pytest.raises(co.TooFewParticipants, match="at least 4"):
            opened(channel, [sealed(channel, n) for n in NAMES[:3]])
        assert opened(channel, [sealed(channel, n) for n in NAMES])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        private = (tmp_path / "h" / "helper.key").read_bytes()
        said = process.stdout.read() + process.stderr.read()
        assert private.hex() not in said
        assert "Traceback" not in said
        assert "Terminated" in said


def test_what_is_no_helper_is_told():
    for url in ("http://127.0.0.1:9", "http://[", "https://127.0.0.1:9"):
        with pytest.raises(co.ChannelError, match="comity helper"):
            Remote(url, 1.0).public_key()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--port", "70000"], "listen on"),
        (["--host", "192.0.2.1"], "listen on"),
        (["--minimum", "1"], "minimum"),
        (["--minimum", "x"], "whole number"),
        (["--identities", "missing.json"], "missing.json"),
        (["--identities", "bad.json"], "JSON"),
        (["--identities", "odd.json"], "identities"),
    ],
)
def test_wrong_settings_end_with_one_line_that_says_so(more, says, tmp_path, monkeypatch, capfd):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "odd.json").write_text('{"a": "zz"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["comity", "helper", "--folder", "h", *more])
    assert _status([]) == 2
    said = capfd.readouterr().err
    assert says in said
    assert "Traceback" not in said
