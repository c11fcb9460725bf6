"""What lies in deploy/, and every command of the page for operators, fits the programs that read it."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from comity.cli.commands import app
from comity.service.keys import make_certificate
from comity.service.settings import HubSettings

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "operate.md").read_text(encoding="utf-8")


def written() -> list[str]:
    """Every comity command of the page and of deploy/."""
    blocks = "\n".join(re.findall(r"^```console\n(.*?)^```", GUIDE, re.M | re.S))
    found = re.findall(r"^\$ (comity .*?)(?:\s+#.*)?$", blocks, re.M) + re.findall(r"`(comity [^`]+)`", GUIDE)
    compose = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    found += re.findall(r"^#\s+(comity .*)$", compose, re.M)
    unit = (ROOT / "deploy" / "comity-hub.service").read_text(encoding="utf-8")
    return found + [f"comity {args}" for args in re.findall(r"^ExecStart=\S+/comity (.*)$", unit, re.M)]


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    said = written()
    assert len(said) > 25
    top: Any = typer.main.get_command(app)
    for line in said:
        words = [word for word in shlex.split(line.replace("|", " "))[1:] if word != "..."]
        command = top
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert command is not top, line
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, line


def test_the_settings_that_are_shown_are_settings(tmp_path: Path) -> None:
    text = re.findall(r"^```toml\n(.*?)^```", GUIDE, re.M | re.S)[0]
    (tmp_path / "hub.toml").write_text(text)
    found = HubSettings.read(tmp_path)
    assert found.studies[0].minimum == 3
    assert set(tomllib.loads(text)) == {  # every setting is shown
        *HubSettings.__dataclass_fields__, "study",
    } - {"folder", "studies", "blobs"}  # fmt: skip


@pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="nginx is not here"
)
def test_nginx_takes_its_settings(tmp_path: Path) -> None:
    key, certificate = make_certificate(["localhost"])
    (tmp_path / "tls.key").write_bytes(key)
    (tmp_path / "tls.crt").write_bytes(certificate)
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"hub[12]:8443", "127.0.0.1:1", text).replace("/etc/nginx/tls", str(tmp_path))
    text = text.replace("pid /run/nginx.pid;", f"pid {tmp_path}/pid; error_log {tmp_path}/log;")
    (tmp_path / "nginx.conf").write_text(text)
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "nginx"
    got = subprocess.run([nginx, "-t", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True, timeout=30)
    assert "syntax is ok" in got.stderr, got.stderr


def test_the_image_installs_what_there_is() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    asked = re.findall(r"EXTRAS=([a-z,]+)", text)
    assert {name for names in asked for name in names.split(",")} <= set(extras)
