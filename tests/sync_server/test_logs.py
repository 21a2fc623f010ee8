from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from sync_server.logs import FIELD_CHARACTERS_MAX, configure, redacted
from sync_server.settings import LogFormat, LogLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJlLW9mLXRoaXM"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    websockets_level = logging.getLogger("websockets").level
    yield
    root.handlers, root.level = handlers, level
    logging.getLogger("websockets").setLevel(websockets_level)
    structlog.reset_defaults()


def written(
    *, log_format: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.INFO
) -> io.StringIO:
    stream = io.StringIO()
    configure(log_format, level, stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields() -> None:
    stream = written()
    structlog.get_logger("sync_server").info("connection opened", document="notes/ü", peer=7)
    (event,) = events(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "connection opened",
        "level": "info",
        "logger": "sync_server",
        "document": "notes/ü",
        "peer": 7,
    }


def test_an_event_is_one_line_for_a_person() -> None:
    stream = written(log_format=LogFormat.CONSOLE)
    structlog.get_logger("sync_server").warning("update refused", code=4422)
    (line,) = stream.getvalue().splitlines()
    assert "update refused" in line
    assert "code=4422" in line
    assert "\x1b" not in line, "colours are for terminals"


def test_what_is_less_severe_than_asked_for_is_not_written() -> None:
    stream = written(level=LogLevel.WARNING)
    log = structlog.get_logger("sync_server")
    log.info("not this")
    log.error("this")
    assert [event["event"] for event in events(stream)] == ["this"]


def test_lines_of_libraries_come_out_in_the_same_form() -> None:
    stream = written()
    logging.getLogger("websockets.server").error(
        "opening handshake failed for %s", f"/a?token={TOKEN}"
    )
    (event,) = events(stream)
    assert event["event"] == "opening handshake failed for /a?token=[redacted]"
    assert event["logger"] == "websockets.server"


def test_the_library_that_prints_frames_does_not_at_debug() -> None:
    stream = written(level=LogLevel.DEBUG)
    logging.getLogger("websockets.server").debug("< BINARY 00 01")
    structlog.get_logger("sync_server").debug("kept")
    assert [event["event"] for event in events(stream)] == ["kept"]


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize(
    "fields",
    [
        {"path": f"/notes/a?token={TOKEN}"},
        {"path": "/notes/a?x=1&token=opaque-secret&y=2"},
        {"path": "/notes/a?TOKEN=opaque-secret"},
        {"path": "/notes/a?token%3Dopaque-secret"},
        {"token": "opaque-secret"},
        {"Authorization": "Bearer opaque-secret"},
        {"jwt_secret": "opaque-secret"},
        {"headers": {"authorization": "Bearer opaque-secret"}},
        {"headers": [("Authorization", "Bearer opaque-secret")]},
        {"line": "Authorization: Basic opaque-secret"},
        {"line": "< Sec-WebSocket-Protocol: y, opaque-secret"},
        {"line": f"GET / {TOKEN} HTTP/1.1"},
        {"request": ("GET", {"path": "/?access_token=opaque-secret"})},
        {"error": ValueError("bad token=opaque-secret")},
        {"raw": b"Authorization: Bearer opaque-secret"},
    ],
)
def test_no_token_is_written(fields: dict[str, Any], log_format: LogFormat) -> None:
    stream = written(log_format=log_format)
    structlog.get_logger("sync_server").info("event", **fields)
    line = stream.getvalue()
    assert "[redacted]" in line
    assert "opaque-secret" not in line
    assert TOKEN[40:] not in line


@pytest.mark.parametrize("log_format", LogFormat)
def test_no_token_is_written_with_a_traceback(log_format: LogFormat) -> None:
    stream = written(log_format=log_format)
    try:
        raise ValueError(f"cannot read /a?token={TOKEN}")  # noqa: TRY301
    except ValueError:
        structlog.get_logger("sync_server").exception("it failed", token=TOKEN)
        logging.getLogger("asyncio").exception("it failed")
    text = stream.getvalue()
    assert text.count("ValueError: cannot read") == 2
    assert TOKEN[40:] not in text


def test_what_is_around_a_token_stays() -> None:
    assert redacted("/a?x=1&token=abc&y=2 200") == "/a?x=1&token=[redacted]&y=2 200"
    assert redacted("the token has expired") == "the token has expired"
    assert redacted("/tokens/broken=5") == "/tokens/broken=5"


@given(
    before=st.text(max_size=20),
    secret=st.text(alphabet="abcXYZ019_-.~+", min_size=12, max_size=40),
    after=st.sampled_from(["", "&x=1", " HTTP/1.1", "#f"]),
)
def test_a_token_in_a_path_is_found_wherever_it_stands(
    before: str, secret: str, after: str
) -> None:
    line = f"/{before}?token={secret}{after}"
    assert secret not in redacted(line).removeprefix(f"/{before}")


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\r\nb", "\x1b[2Jcleared", "a\u2028b", "a\u202eb", "\x00"]
)
def test_a_peer_cannot_begin_a_line_or_steer_a_terminal(
    hostile: str, log_format: LogFormat
) -> None:
    stream = written(log_format=log_format)
    structlog.get_logger("sync_server").info(hostile, document=hostile, **{hostile: hostile})
    logging.getLogger("library").warning("said %s", hostile)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert not set(text) & set("\r\x1b\x00\u2028\u202e")


def test_a_long_field_is_cut_after_its_tokens_are_out() -> None:
    stream = written()
    padding = "x" * (FIELD_CHARACTERS_MAX - 15)
    # Short once redacted, so that where the search ended is within what is kept.
    long_token = f"token={'a' * 493} "
    structlog.get_logger("sync_server").info(
        "event",
        path=f"{padding} {TOKEN}",
        many=long_token * 15 + long_token[:-10] + f" {TOKEN}",
        other="y" * 1_000_000,
    )
    (event,) = events(stream)
    assert len(stream.getvalue()) < 4 * FIELD_CHARACTERS_MAX
    assert "eyJ" not in stream.getvalue()
    assert event["path"].startswith(f"{padding} [redacted]")
    assert "1,000,000 characters" in event["other"]


def test_deep_fields_end_as_text() -> None:
    stream = written()
    deep: Any = "bottom token=abcdef"
    for _ in range(100):
        deep = [deep]
    structlog.get_logger("sync_server").info("event", deep=deep)
    assert "abcdef" not in stream.getvalue()


def test_configuring_twice_writes_every_event_once() -> None:
    written()
    stream = written()
    structlog.get_logger("sync_server").info("event")
    assert len(events(stream)) == 1
