from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crdt_state.clocks import WallTime
from crdt_state.errors import SettingsRefused, TokenRejected
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.security.grant import EVERYTHING
from crdt_state.security.tokens import NoAuthentication, TokenAuthentication
from sync_server.settings import (
    LogFormat,
    LogLevel,
    ServerSettings,
    default_store,
    load,
    names_of,
    unknown_variables,
)

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("CRDT_STATE_") or name.upper() in {"HOST", "PORT"}:
            monkeypatch.delenv(name)


def problems(flags: dict[str, Any] | None = None, *, file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsRefused) as caught:
        load(flags, file=file)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert SECRET not in str(caught.value)
    return list(caught.value.problems)


def test_without_anything_it_listens_on_localhost_1234() -> None:
    settings = load()
    assert (settings.host, settings.port) == ("localhost", 1234)
    assert settings.limits == DEFAULT_LIMITS
    assert isinstance(settings.peer_authentication(), NoAuthentication)
    assert settings.tls() is None
    assert settings.origin_rules().refusal(host=["localhost:1234"], origin=[]) is None


def test_flags_go_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.toml"
    file.write_text('host = "127.0.0.1"\nport = 1\nworkers = 1\nlog_level = "debug"\n')
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("CRDT_STATE_WORKERS", "2")
    settings = load({"workers": 3, "port": None}, file=file)
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 2, 3)
    assert settings.log_level is LogLevel.DEBUG
    monkeypatch.setenv("CRDT_STATE_SETTINGS", str(file))
    assert load().log_level is LogLevel.DEBUG


def test_every_setting_is_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "CRDT_STATE_STORE": str(tmp_path),
        "CRDT_STATE_AUTHENTICATION": "jwt",
        "CRDT_STATE_JWT_SECRET": SECRET,
        "CRDT_STATE_JWT_AUDIENCE": "notes",
        "CRDT_STATE_JWT_ISSUER": "us",
        "CRDT_STATE_JWT_LEEWAY_SECONDS": "1.5",
        "CRDT_STATE_ALLOWED_ORIGINS": "https://a.example, http://localhost:*,",
        "CRDT_STATE_ALLOWED_HOSTS": "notes.example",
        "CRDT_STATE_LOG_FORMAT": "json",
        "CRDT_STATE_LOG_LEVEL": "warning",
        "CRDT_STATE_WORKERS": "4",
        "CRDT_STATE_METRICS": "false",
        "CRDT_STATE_LIMITS__CONNECTIONS_MAX": "7",
        "CRDT_STATE_LIMITS__DRAIN_SECONDS_MAX": "0.5",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 0, tmp_path)
    assert settings.allowed_origins == ("https://a.example", "http://localhost:*")
    assert settings.allowed_hosts == ("notes.example",)
    assert settings.log_format is LogFormat.JSON
    assert (settings.workers, settings.metrics) == (4, False)
    assert (settings.limits.connections_max, settings.limits.drain_seconds_max) == (7, 0.5)
    authentication = settings.peer_authentication()
    assert isinstance(authentication, TokenAuthentication)
    assert authentication.rules.audience == "notes"
    assert authentication.rules.issuer == "us"
    assert authentication.rules.leeway_seconds == 1.5


def test_bounds_of_the_file_and_of_the_environment_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[limits]\nconnections_max = 1\nmessage_bytes_max = 2\n")
    monkeypatch.setenv("CRDT_STATE_LIMITS__CONNECTIONS_MAX", "3")
    limits = load(file=file).limits
    assert (limits.connections_max, limits.message_bytes_max) == (3, 2)
    assert limits.update_bytes_max == DEFAULT_LIMITS.update_bytes_max


def test_an_empty_variable_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "")
    monkeypatch.setenv("CRDT_STATE_JWT_SECRET", "")
    assert load().host == "localhost"
    assert not load().has_authentication


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "127.0.0.2"])
def test_on_loopback_without_authentication_it_starts_with_a_warning(host: str) -> None:
    settings = load({"host": host})
    assert settings.peer_authentication().grant(None, now=WallTime(0)) is EVERYTHING
    (warning,) = settings.warnings()
    assert "authentication is off" in warning


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "notes.example", "127.1"])
@pytest.mark.parametrize("authentication", [None, "none"])
def test_elsewhere_without_authentication_it_refuses_to_start(
    host: str, authentication: str | None
) -> None:
    (problem,) = problems({"host": host, "authentication": authentication})
    assert problem.startswith("refused: ")
    assert "CRDT_STATE_JWT_KEY_FILE" in problem
    assert "listen on localhost" in problem


def test_elsewhere_with_authentication_it_starts() -> None:
    settings = load({"host": "0.0.0.0", "jwt_secret": SECRET})
    assert settings.has_authentication
    with pytest.raises(TokenRejected):
        settings.peer_authentication().grant(None, now=WallTime(0))
    (warning,) = settings.warnings()
    assert "unencrypted" in warning


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET + "\n")
    (from_file,) = load({"jwt_key_file": file}).keys()
    (from_text,) = load({"jwt_secret": SECRET}).keys()
    assert from_file.key.as_dict(private=True) == from_text.key.as_dict(private=True)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"port": 70_000}, "port has to be less than or equal to 65535 (70000 was given): change"),
        ({"port": "x"}, "port has to be a valid integer"),
        ({"log_format": "xml"}, "log_format has to be 'console' or 'json' ('xml' was given)"),
        ({"workers": 0}, "workers has to be greater than or equal to 1"),
        (
            {"limits": {"connections_max": "many"}},
            "limits.connections_max has to be a valid integer",
        ),
        ({"limits": {"connections_max": 0}}, "limits.connections_max has to be a number above 0"),
        ({"limits": {"drain_seconds_max": float("inf")}}, "limits.drain_seconds_max has to be"),
        ({"limits": {"conections_max": 5}}, "did you mean limits.connections_max?"),
        ({"prot": 5}, "there is no setting 'prot'; did you mean port?"),
        ({"authentication": "jwt"}, "there is no key: set CRDT_STATE_JWT_SECRET"),
        ({"authentication": "none", "jwt_secret": SECRET}, "but there is a key for it"),
        ({"jwt_secret": SECRET[:-1]}, "the secret has 31 bytes"),
        ({"jwt_secret": SECRET, "jwt_key_file": "/x"}, "two keys are set"),
        ({"jwt_key_file": "/does/not/exist"}, "cannot be read (No such file or directory)"),
        ({"jwt_secret": SECRET, "jwt_leeway_seconds": 61}, "jwt_leeway_seconds has to be at most"),
        ({"tls_key": "/x"}, "tls_key is set without tls_certificate"),
        ({"tls_key": "/x", "tls_certificate": "/y"}, "the certificate and key cannot be used"),
        ({"allowed_origins": ["localhost"]}, "'localhost' is not an origin"),
        ({"allowed_hosts": "a:1"}, "'a:1' is not a host"),
        ({"peers": "a:1"}, "begins with ws:// or wss://: change --adv"),
        ({"hub": "ws://a:1"}, "hub is of a star, and the topology is mesh: change --topology"),
        ({"topology": "ring"}, "topology has to be 'mesh', 'gossip', 'star'"),
        ({"topology": "chain", "chain": "ws://a:1"}, "a chain needs advertise: set --advertise"),
        ({"peer_token_file": "/x"}, "there is a token for peers, but there are none: set --peers"),
        (
            {"peers": "ws://a:1", "peer_token_file": "/does/not/exist"},
            "the token file /does/not/exist cannot be read",
        ),
    ],
)
def test_a_bad_value_gets_one_sentence_that_says_what_to_change(
    flags: dict[str, Any], sentence: str
) -> None:
    (problem,) = problems(flags)
    assert sentence in problem
    assert "pydantic" not in problem
    assert "\n" not in problem


def test_peers_make_a_mesh() -> None:
    settings = load({"peers": "ws://a:1, ws://b:1"})
    found = settings.neighbourhood()
    assert found is not None
    assert (found.kind, found.peers) == ("mesh", ("ws://a:1", "ws://b:1"))
    assert load().neighbourhood() is None


def test_who_is_alone_takes_operations_on_texts() -> None:
    assert load().authority() is None


def test_in_a_topology_the_member_that_is_named_takes_them() -> None:
    here, there = "ws://10.0.0.1:1234", "ws://10.0.0.2:1234"
    mesh: dict[str, Any] = {"peers": [here, there], "advertise": here}
    assert load({**mesh, "operations_at": here}).authority() is None
    assert load({**mesh, "operations_at": there}).authority() == there
    assert "operations_at" in str(load(mesh).authority())


def test_who_names_a_member_for_operations_has_an_address() -> None:
    (problem,) = problems({"operations_at": "ws://10.0.0.1:1234"})
    assert "advertise" in problem


def test_texts_of_some_collections_are_rich_and_of_others_plain() -> None:
    types = load({"rich_text": "pages, essays"}).text_types()
    assert {name: kind.name for name, kind in types.items()} == {
        "pages": "rich-text",
        "essays": "rich-text",
    }
    (problem,) = problems({"rich_text": "pages/all"})
    assert "first slash" in problem


def test_a_token_for_peers_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    settings = load({"peers": "ws://a:1", "peer_token_file": file})
    assert settings.peer_token() == "first"
    file.write_text("second\n")
    assert settings.peer_token() == "second"


def test_a_sentence_names_flag_variable_and_key() -> None:
    (problem,) = problems({"port": -1})
    assert problem.endswith("change --port, PORT or `port` in the settings file")
    assert str(names_of("limits.connections_max")).startswith("CRDT_STATE_LIMITS__CONNECTIONS_MAX")
    assert names_of("jwt_secret").flag is None


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('workers = "x"\nbogus = 1\n')
    assert len(problems({"port": -1}, file=file)) == 3
    assert len(problems({"host": "::", "tls_key": "/x", "limits": {"connections_max": 0}})) == 3


@pytest.mark.parametrize(
    ("content", "reason"), [(b"a =", "is not TOML"), (b"\xff", "is not UTF-8"), (None, "cannot be")]
)
def test_a_file_that_cannot_be_read_is_named(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    if content is not None:
        file.write_bytes(content)
    (problem,) = problems(file=file)
    assert reason in problem
    assert str(file) in problem


@pytest.mark.parametrize("content", [b"\xff" * 40, b"x" * 1_048_577, b""])
def test_a_key_file_that_is_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    (problem,) = problems({"jwt_key_file": file})
    assert "CRDT_STATE_JWT_KEY_FILE" in problem


def test_a_whole_table_in_one_variable_has_to_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_STATE_LIMITS", '{"connections_max": 4}')
    assert load().limits.connections_max == 4
    monkeypatch.setenv("CRDT_STATE_LIMITS", "{")
    (problem,) = problems()
    assert "CRDT_STATE_LIMITS is not JSON" in problem


def test_secrets_are_not_shown() -> None:
    settings = load({"jwt_secret": SECRET})
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_secret_of_the_wrong_type_is_not_shown_either(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("jwt_secret = 123456789012345678\n")
    (problem,) = problems(file=file)
    assert "jwt_secret has to be" in problem
    assert "1234" not in problem


def test_a_misspelt_variable_is_pointed_out() -> None:
    found = unknown_variables(
        {
            "CRDT_STATE_AUTHENTICATON": "jwt",
            "CRDT_STATE_LIMITS__CONNECTIONS_MAX": "1",
            "CRDT_STATE_LIMITS__NONSENSE": "1",
            "CRDT_STATE_STORE": "x",
            "CRDT_STATE_SETTINGS": "x",
            "PATH": "x",
        }
    )
    assert len(found) == 2
    assert "did you mean CRDT_STATE_AUTHENTICATION?" in found[0]


@pytest.mark.parametrize("name", ["HOST", "PORT"])
def test_who_writes_our_prefix_where_there_is_none_is_told_the_name(name: str) -> None:
    variable = f"CRDT_STATE_{name}"
    (found,) = unknown_variables({variable: "1234", name: "1234"})
    assert found == f"{variable} is no setting and has no effect; it is called {name}"


def test_the_store_is_beside_the_code_in_a_clone_and_elsewhere_with_the_user(
    tmp_path: Path,
) -> None:
    package = tmp_path / "clone" / "sync_server"
    package.mkdir(parents=True)
    elsewhere = default_store(package)
    assert elsewhere.name == "crdt-state"
    assert tmp_path not in elsewhere.parents
    (tmp_path / "clone" / "pyproject.toml").touch()
    assert default_store(package) == tmp_path / "clone" / "data"


def test_a_certificate_makes_a_tls_context(tmp_path: Path) -> None:
    certificate, key = self_signed()
    (tmp_path / "certificate.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    settings = load(
        {
            "host": "0.0.0.0",
            "jwt_secret": SECRET,
            "tls_certificate": tmp_path / "certificate.pem",
            "tls_key": tmp_path / "key.pem",
        }
    )
    context = settings.tls()
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert settings.warnings() == ()


def test_every_field_has_its_own_three_names() -> None:
    names = [names_of(name) for name in ServerSettings.model_fields]
    assert len({name.variable for name in names}) == len(names)


def self_signed() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
