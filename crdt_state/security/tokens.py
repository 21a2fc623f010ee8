"""JSON Web Tokens: who a peer is and what it may do, proven by a signature.

A token of ours (RFC 7519, compact, signed) carries these claims; all others are ignored:

    {
      "sub": "ana",                         required: the identity, not empty
      "exp": 1767225600,                    required: seconds since 1970, the end of the grant
      "nbf": 1767139200,                    optional: its beginning
      "iss": "https://login.example",       required and equal, where the server names an issuer
      "aud": "notes",                       a text or a list; has to name the server's audience,
                                            and only a server with an audience takes one with `aud`
      "documents": {                        required: patterns (see `grant`) and accesses
        "notes/ana/**": "write",
        "notes/*/published": "read"
      },
      "relay": false                        optional: may bring what others wrote
    }

1. Which algorithms a key is good for follows from the key alone (RFC 8725, section 3.1), never
   from the token: an HMAC secret checks HS*, Ed25519 EdDSA, P-256 ES256, RSA RS256.  So `none`
   and a public key used as a secret prove nothing.
2. Whatever is put in, `verify` returns a grant or raises `TokenRejected`, in bounded time.
3. No error holds any of a token or a key.
"""

from __future__ import annotations

import base64
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import orjson
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from crdt_state.clocks import WallTime
from crdt_state.errors import InvalidPattern, KeyNotUsable, TokenRejected
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.security.grant import EVERYTHING, Access, Grant, Right

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwa import JWSAlgModel

    from crdt_state.limits import Limits

__all__ = [
    "Authentication",
    "NoAuthentication",
    "TokenAuthentication",
    "TokenKey",
    "TokenRules",
    "parse_keys",
    "sign",
    "verify",
]

AsymmetricKey: TypeAlias = RSAKey | ECKey | OKPKey

COMPACT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
SECRET_BYTES_MIN = 32
RSA_BITS_MIN = 2048
IDENTITY_BYTES_MAX = 256
MICROSECONDS = 1_000_000

# Beyond the year 9999 a number of seconds is a mistake (milliseconds, mostly).
SECONDS_MAX = 253_402_300_799

# RFC 7518, section 3.2: an HMAC secret is at least as long as the hash.
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}

# What would be a published secret if it were taken for one.
PUBLIC_KEY_MARKS = ("-----BEGIN", "---- BEGIN", "ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key and the algorithms it is good for; its text form shows nothing of it."""

    key: OctKey | AsymmetricKey = field(repr=False)
    algorithms: tuple[str, ...]
    kid: str | None = None

    @property
    def can_sign(self) -> bool:
        """Whether tokens can be made with it, not only checked."""
        return self.key.is_private


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token has to say beside its signature.

    `leeway_seconds` forgives clocks that differ: a grant begins that much earlier and ends that
    much later than its token says.
    """

    audience: str | None = None
    issuer: str | None = None
    leeway_seconds: float = 0.0


class Authentication(Protocol):
    """How a server learns what a peer may do."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        """Return what the bearer of `token` may do, or raise `TokenRejected`."""


class NoAuthentication:
    """Everybody may do everything; a token is not looked at."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        """Return `EVERYTHING`."""
        return EVERYTHING


@dataclass(frozen=True, slots=True)
class TokenAuthentication:
    """Whoever has a valid token may do what it says."""

    keys: tuple[TokenKey, ...]
    rules: TokenRules = TokenRules()
    limits: Limits = DEFAULT_LIMITS

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        """Return the grant of `token`, or raise `TokenRejected`."""
        if not token:
            raise TokenRejected("a token is required")
        return verify(token, self.keys, now=now, rules=self.rules, limits=self.limits)


# --- keys ------------------------------------------------------------------------------------


def parse_keys(text: str, *, limits: Limits = DEFAULT_LIMITS) -> tuple[TokenKey, ...]:
    """Read keys from text: a JWKS or one JWK (JSON), a key in PEM, or else an HMAC secret.

    White space around it does not count.  Keys of a JWKS that are for other uses or of other
    kinds are passed over (RFC 7517, section 5), but one has to remain.  Raises `KeyNotUsable`.
    """
    text = text.strip()
    if not text:
        raise KeyNotUsable("the key is empty")
    if text.startswith(("{", "[")):
        return _keys_from_json(text, limits)
    if text.startswith("-----BEGIN"):
        return (_key_from_pem(text),)
    if any(mark in text for mark in PUBLIC_KEY_MARKS):
        raise KeyNotUsable(
            "this looks like a public key or certificate, but is no key in PEM (which begins "
            "with '-----BEGIN PUBLIC KEY-----'); used as a secret, everybody could sign with it"
        )
    return (_token_key(_secret(text.encode()), kid=None, algorithm=None),)


def _secret(secret: bytes) -> OctKey:
    if len(secret) < SECRET_BYTES_MIN:
        raise KeyNotUsable(
            f"the secret has {len(secret)} bytes, and one of fewer than {SECRET_BYTES_MIN} can be "
            "guessed from any token; make one with: openssl rand -hex 32"
        )
    try:
        return OctKey.import_key(secret)
    except (JoseError, ValueError):
        raise KeyNotUsable("the secret is a public key, which everybody knows") from None


def _key_from_pem(text: str) -> TokenKey:
    kinds: tuple[type[AsymmetricKey], ...] = (OKPKey, ECKey, RSAKey)
    for kind in kinds:
        try:
            key = _imported(kind, text)
        except (JoseError, ValueError, TypeError):
            continue
        return _token_key(key, kid=None, algorithm=None)
    raise KeyNotUsable(
        "the PEM text holds no Ed25519, P-256 or RSA key without a password; "
        "a public key begins with '-----BEGIN PUBLIC KEY-----'"
    )


def _imported(kind: type[AsymmetricKey], value: str | dict[str, Any]) -> AsymmetricKey:
    with warnings.catch_warnings():
        # joserfc warns of small RSA keys, which `_algorithms_of` refuses.
        warnings.simplefilter("ignore", SecurityWarning)
        return kind.import_key(value)


def _keys_from_json(text: str, limits: Limits) -> tuple[TokenKey, ...]:
    try:
        document = orjson.loads(text)
    except ValueError:
        raise KeyNotUsable("it begins like JSON, but is not JSON") from None
    entries = document.get("keys", [document]) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeyNotUsable('a JWKS looks like {"keys": [{"kty": …}, …]}')
    if len(entries) > limits.token_keys_max:
        raise KeyNotUsable(
            f"it holds {len(entries)} keys, more than token_keys_max = {limits.token_keys_max}"
        )
    keys, passed_over = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            keys.append(_key_from_jwk(entry))
        except _OtherKey as other:
            passed_over.append(f"key {number} {other}")
        except KeyNotUsable as error:
            raise KeyNotUsable(f"key {number}: {error.reason}") from None
    if not keys:
        why = "; ".join(passed_over) or "it is empty"
        raise KeyNotUsable(f"no key of the JWKS can check tokens: {why}")
    return tuple(keys)


class _OtherKey(Exception):
    """A key of a JWKS that is there for somebody else."""


def _key_from_jwk(entry: Mapping[str, Any]) -> TokenKey:
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        raise KeyNotUsable("'kid' and 'alg' have to be texts")
    if entry.get("use", "sig") != "sig":
        raise _OtherKey("is not for signatures ('use')")
    kinds: dict[object, type[AsymmetricKey]] = {
        ("OKP", "Ed25519"): OKPKey,
        ("EC", "P-256"): ECKey,
        ("RSA", None): RSAKey,
    }
    kty, curve = entry.get("kty"), entry.get("crv")
    if not isinstance(kty, str) or not isinstance(curve, str | None):
        raise KeyNotUsable("'kty' has to be a text, and so has 'crv'")
    if kty == "oct":
        return _token_key(_secret_from_jwk(entry), kid=kid, algorithm=algorithm)
    kind = kinds.get((kty, curve))
    if kind is None:
        raise _OtherKey("is of a kind that is not supported (oct, Ed25519, P-256 and RSA are)")
    try:
        key = _imported(kind, dict(entry))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        raise KeyNotUsable(f"it is no valid {kty} key") from None
    return _token_key(key, kid=kid, algorithm=algorithm)


def _secret_from_jwk(entry: Mapping[str, Any]) -> OctKey:
    encoded = entry.get("k")
    if not isinstance(encoded, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", encoded):
        raise KeyNotUsable("'k' has to be the secret in base64url")
    try:
        return _secret(_base64url(encoded))
    except ValueError as error:
        if isinstance(error, KeyNotUsable):
            raise
        raise KeyNotUsable("'k' has to be the secret in base64url") from None


def _token_key(key: OctKey | AsymmetricKey, *, kid: str | None, algorithm: str | None) -> TokenKey:
    algorithms = _algorithms_of(key)
    if algorithm is not None:
        if algorithm not in algorithms:
            raise _OtherKey(f"is for another algorithm than {', '.join(algorithms)}")
        algorithms = (algorithm,)
    return TokenKey(key, algorithms, kid)


def _algorithms_of(key: OctKey | AsymmetricKey) -> tuple[str, ...]:
    if isinstance(key, OctKey):
        size = len(key.raw_value)
        return tuple(name for name, least in HMAC_BYTES.items() if size >= least)
    if isinstance(key, RSAKey):
        if key.raw_value.key_size < RSA_BITS_MIN:
            raise KeyNotUsable(f"an RSA key needs at least {RSA_BITS_MIN} bits")
        return ("RS256",)
    if isinstance(key, ECKey):
        if key.curve_name != "P-256":
            raise KeyNotUsable("of elliptic curves only P-256 (ES256) and Ed25519 are supported")
        return ("ES256",)
    if key.curve_name != "Ed25519":
        raise KeyNotUsable("of elliptic curves only P-256 (ES256) and Ed25519 are supported")
    # RFC 9864 renames EdDSA over Ed25519; both names mean the same with such a key.
    return ("EdDSA", "Ed25519")


# --- tokens ----------------------------------------------------------------------------------


def verify(
    token: str,
    keys: tuple[TokenKey, ...],
    *,
    now: WallTime,
    rules: TokenRules = TokenRules(),
    limits: Limits = DEFAULT_LIMITS,
) -> Grant:
    """Return what `token` grants at `now`.  Raises `TokenRejected` and nothing else."""
    if len(token) > limits.token_bytes_max:
        raise TokenRejected(f"the token is longer than {limits.token_bytes_max} bytes")
    if COMPACT.fullmatch(token) is None:
        raise TokenRejected("this is not a signed JSON Web Token in compact form")
    algorithm, kid = _header(token)
    payload = _checked_payload(token, algorithm, kid, keys)
    claims = _json_object(payload, "the claims of the token are not a JSON object")
    ends = _check_time(claims, now, rules)
    _check_issuer_and_audience(claims, rules)
    identity = claims.get("sub")
    if not isinstance(identity, str) or not 0 < _utf8_size(identity) <= IDENTITY_BYTES_MAX:
        raise TokenRejected(f"claim 'sub' has to be a text of 1 to {IDENTITY_BYTES_MAX} bytes")
    relay = claims.get("relay", False)
    if not isinstance(relay, bool):
        raise TokenRejected("claim 'relay' has to be true or false")
    return Grant(identity, _rights(claims, limits), expires_at=ends, may_relay=relay)


def sign(
    grant: Grant,
    keys: tuple[TokenKey, ...],
    *,
    now: WallTime,
    rules: TokenRules = TokenRules(),
) -> str:
    """Make a token that `verify` reads back as `grant`, with whole seconds of its end.

    For development and for tests; a service of yours makes its own with any JWT library.
    Raises `KeyNotUsable` when none of `keys` can sign, and ValueError for a grant that a token
    cannot say: without identity or end.
    """
    if not grant.identity or grant.expires_at is None:
        raise ValueError("a token needs an identity and an end")
    signer = next((key for key in keys if key.can_sign), None)
    if signer is None:
        raise KeyNotUsable("only public keys are here; signing needs the secret or private key")
    claims: dict[str, object] = {
        "sub": grant.identity,
        "iat": now // MICROSECONDS,
        "exp": grant.expires_at // MICROSECONDS,
        "documents": {right.pattern: right.access.value for right in grant.rights},
    }
    if grant.may_relay:
        claims["relay"] = True
    if rules.issuer is not None:
        claims["iss"] = rules.issuer
    if rules.audience is not None:
        claims["aud"] = rules.audience
    algorithm = signer.algorithms[0]
    header = {"alg": algorithm, "typ": "JWT"}
    if signer.kid is not None:
        header["kid"] = signer.kid
    return jws.serialize_compact(
        header, orjson.dumps(claims), signer.key, registry=_Algorithms(algorithm)
    )


class _Algorithms(jws.JWSRegistry):
    """Exactly one algorithm.

    joserfc warns at each use of EdDSA because the name leaves the curve open (RFC 9864); our
    keys do not.
    """

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self._algorithm = algorithm

    def get_alg(self, name: str) -> JWSAlgModel:
        if name != self._algorithm:
            raise UnsupportedAlgorithmError("not the algorithm of this key")
        return self.algorithms[name]


def _header(token: str) -> tuple[str, str | None]:
    header = _json_object(
        _base64url_or_reject(token.partition(".")[0]), "the header of the token is not JSON"
    )
    # A flat header: nothing nested can reach the JSON reader of the library below, and `crit`
    # (extensions we would have to understand), `jwk` and `x5c` (keys of the sender's choice)
    # are lists or objects.
    if not all(isinstance(value, str | int | float | None) for value in header.values()):
        raise TokenRejected("the header of the token asks for extensions")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        raise TokenRejected("the header of the token has no 'alg', or a 'kid' that is no text")
    return algorithm, kid


def _checked_payload(
    token: str, algorithm: str, kid: str | None, keys: tuple[TokenKey, ...]
) -> bytes:
    fitting = [key for key in keys if algorithm in key.algorithms]
    if not fitting:
        accepted = sorted({name for key in keys for name in key.algorithms})
        raise TokenRejected(f"the algorithm of the token is not one of {', '.join(accepted)}")
    # A key without a name may be meant by every token, a named key by tokens that name it or
    # none.
    fitting = [key for key in fitting if kid is None or key.kid is None or key.kid == kid]
    for key in fitting:
        try:
            checked = jws.deserialize_compact(token, key.key, registry=_Algorithms(algorithm))
        except (JoseError, ValueError, TypeError):
            continue
        return checked.payload
    raise TokenRejected("the signature of the token is not by a key this server knows")


def _check_time(claims: Mapping[str, Any], now: WallTime, rules: TokenRules) -> WallTime:
    leeway = round(rules.leeway_seconds * MICROSECONDS)
    expires = _microseconds(claims, "exp")
    if expires is None:
        raise TokenRejected("claim 'exp' is missing: a token has to end")
    ends = WallTime(expires + leeway)
    if now >= ends:
        raise TokenRejected("the token has expired")
    begins = _microseconds(claims, "nbf")
    if begins is not None and now < begins - leeway:
        raise TokenRejected("the token is not valid yet")
    return ends


def _microseconds(claims: Mapping[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    seconds = claims[name]
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= SECONDS_MAX:
        raise TokenRejected(f"claim '{name}' has to be seconds since 1970")
    return int(seconds * MICROSECONDS)


def _check_issuer_and_audience(claims: Mapping[str, Any], rules: TokenRules) -> None:
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise TokenRejected("the token is not from the issuer this server trusts")
    audience = claims.get("aud", [])
    audiences = audience if isinstance(audience, list) else [audience]
    if rules.audience is None:
        # RFC 7519, section 4.1.3: a token for a named audience is not for others.
        if audiences:
            raise TokenRejected("the token names an audience, and this server has none set")
    elif rules.audience not in audiences:
        raise TokenRejected("the token is for another audience")


def _rights(claims: Mapping[str, Any], limits: Limits) -> tuple[Right, ...]:
    documents = claims.get("documents")
    if not isinstance(documents, dict):
        raise TokenRejected('claim \'documents\' has to map patterns to "read" or "write"')
    if len(documents) > limits.token_rights_max:
        raise TokenRejected(f"claim 'documents' has more than {limits.token_rights_max} entries")
    rights = []
    for pattern, access in documents.items():
        try:
            rights.append(Right(pattern, Access(access)))
        except InvalidPattern as error:
            raise TokenRejected(f"claim 'documents': {error.reason}") from None
        except ValueError:
            raise TokenRejected('claim \'documents\': an access is "read" or "write"') from None
    return tuple(rights)


def _json_object(data: bytes, otherwise: str) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError:
        raise TokenRejected(otherwise) from None
    if not isinstance(value, dict):
        raise TokenRejected(otherwise)
    return value


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base64url_or_reject(text: str) -> bytes:
    try:
        return _base64url(text)
    except ValueError:
        raise TokenRejected("this is not a signed JSON Web Token in compact form") from None


def _utf8_size(text: str) -> int:
    return len(text.encode())
