from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from crdt_state.clocks import WallTime
from crdt_state.errors import KeyNotUsable, TokenRejected
from crdt_state.identifiers import document_id
from crdt_state.limits import Limits
from crdt_state.security.grant import EVERYTHING, Access, Grant, Right
from crdt_state.security.tokens import (
    NoAuthentication,
    TokenAuthentication,
    TokenKey,
    TokenRules,
    parse_keys,
    sign,
    verify,
)

NOW = WallTime(1_700_000_000_000_000)
LATER = WallTime(NOW + 60_000_000)
SECRET = "0123456789abcdef0123456789abcdef"
SECRET_KEYS = parse_keys(SECRET)
CLAIMS: dict[str, Any] = {
    "sub": "ana",
    "exp": LATER // 1_000_000,
    "documents": {"notes/ana/**": "write", "notes/*/published": "read"},
}
ANA = Grant(
    "ana",
    (Right("notes/ana/**", Access.WRITE), Right("notes/*/published", Access.READ)),
    expires_at=LATER,
)

ED25519 = OKPKey.generate_key("Ed25519")
P256 = ECKey.generate_key("P-256")
RSA = RSAKey.generate_key(2048)


def pem(key: OKPKey | ECKey | RSAKey, *, private: bool) -> str:
    return key.as_pem(private=private).decode()


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token_of(
    claims: object,
    *,
    header: object = None,
    secret: bytes = SECRET.encode(),
    hash_name: str = "sha256",
) -> str:
    """Made by hand, so that nothing of the library under test takes part."""
    signed = f"{part(header or {'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    signature = hmac.digest(secret, signed.encode(), hash_name)
    return f"{signed}.{part(signature)}"


def granted(claims: object, *, now: int = NOW, rules: TokenRules = TokenRules()) -> Grant:  # noqa: B008
    return verify(token_of(claims), SECRET_KEYS, now=WallTime(now), rules=rules)


def reason(token: str, keys: tuple[TokenKey, ...] = SECRET_KEYS, **options: Any) -> str:
    with pytest.raises(TokenRejected) as caught:
        verify(token, keys, **{"now": NOW} | options)
    assert caught.value.code == 4401
    assert len(caught.value.reason.encode()) <= 123, "does not fit a close frame"
    return caught.value.reason


def test_the_example_of_the_documentation_is_granted() -> None:
    grant = granted(CLAIMS)
    assert grant == ANA
    assert grant.may_write(document_id("notes/ana/a/b"))
    assert grant.may_read(document_id("notes/bob/published"))
    assert not grant.may_write(document_id("notes/bob/published"))
    assert not grant.may_relay
    assert granted(CLAIMS | {"relay": True}).may_relay


@pytest.mark.parametrize(
    ("private", "public", "algorithm"),
    [
        (SECRET, SECRET, "HS256"),
        (pem(ED25519, private=True), pem(ED25519, private=False), "EdDSA"),
        (pem(P256, private=True), pem(P256, private=False), "ES256"),
        (pem(RSA, private=True), pem(RSA, private=False), "RS256"),
        (json.dumps(P256.as_dict(private=True)), pem(P256, private=False), "ES256"),
        (
            json.dumps({"keys": [ED25519.as_dict(private=True) | {"kid": "one"}]}),
            json.dumps(
                {
                    "keys": [
                        P256.as_dict(private=False),
                        ED25519.as_dict(private=False) | {"kid": "one"},
                    ]
                }
            ),
            "EdDSA",
        ),
    ],
    ids=["secret", "ed25519", "p256", "rsa", "jwk", "jwks"],
)
def test_what_is_signed_is_read_back(private: str, public: str, algorithm: str) -> None:
    token = sign(ANA, parse_keys(private), now=NOW)
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header["alg"] == algorithm
    assert verify(token, parse_keys(public), now=NOW) == ANA


def test_the_algorithms_follow_from_the_key() -> None:
    def names(text: str) -> tuple[str, ...]:
        return parse_keys(text)[0].algorithms

    assert names("x" * 32) == ("HS256",)
    assert names("x" * 48) == ("HS256", "HS384")
    assert names("x" * 64) == ("HS256", "HS384", "HS512")
    assert names(pem(RSA, private=False)) == ("RS256",)
    long_secret = ("x" * 64).encode()
    for name, hash_name in (("HS384", "sha384"), ("HS512", "sha512")):
        token = token_of(CLAIMS, header={"alg": name}, secret=long_secret, hash_name=hash_name)
        assert verify(token, parse_keys("x" * 64), now=NOW) == ANA
    jwk = {"kty": "oct", "k": part(b"x" * 64), "alg": "HS512"}
    assert names(json.dumps(jwk)) == ("HS512",)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_without_signature_proves_nothing(algorithm: str) -> None:
    for signature in ("", part(b"x")):
        token = f"{part({'alg': algorithm})}.{part(CLAIMS)}.{signature}"
        for keys in (SECRET_KEYS, parse_keys(pem(RSA, private=False))):
            reason(token, keys)


@pytest.mark.parametrize("key", [RSA, P256, ED25519], ids=["rsa", "p256", "ed25519"])
def test_a_public_key_is_never_taken_for_a_secret(key: RSAKey | ECKey | OKPKey) -> None:
    public = pem(key, private=False)
    forged = token_of(CLAIMS, secret=public.encode())
    assert "algorithm" in reason(forged, parse_keys(public))
    assert "algorithm" in reason(forged, parse_keys(pem(key, private=True)))


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me",
        "key: -----BEGIN PUBLIC KEY-----\nAAAA",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        pem(OKPKey.generate_key("Ed448"), private=False),
        pem(ECKey.generate_key("P-384"), private=False),
        "",
        "  \n",
        "x" * 31,
        "{",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": 5}',
        '{"keys": [5]}',
        '{"keys": [{"kty": "oct", "k": "YWJj"}]}',
        '{"keys": [{"kty": "oct", "k": 5}]}',
        '{"keys": [{"kty": "oct", "k": "\u00e9"}]}',
        '{"keys": [{"kty": "oct", "k": "a"}]}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "", "y": ""}]}',
        '{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQ"}]}',
        '{"keys": [{"kty": "OKP", "crv": "Ed25519"}]}',
        '{"keys": [{"kty": "OKP", "crv": "X25519", "x": "AA"}]}',
        '{"keys": [{"kty": ["oct"]}]}',
        '{"keys": [{"kty": "RSA", "kid": 5}]}',
        json.dumps({"keys": [P256.as_dict(private=False) | {"use": "enc"}]}),
        json.dumps({"keys": [P256.as_dict(private=False) | {"alg": "ES512"}]}),
        json.dumps({"keys": [P256.as_dict(private=False)] * 65}),
    ],
)
def test_what_cannot_check_tokens_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(KeyNotUsable) as caught:
        parse_keys(text)
    assert len(caught.value.reason) > 10
    assert len(text.strip()) < 20 or text.strip()[-20:] not in str(caught.value)


def test_a_small_rsa_key_is_refused() -> None:
    with pytest.warns(SecurityWarning):
        small = RSAKey.generate_key(1024)
    with pytest.raises(KeyNotUsable, match="2048 bits"):
        parse_keys(pem(small, private=False))


def test_keys_for_others_in_a_jwks_are_passed_over() -> None:
    keys = parse_keys(
        json.dumps(
            {
                "keys": [
                    {"kty": "future"},
                    P256.as_dict(private=False) | {"use": "enc"},
                    {"kty": "OKP", "crv": "X25519", "x": "AA"},
                    P256.as_dict(private=False) | {"use": "sig", "kid": "mine"},
                ]
            }
        )
    )
    assert [key.kid for key in keys] == ["mine"]
    assert not keys[0].can_sign


def test_a_token_that_names_a_key_is_only_checked_with_keys_of_that_name() -> None:
    jwks = {"keys": [P256.as_dict(private=True) | {"kid": name} for name in ("one", "two")]}
    keys = parse_keys(json.dumps(jwks))
    token = sign(ANA, keys[:1], now=NOW)
    assert verify(token, keys, now=NOW) == ANA
    assert "signature" in reason(token, keys[1:])


def test_keys_and_their_values_are_not_shown() -> None:
    shown = repr(SECRET_KEYS) + repr(TokenAuthentication(SECRET_KEYS))
    assert SECRET not in shown
    assert part(SECRET.encode()) not in shown


def test_a_token_has_to_end_and_ends() -> None:
    end = CLAIMS["exp"] * 1_000_000
    assert "missing" in reason(token_of({key: CLAIMS[key] for key in ("sub", "documents")}))
    assert granted(CLAIMS, now=end - 1).expires_at == end
    assert "expired" in reason(token_of(CLAIMS), now=WallTime(end))


def test_leeway_moves_both_ends_and_the_end_of_the_grant() -> None:
    end = CLAIMS["exp"] * 1_000_000
    rules = TokenRules(leeway_seconds=5)
    grant = granted(CLAIMS, now=end + 4_999_999, rules=rules)
    assert grant.expires_at == end + 5_000_000
    assert "expired" in reason(token_of(CLAIMS), now=WallTime(end + 5_000_000), rules=rules)
    early = CLAIMS | {"nbf": NOW // 1_000_000 + 5}
    assert "not valid yet" in reason(token_of(early))
    assert granted(early, rules=rules).identity == "ana"


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize("value", ["1800000000", True, None, -1, [], {}, 1e300, 1_800_000_000_000])
def test_a_time_that_is_none_is_refused(name: str, value: object) -> None:
    assert name in reason(token_of(CLAIMS | {name: value}))


def test_fractions_of_seconds_count() -> None:
    grant = granted(CLAIMS | {"exp": NOW // 1_000_000 + 0.5})
    assert grant.expires_at == NOW + 500_000


def test_issuer_and_audience_have_to_be_ours() -> None:
    ours = TokenRules(audience="notes", issuer="https://login.example")
    right = CLAIMS | {"iss": "https://login.example", "aud": "notes"}
    assert granted(right, rules=ours).identity == "ana"
    assert granted(right | {"aud": ["other", "notes"]}, rules=ours).identity == "ana"
    for wrong in (
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": ["https://login.example"]},
    ):
        assert "issuer" in reason(token_of(right | wrong), rules=ours)
    for wrong in (
        {"aud": "other"},
        {"aud": []},
        {"aud": None},
        {"aud": {"notes": 1}},
        {"aud": [["notes"]]},
    ):
        assert "audience" in reason(token_of(right | wrong), rules=ours)
    assert "audience" in reason(token_of(right))
    assert granted(CLAIMS | {"iss": "anybody"}).identity == "ana"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sub": ""},
        {"sub": None},
        {"sub": 5},
        {"sub": "x" * 257},
        {"relay": 1},
        {"documents": None},
        {"documents": []},
        {"documents": {"a": "admin"}},
        {"documents": {"a": ["read"]}},
        {"documents": {"a": None}},
        {"documents": {"": "read"}},
        {"documents": {"**/a": "read"}},
        {"documents": {f"a{number}": "read" for number in range(5)}},
    ],
)
def test_claims_of_another_shape_are_refused(wrong: dict[str, object]) -> None:
    small = Limits(token_rights_max=4)
    assert "claim" in reason(token_of(CLAIMS | wrong), limits=small)


def test_an_empty_set_of_documents_is_a_grant_of_nothing() -> None:
    assert granted(CLAIMS | {"documents": {}}).rights == ()


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"alg": 5},
        {"alg": ["HS256"]},
        {"alg": "HS256", "kid": 5},
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "crit": ["b64"], "b64": False},
        {"alg": "HS256", "jwk": OctKey.import_key(b"attacker" * 8).as_dict()},
        {"alg": "HS256", "pad": "x" * 2000},
        b"[]",
        b"[" * 3000,
        b'{"alg":' * 1000,
        b"\xff",
        b"5",
    ],
)
def test_a_strange_header_is_refused(header: object) -> None:
    reason(token_of(CLAIMS, header=header))


def test_every_change_of_a_signed_token_is_noticed() -> None:
    token = token_of(CLAIMS)
    last = len(token) - 1
    for at, character in enumerate(token):
        # The last character of 32 bytes in base64 has two bits that stand for nothing.
        other = "A" if character not in "ABCD" else "z"
        changed = token[:at] + other + token[at + 1 :]
        if at != last:
            reason(changed)
    reason(token + "A")
    reason(token[:-1])
    reason(token + "\n")


@pytest.mark.parametrize("junk", [" ", "\n", "=", "!", "+", "/", ".", "\u00e9", "\x00"])
def test_what_is_no_base64url_is_not_passed_over(junk: str) -> None:
    for piece in token_of(CLAIMS).split("."):
        token = token_of(CLAIMS).replace(piece, piece[:5] + junk + piece[5:])
        assert "compact form" in reason(token)


def test_a_token_that_is_too_long_is_not_looked_at() -> None:
    token = token_of(CLAIMS)
    assert "longer" in reason(token, limits=Limits(token_bytes_max=len(token) - 1))
    assert verify(token, SECRET_KEYS, now=NOW, limits=Limits(token_bytes_max=len(token))) == ANA


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=80), st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}")))
def test_any_text_is_refused_and_nothing_else_is_raised(text: str) -> None:
    reason(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
CLAIM_NAMES = st.sampled_from(["sub", "exp", "nbf", "aud", "iss", "documents", "relay"])


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(CLAIM_NAMES, JSON), st.sets(CLAIM_NAMES), st.booleans())
def test_any_signed_claims_are_granted_or_refused(
    strange: dict[str, Any], absent: set[str], is_mixed: bool
) -> None:
    claims = (CLAIMS | strange) if is_mixed else strange
    claims = {name: value for name, value in claims.items() if name not in absent}
    token = token_of(json.dumps(claims).encode("utf-8", "surrogatepass"))
    try:
        grant = verify(token, SECRET_KEYS, now=NOW, rules=TokenRules(audience="notes"))
    except TokenRejected:
        return
    assert grant.identity
    assert grant.expires_at is not None
    assert grant.expires_at > NOW


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "x"]), JSON))
def test_any_header_that_does_not_name_our_algorithm_is_refused(header: dict[str, Any]) -> None:
    token = token_of(CLAIMS, header=json.dumps(header).encode("utf-8", "surrogatepass"))
    reason(token)


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(max_size=60),
        JSON.map(json.dumps),
        JSON.map(lambda jwk: json.dumps({"keys": [jwk]})),
    )
)
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        keys = parse_keys(text)
    except KeyNotUsable:
        return
    assert keys


@settings(max_examples=300)
@given(
    st.sampled_from(
        [P256.as_dict(private=True), ED25519.as_dict(private=False), RSA.as_dict(private=False)]
    ),
    st.dictionaries(
        st.sampled_from(
            ["kty", "crv", "x", "y", "d", "n", "e", "kid", "use", "alg", "key_ops", "ext", "x5c"]
        ),
        JSON | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "sig", "AQAB"]),
        min_size=1,
        max_size=3,
    ),
)
def test_any_broken_jwk_is_a_key_or_refused(jwk: dict[str, Any], strange: dict[str, Any]) -> None:
    try:
        keys = parse_keys(json.dumps(jwk | strange))
    except KeyNotUsable:
        return
    assert keys[0].algorithms


def test_public_keys_cannot_sign() -> None:
    with pytest.raises(KeyNotUsable, match="signing needs"):
        sign(ANA, parse_keys(pem(P256, private=False)), now=NOW)


def test_a_grant_without_identity_or_end_has_no_token() -> None:
    with pytest.raises(ValueError, match="identity"):
        sign(EVERYTHING, SECRET_KEYS, now=NOW)


def test_a_signed_token_carries_issuer_audience_and_relay() -> None:
    rules = TokenRules(audience="notes", issuer="us")
    relay = Grant("hub", ANA.rights, expires_at=LATER, may_relay=True)
    token = sign(relay, SECRET_KEYS, now=NOW, rules=rules)
    assert verify(token, SECRET_KEYS, now=NOW, rules=rules) == relay
    assert "audience" in reason(token)


def test_authentication_asks_for_a_token_only_where_it_is_on() -> None:
    assert NoAuthentication().grant(None, now=NOW) is EVERYTHING
    assert NoAuthentication().grant("nonsense", now=NOW) is EVERYTHING
    authentication = TokenAuthentication(SECRET_KEYS)
    for absent in (None, ""):
        with pytest.raises(TokenRejected, match="required"):
            authentication.grant(absent, now=NOW)
    assert authentication.grant(token_of(CLAIMS), now=NOW) == ANA


def test_the_hand_made_tokens_of_these_tests_are_right() -> None:
    # RFC 7515, appendix A.1.
    key = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    signed = (
        b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQo"
        b"gImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    assert (
        part(hmac.digest(key, signed, hashlib.sha256))
        == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
