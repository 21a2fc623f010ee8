"""What the server writes about itself: one line an event, named, with fields, and no secrets.

An event is a short lower-case phrase (`connection opened`, `update refused`) and what varies is
in fields (`document`, `peer`, `code`).  Lines of the libraries below come out in the same form.

1. No token leaves: not in a field of its name, not in a URL, a header line, an exception.
2. What peers chose (ids, paths, reasons) is cut to `FIELD_CHARACTERS_MAX` and cannot begin a new
   line or steer a terminal.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from sync_server.settings import LogFormat, LogLevel

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["configure", "redacted"]

REDACTED = "[redacted]"
FIELD_CHARACTERS_MAX = 2_000
TRACEBACK_CHARACTERS_MAX = 20_000
SEARCHED_CHARACTERS_MAX = 8_000
NESTING_MAX = 4

# In lower case, with dashes for underscores.
SECRET_FIELDS = frozenset(
    {
        "authorization",
        "cookie",
        "jwt",
        "jwt-secret",
        "password",
        "secret",
        "sec-websocket-protocol",
        "subprotocol",
        "subprotocols",
        "token",
    }
)
TRACEBACK_FIELDS = frozenset({"exception", "stack"})

SECRETS = re.compile(
    # a parameter of a URL or a form, its name possibly percent-encoded
    r"(?P<parameter>(?<![A-Za-z0-9])(?:token|access_token|jwt|secret|password)(?:=|%3D))[^&#\s\"']+"
    # a header, as libraries print it
    r"|(?P<header>(?:authorization|cookie|sec-websocket-protocol)['\"]?\s*[:=,]\s*)[^\r\n]+"
    # the scheme of RFC 6750
    r"|(?P<bearer>bearer\s+)[A-Za-z0-9._~+/=-]+"
    # the token itself: base64url of '{"', and two more parts
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    re.IGNORECASE,
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
CONTROL_BUT_LINES = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def configure(log_format: LogFormat, level: LogLevel, *, stream: TextIO | None = None) -> None:
    """Send the events of `structlog` and of `logging` to `stream` (standard error) in one form.

    Takes the place of whatever was configured before.
    """
    target = sys.stderr if stream is None else stream
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _safe,
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderer: Processor
    if log_format is LogFormat.JSON:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        is_terminal = target.isatty()
        renderer = structlog.dev.ConsoleRenderer(
            colors=is_terminal, exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.value.upper())
    # At `debug` this library prints every frame, the contents of documents among them; at
    # `info`, two lines for each connection, which say less than the metrics do.
    quiet = logging.INFO if level is LogLevel.DEBUG else logging.WARNING
    logging.getLogger("websockets").setLevel(max(root.level, quiet))


def redacted(text: str) -> str:
    """Return `text` without the tokens in it, for a message that goes elsewhere than the log."""
    return SECRETS.sub(_replacement, text)


def _replacement(found: re.Match[str]) -> str:
    kept = found["parameter"] or found["header"] or found["bearer"] or ""
    return kept + REDACTED


def _safe(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Redact, cut and escape every field; the last processor before an event is written."""
    safe: dict[str, Any] = {}
    for name, value in event.items():
        # structlog's own entries, which its formatter takes out again.
        if name.startswith("_"):
            safe[name] = value
        elif name in TRACEBACK_FIELDS and isinstance(value, str):
            shortened = redacted(value)[-TRACEBACK_CHARACTERS_MAX:]
            safe[name] = CONTROL_BUT_LINES.sub(_escaped, shortened)
        else:
            safe[_text(name)] = _field(name, value, NESTING_MAX)
    return safe


def _field(name: object, value: object, nesting: int) -> object:
    if isinstance(name, str) and name.lower().replace("_", "-") in SECRET_FIELDS:
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if nesting and isinstance(value, dict):
        return {_text(str(key)): _field(key, entry, nesting - 1) for key, entry in value.items()}
    if nesting and isinstance(value, list | tuple):
        return [_field(None, entry, nesting - 1) for entry in value]
    return _text(str(value))


def _text(text: str) -> str:
    # Cut after redaction, or half a token could stay.  Not everything is searched, so the word in
    # which the search ended is left out.
    searched = text
    if len(text) > SEARCHED_CHARACTERS_MAX:
        searched = text[:SEARCHED_CHARACTERS_MAX].rpartition(" ")[0]
    shortened = redacted(searched)[:FIELD_CHARACTERS_MAX]
    if len(text) > FIELD_CHARACTERS_MAX:
        shortened += f"… ({len(text):,} characters)"
    return CONTROL.sub(_escaped, shortened)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
