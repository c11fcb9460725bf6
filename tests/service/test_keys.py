"""Key files, fingerprints, certificates, a hub's folder, tokens: open to their owner alone, and shown to nobody."""

import os
import ssl
import stat
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509

import comity as co
from comity.service import keys
from comity.service.invitations import Invitation
from comity.service.joining import Pinned
from comity.service.settings import HubSettings


def test_an_identity_is_made_once_and_open_to_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "ada.key"
    made = keys.make_identity(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes()) == 32
    assert keys.make_identity(file).public_key() == made.public_key() == keys.read_identity(file).public_key()
    assert [p.name for p in file.parent.iterdir()] == ["ada.key"]
    assert keys.make_identity(tmp_path / "bob.key").public_key() != made.public_key()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_key_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "ada.key"
    keys.make_identity(file)
    file.chmod(mode)
    for read in (keys.read_identity, keys.make_identity):
        with pytest.raises(co.ConfigError, match=f"mode {mode:04o}"):
            read(file)
    file.chmod(0o400)
    assert keys.read_identity(file)


def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    for data in (b"", b"hidden" * 5, b"x" * 33):
        keys.write_private(tmp_path / "k", data)
        with pytest.raises(co.ConfigError, match=f"must hold 32 bytes. Got {len(data)}") as caught:
            keys.read_identity(tmp_path / "k")
        assert "hidden" not in str(caught.value)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for other in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(co.ConfigError):
            keys.read_identity(other)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(co.ConfigError, match="No such file"):
        keys.make_identity(tmp_path / "link")
    with pytest.raises(co.ConfigError, match="folder"):
        keys.make_identity(tmp_path / "k" / "below")


def test_of_many_who_make_one_identity_all_get_the_same(tmp_path: Path) -> None:
    made: list[bytes] = []
    crowd = [
        threading.Thread(target=lambda: made.append(keys.make_identity(tmp_path / "k").public_key())) for _ in range(8)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(30)
    assert len(made) == 8
    assert len(set(made)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_fingerprints_are_compared_as_people_write_them() -> None:
    text = keys.fingerprint(b"key")
    assert [len(group) for group in text.split()] == [4] * 16
    assert text.replace(" ", "") == sha256(b"key").hexdigest()
    for written in (text, text.upper(), f"SHA256:{text}", text.replace(" ", ":"), f" {text}\n"):
        assert keys.same_fingerprint(written, b"key")
    for other in ("", text[:-1], text[5:], text + "00", "sha256:", keys.fingerprint(b"kez")):
        assert not keys.same_fingerprint(other, b"key")


def test_a_certificate_is_for_its_hosts() -> None:
    private, pem = keys.make_certificate(["hub.example", "10.0.0.1", "::1"], days=90)
    made = x509.load_pem_x509_certificate(pem)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]
    assert made.signature_hash_algorithm is not None
    assert made.signature_hash_algorithm.name == "sha256"
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 90
    assert private.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert keys.certificate_der(pem.decode()) == ssl.PEM_cert_to_DER_cert(pem.decode())
    for hosts in ([], ["a b"], ["hub.example", ""]):
        with pytest.raises(co.ConfigError, match="names or addresses"):
            keys.make_certificate(hosts)
    with pytest.raises(co.ConfigError, match="PEM"):
        keys.certificate_der("no certificate")


def test_a_token_is_read_whole_or_not_at_all() -> None:
    made = Invitation(os.urandom(32), os.urandom(32), os.urandom(32), "Köln 1")
    text = made.text()
    assert Invitation.read(f" {text}\n") == made
    for at in range(0, len(text), 7):
        other = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        for broken in (other, text[:at], text[at + 1 :]):
            with pytest.raises(co.ConfigError) as caught:
                Invitation.read(broken)
            assert text[20:40] not in str(caught.value)
    assert made.secret.hex() not in repr(made)
    assert repr(made.secret) not in repr(made)


def test_the_folder_of_a_hub_is_made_once(tmp_path: Path) -> None:
    made = HubSettings.make(tmp_path / "hub", name='A "hub" für alle', host="hub.example", port=443)
    files = {p.name: (p.read_bytes(), stat.S_IMODE(p.stat().st_mode)) for p in (tmp_path / "hub").iterdir()}
    assert {name for name, (_, mode) in files.items() if mode == 0o600} == {"hub.key", "tls.key"}
    assert stat.S_IMODE((tmp_path / "hub").stat().st_mode) == 0o700
    again = HubSettings.make(tmp_path / "hub", name='A "hub" für alle', host="hub.example", port=443)
    assert made == again == HubSettings.read(tmp_path / "hub") == HubSettings.read(tmp_path / "hub" / "hub.toml")
    assert files == {p.name: (p.read_bytes(), stat.S_IMODE(p.stat().st_mode)) for p in (tmp_path / "hub").iterdir()}
    assert (made.url, made.name) == ("https://hub.example:443", 'A "hub" für alle')
    assert made.secret().public_key() == again.secret().public_key()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(made.certificate), str(made.certificate_key))
    with pytest.raises(co.ConfigError, match="lives there"):
        HubSettings.make(tmp_path / "hub", name="other", host="hub.example", port=443)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = 3",
        "no toml",
        'name="a"\nurl="https://a/b"\nhost="x"\nport=1',
        'name="a"\nurl="https://a"\nhost="x"\nport=true',
        'name="a"\nurl="https://a"\nhost="x"\nport=1\ncertificate="c"',
        'name="a"\nurl="https://a"\nhost="x"\nport=1\nother=1',
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hub.toml").write_text(text)
    with pytest.raises(co.ConfigError, match=r"hub\.toml"):
        HubSettings.read(tmp_path)


def test_the_password_of_a_database_is_in_no_repr(tmp_path: Path) -> None:
    said = 'name="a"\nurl="https://a"\nhost="x"\nport=1\ndatabase="postgresql+psycopg://hub:hidden@db/comity"'
    (tmp_path / "hub.toml").write_text(said)
    assert "hidden" not in repr(HubSettings.read(tmp_path))


def test_what_joining_wrote_is_read_or_refused(tmp_path: Path) -> None:
    with pytest.raises(co.ConfigError, match="comity join"):
        Pinned.read(tmp_path / "ada.key")
    for data in (b"", b"{}", b"[]", b'{"url": 1, "key": "zz"}', b"\xff"):
        keys.write_private(tmp_path / "ada.key.hub", data)
        with pytest.raises(co.ConfigError, match="damaged"):
            Pinned.read(tmp_path / "ada.key")
