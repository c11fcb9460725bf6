"""Signed requests: the RFC's own vectors, whatever is changed is refused, and nothing else is ever raised."""

from base64 import b64decode, b64encode, urlsafe_b64decode
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.channels.identity import signed
from comity.ledger.keys import SideSecret
from comity.service.signatures import (
    TOLD,
    Request,
    SignatureRefused,
    claimed,
    content_digest,
    sign,
    signature_base,
    verify,
)

SECRET, NOW, NONCE = SideSecret(b"a" * 32), 1_700_000_000, "0123456789abcdef_-AZ"
KEY = SECRET.public_key()
ASKED = Request(
    "POST", "https://hub.example/v1/reply?run=a%20b&n=1", {"Comity-Run": "r1", "Upload-Offset": "0"}, b"\0body"
)

# RFC 9421, appendix B.1.4 (key), B.2 (request) and B.2.6 (signature base and signature)
RFC_SEED = urlsafe_b64decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU=")
RFC_PUBLIC = urlsafe_b64decode("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs=")
RFC_REQUEST = Request("POST", "https://example.com/foo?param=Value&Pet=dog", {}, b'{"hello": "world"}')
RFC_HEADERS = {"date": "Tue, 20 Apr 2021 02:07:55 GMT", "content-type": "application/json", "content-length": "18"}
RFC_NAMES = ["date", "@method", "@path", "@authority", "content-type", "content-length"]
RFC_PARAMS = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473'
    ';keyid="test-key-ed25519"'
)
RFC_BASE = (
    b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
    b'"@method": POST\n'
    b'"@path": /foo\n'
    b'"@authority": example.com\n'
    b'"content-type": application/json\n'
    b'"content-length": 18\n'
    b'"@signature-params": ' + RFC_PARAMS.encode()
)
RFC_SIGNATURE = b64decode("wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==")


def sent(request: Request = ASKED, **more: Any) -> Request:
    """As it arrives."""
    headers = sign(request, SECRET, **{"keyid": "Krankenhaus Köln", "created": NOW, "nonce": NONCE, **more})
    return replace(request, headers={**dict(request.headers), **headers})


def reason(request: Request, key: bytes | None = KEY, *, now: float = NOW) -> str:
    with pytest.raises(SignatureRefused) as caught:
        verify(request, key, now=now)
    assert str(caught.value) == TOLD
    return caught.value.reason


def changed(request: Request, **headers: str) -> Request:
    return replace(request, headers={**dict(request.headers), **{k.replace("_", "-"): v for k, v in headers.items()}})


def test_the_signature_base_and_the_signature_of_the_rfc() -> None:
    base = signature_base(RFC_REQUEST, RFC_HEADERS, RFC_NAMES, RFC_PARAMS)
    assert base == RFC_BASE
    assert Ed25519PrivateKey.from_private_bytes(RFC_SEED).sign(base) == RFC_SIGNATURE
    assert signed(RFC_PUBLIC, RFC_SIGNATURE, base)
    assert not signed(RFC_PUBLIC, RFC_SIGNATURE, base + b" ")


@pytest.mark.parametrize(
    ("url", "name", "value"),  # RFC 9421, sections 2.2.3, 2.2.6 and 2.2.7
    [
        ("https://www.example.com/path?param=value", "@authority", "www.example.com"),
        ("https://WWW.Example.com:443/path", "@authority", "www.example.com"),
        ("http://www.example.com:80/path", "@authority", "www.example.com"),
        ("https://www.example.com:8443", "@authority", "www.example.com:8443"),
        ("https://[::1]:8443/x", "@authority", "[::1]:8443"),
        ("https://www.example.com/path?param=value", "@path", "/path"),
        ("https://www.example.com", "@path", "/"),
        ("https://www.example.com/a%2Fb/../c", "@path", "/a%2Fb/../c"),
        ("https://www.example.com/path?a=b&baz=bat%2Dman", "@query", "?a=b&baz=bat%2Dman"),
        ("https://www.example.com/path?queryString", "@query", "?queryString"),
        ("https://www.example.com/path", "@query", "?"),
    ],
)  # fmt: skip
def test_the_components_of_the_rfc(url: str, name: str, value: str) -> None:
    assert signature_base(Request("GET", url), {}, [name], "()") == (
        f'"{name}": {value}\n"@signature-params": ()'.encode()
    )


def test_the_digest_of_the_rfc() -> None:
    """RFC 9530, appendix D (its request without the line's end), and of nothing."""
    assert content_digest(b'{"hello": "world"}') == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert content_digest(b"") == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


def test_what_was_signed_is_accepted() -> None:
    said = verify(sent(), KEY, now=NOW)
    assert (said.keyid, said.nonce, said.created) == ("Krankenhaus Köln", NONCE, NOW)
    assert claimed(sent()) == said
    assert sent().headers["Signature-Input"] == (  # type: ignore[call-overload]
        'comity=("@method" "@authority" "@path" "@query" "content-digest" "comity-run" "upload-offset")'
        f';created={NOW};nonce="{NONCE}";keyid="Krankenhaus%20K%C3%B6ln";alg="ed25519";tag="comity-1"'
    )


def test_a_server_that_ends_tls_changes_nothing_that_counts() -> None:
    """Scheme, case of header names, blanks around values, other headers, a poll without a body."""
    poll = sent(Request("GET", "https://hub.example/v1/tasks?after=0"))
    behind = {k.lower(): f" {v}\t" for k, v in dict(poll.headers).items()} | {"x-forwarded-for": "1.2.3.4", "via": "n"}
    assert verify(replace(poll, url="http://hub.example:80/v1/tasks?after=0", headers=behind), KEY, now=NOW)
    assert verify(replace(poll, headers=list(behind.items())), KEY, now=NOW)


def test_whatever_is_changed_is_refused() -> None:
    good = sent()
    for url in ("/v1/Reply?run=a%20b&n=1", "/v1/reply?run=a%20b&n=2", "/v1/reply", "/v1/reply?run=a+b&n=1", ""):
        assert reason(replace(good, url=f"https://hub.example{url}")) == "changed"
    assert reason(replace(good, url="https://hub.example:8443/v1/reply?run=a%20b&n=1")) == "changed"
    assert reason(replace(good, url="https://other.example/v1/reply?run=a%20b&n=1")) == "changed"
    assert reason(replace(good, method="PUT")) == "changed"
    assert reason(replace(good, body=b"\0bodz")) == "changed"
    assert reason(replace(good, body=b"")) == "changed"
    assert reason(changed(good, **{"Content-Digest": content_digest(b"other")}, Body="")) == "changed"
    both = replace(changed(good, **{"Content-Digest": content_digest(b"other")}), body=b"other")
    assert reason(both) == "changed"
    assert reason(changed(good, Comity_Run="r2")) == "changed"
    assert reason(changed(good, Upload_Offset="00")) == "changed"
    assert reason(good, SideSecret(b"b" * 32).public_key()) == "changed"
    assert reason(good, b"") == "changed"
    assert reason(good, None) == "unknown"


@pytest.mark.parametrize(
    "part", ["created=17", 'nonce="0', 'keyid="K', 'alg="e', 'tag="c', '"@query" ', '"comity-run" ']
)
def test_a_changed_parameter_is_refused(part: str) -> None:
    said = dict(sent().headers)["Signature-Input"]
    for other in (part.replace(part[-1], "1"), part + "1", part + "%00", ""):
        assert reason(changed(sent(), Signature_Input=said.replace(part, other))) in ("changed", "malformed")


def test_a_header_that_counts_must_be_signed_and_come_once() -> None:
    assert reason(changed(sent(), Comity_Site="mallory")) == "malformed"
    gone = {k: v for k, v in dict(sent().headers).items() if k != "Comity-Run"}
    assert reason(replace(sent(), headers=gone)) == "malformed"
    for name, value in dict(sent().headers).items():
        assert reason(replace(sent(), headers=[*dict(sent().headers).items(), (name.lower(), value)])) == "malformed"


def test_a_signature_of_less_than_all_is_refused() -> None:
    """Validly signed, but the digest or the query was left out."""
    for left_out in ('"content-digest" ', ' "@query"', '"@method" '):
        said = dict(sent().headers)["Signature-Input"].removeprefix("comity=").replace(left_out, "")
        names = [n.strip('"') for n in said[1 : said.index(")")].split()]
        low = {k.lower(): v for k, v in dict(sent().headers).items()}
        proof = b64encode(SECRET.sign(signature_base(ASKED, low, names, said))).decode()
        assert reason(changed(sent(), Signature_Input=f"comity={said}", Signature=f"comity=:{proof}:")) == "malformed"


def test_clocks_may_differ_by_the_window() -> None:
    for apart in (-300, 300):
        assert verify(sent(), KEY, now=NOW + apart)
    for apart in (-300.5, 300.5, 86400.0, float("nan"), float("inf")):
        assert reason(sent(), now=NOW + apart) == "clock"
    assert reason(replace(sent(), body=b""), now=NOW + 9999) == "changed"  # the hub's time is for parties


def test_a_bad_question_is_not_signed() -> None:
    for wrong in (
        {"keyid": ""},
        {"keyid": "\ud800"},
        {"keyid": "a\0"},
        {"created": -1},
        {"created": True},
        {"nonce": "short"},
    ):
        with pytest.raises(co.ConfigError):
            sent(ASKED, **wrong)
    for url in ("/v1/x", "ftp://a/b", "https://a/b#c", "https://ä.example/", "https://a/ b", 3):
        with pytest.raises(co.ConfigError, match="absolute"):
            sent(replace(ASKED, url=url))  # type: ignore[arg-type]
    with pytest.raises(co.ConfigError, match="bytes"):
        sent(replace(ASKED, body="text"))  # type: ignore[arg-type]
    with pytest.raises(co.ConfigError, match="each once"):
        sign(replace(ASKED, headers=[("comity-a", "1"), ("Comity-A", "2")]), SECRET, keyid="a", created=1, nonce=NONCE)


def test_a_secret_is_in_no_text() -> None:
    assert "body" not in repr(ASKED)
    signer = SimpleNamespace(sign=SECRET.sign)
    assert verify(replace(ASKED, headers={**dict(ASKED.headers), **sign(
        ASKED, signer, keyid="a", created=NOW, nonce=NONCE)}), KEY, now=NOW).keyid == "a"  # fmt: skip


HEADERS = ["Signature", "Signature-Input", "Content-Digest", "Comity-Run", "signature", "x"]
TEXT = st.text(max_size=60) | st.sampled_from(
    ['comity=("@method")', "comity=::", 'comity=();keyid="%ff"', "\0", "é", "="]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(name=st.sampled_from(HEADERS), at=st.integers(0, 400), cut=st.integers(0, 5), put=TEXT)
def test_damaged_headers_are_refused_and_nothing_else(name: str, at: int, cut: int, put: str) -> None:
    good = dict(sent().headers)
    value = good.get(name, "")
    damaged = value[:at] + put + value[at + cut :]
    try:
        said = verify(replace(ASKED, headers={**good, name: damaged}), KEY, now=NOW)
    except SignatureRefused:
        return
    assert damaged.strip(" \t") == value or name == "x", "another header was accepted"
    assert said == claimed(sent())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    method=st.text(max_size=8),
    url=st.text(max_size=40) | st.just("https://[") | st.just("https://a:99999999999/"),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS) | st.text(max_size=12), TEXT), max_size=6),
    body=st.binary(max_size=20),
)
def test_any_request_is_refused_and_nothing_else(method: str, url: str, headers: Any, body: bytes) -> None:
    assert reason(Request(method, url, headers, body)) in ("malformed", "changed")
    assert reason(Request(method, url, dict(sent().headers), body)) in ("malformed", "changed")
    with pytest.raises(SignatureRefused):
        claimed(Request(method, url, headers, body))


def test_huge_headers_are_refused_at_once() -> None:
    for huge in ('comity=("a"' + ' "a"' * 10**5 + ")", "comity=()" + ";a=1" * 10**5, "a" * 10**6, "(" * 10**5):
        assert reason(changed(sent(), Signature_Input=huge)) == "malformed"
    assert reason(replace(sent(), url="https://hub.example/" + "a" * 10**6)) == "malformed"
