"""Progress, TensorBoard and MLflow, the last two against stand-ins of their libraries."""

import io
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import comity as co
from comity.listeners.numbers import counts, steps, values

X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(inputs=4, classes=2, rate=0.5)


class Shy(co.Trainer):
    """Fails in its second round's first attempt."""

    def contribute(self, shared, local, round, secret):
        if (round.number, round.attempt) == (1, 0) and shared.kind != "score":
            raise OSError("away")
        return super().contribute(shared, local, round, secret)


def collaboration(who=co.Trainer, **parts):
    sites = {name: who(MODEL, (X, Y), test=(X, Y)) for name in ("a", "b")}
    return co.Collaboration(co.FedAvg(MODEL), sites, **{"evaluate": co.every(2), "quorum": 1.0, **parts})


def written(terminal=True, rounds=2, **parts):
    seen = io.StringIO()
    progress = co.Progress(Console(file=seen, force_terminal=terminal, width=200, legacy_windows=False))
    run = collaboration(**parts).run(rounds, listen=progress)
    return seen.getvalue(), run


def test_numbers_are_those_of_the_history():
    events = []
    run = collaboration(who=Shy).run(4, listen=events.append)
    rounds = [e for e in events if e.kind == "round" and e.closed]
    assert [steps(e) for e in rounds] == run.history["round"].to_list()
    assert [counts(e)["accepted"] for e in rounds] == run.history["accepted"].to_list()
    assert sum(counts(e)["bytes_up"] for e in events) == run.ledger.bytes_up
    assert sum(counts(e)["bytes_down"] for e in events) == run.ledger.bytes_down
    assert [values(e)["train_loss"] for e in rounds] == run.history["train_loss"].to_list()
    assert {steps(e): values(e) for e in events if e.kind == "score"}[4] == run.metrics
    (failed,) = [e for e in events if not e.closed]
    assert (steps(failed), values(failed), counts(failed)["asked"]) == (1, {}, 2)


def test_progress_is_one_line():
    text, run = written(who=Shy)
    size = f"{run.ledger.bytes_up / 1000:.3g} kB up, {run.ledger.bytes_down / 1000:.3g} kB down"
    assert f"round 2   2/2 accepted   {size}   accuracy 1" in text
    assert "round 2 did not close (attempt 1)   0/2 accepted" in text
    assert text.count("\n") == 1
    assert text.rstrip().endswith("\x1b[?25h")


def test_progress_before_any_score_shows_training():
    text, _ = written(rounds=1, evaluate=False)
    assert "train_loss 0.6931" in text


def test_progress_is_quiet_without_a_terminal():
    assert written(terminal=False)[0] == ""


def test_progress_may_watch_one_run_after_the_other():
    seen = io.StringIO()
    progress = co.Progress(Console(file=seen, force_terminal=True, width=200))
    for _ in range(2):
        seen.truncate(0)
        run = collaboration().run(1, listen=progress)
        assert f"{run.ledger.bytes_up / 1000:.3g} kB up" in seen.getvalue().split("\r")[-1]


class Writer:
    """Stands in for a SummaryWriter."""

    made: list = []

    def __init__(self, log_dir):
        self.log_dir, self.scalars, self.closed = log_dir, [], False
        Writer.made.append(self)

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.scalars.append((tag, scalar_value, global_step))

    def close(self):
        self.closed = True


def stand_in(monkeypatch, name, **held):
    module = ModuleType(name)
    vars(module).update(held)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("library", ["torch.utils.tensorboard", "tensorboardX"])
def test_tensorboard_has_a_scalar_for_each_number(library, monkeypatch, tmp_path):
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    stand_in(monkeypatch, library, SummaryWriter=Writer)
    board = co.TensorBoard(tmp_path / "board")
    assert Writer.made == []
    run = collaboration().run(2, listen=board)
    (writer,) = Writer.made
    assert (writer.log_dir, writer.closed) == (str(tmp_path / "board"), True)
    found = {(tag, step): value for tag, value, step in writer.scalars}
    assert found["score/accuracy", 2] == run.metrics["accuracy"]
    assert [found["round/train_loss", n] for n in (1, 2)] == run.history["train_loss"].to_list()
    assert found["round/asked", 1] == found["round/accepted", 1] == 2
    assert sum(v for tag, v, _ in writer.scalars if tag == "bytes/up") == run.ledger.bytes_up
    collaboration().run(1, listen=board)
    assert len(Writer.made) == 2


def test_mlflow_has_a_metric_for_each_number(monkeypatch):
    logged = []
    client = SimpleNamespace(log_metric=lambda run, key, value, step: logged.append((run, key, value, step)))
    stand_in(monkeypatch, "mlflow", MlflowClient=lambda: client)
    for given in ("1f2e", SimpleNamespace(info=SimpleNamespace(run_id="1f2e"))):
        logged.clear()
        run = collaboration().run(2, listen=co.MLflow(given))
        assert {r for r, *_ in logged} == {"1f2e"}
        found = {(key, step): value for _, key, value, step in logged}
        assert found["accuracy", 2] == run.metrics["accuracy"]
        assert [found["round.train_loss", n] for n in (1, 2)] == run.history["train_loss"].to_list()
        assert found["round.accepted", 1] == 2
        assert found["score.bytes_up", 2] + sum(found["round.bytes_up", n] for n in (1, 2)) == run.ledger.bytes_up


def test_mlflow_gets_names_that_it_takes(monkeypatch):
    logged = []
    client = SimpleNamespace(log_metric=lambda run, key, value, step: logged.append(key))
    stand_in(monkeypatch, "mlflow", MlflowClient=lambda: client)

    class Odd(co.Trainer):
        def contribute(self, shared, local, round, secret):
            c, local = super().contribute(shared, local, round, secret)
            return co.Contribution(c.kind, c.value, c.weight, {"zürich: 5%": (1.0, 1.0)}), local

    collaboration(who=Odd).run(1, listen=co.MLflow("1f2e"))
    assert "z_rich_ 5_" in logged


def test_without_their_libraries_they_say_what_to_install(monkeypatch, tmp_path):
    for name in ("torch.utils.tensorboard", "tensorboardX", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(co.ConfigError, match="pip install tensorboardX"):
        co.TensorBoard(tmp_path)
    with pytest.raises(co.ConfigError, match="pip install mlflow"):
        co.MLflow("1f2e")


def test_a_server_that_does_not_answer_does_not_end_the_run(monkeypatch):
    def gone(*args, **more):
        raise ConnectionError("refused")

    stand_in(monkeypatch, "mlflow", MlflowClient=lambda: SimpleNamespace(log_metric=gone))
    with pytest.warns(RuntimeWarning, match=r"The listener MLflow failed .* ConnectionError: refused"):
        assert collaboration().run(2, listen=co.MLflow("1f2e")).ledger.rounds == 2


def test_a_run_without_listeners_loads_none_of_them():
    code = "import sys; from comity import collaboration; print(*{'rich', 'torch', 'mlflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
