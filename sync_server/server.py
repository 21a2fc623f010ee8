"""The server: a replica that listens, and what belongs around it.

Settings in, an exit code out.  It starts by making sure it can serve (the store, the address)
and ends by draining: nothing is accepted any more, everything received is on the disk, everyone
has been told, and only then the process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import sys

import structlog

from crdt_state.clocks import SystemClock
from crdt_state.errors import CrdtStateError, SettingsRefused, StoreUnavailable
from crdt_state.replica.workers import WorkerProcesses
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.transport.listener import Listener
from crdt_state.transport.replica import Replica
from crdt_state.transport.websocket_server import Answer, Asked, WebSocketServer
from sync_server.http import Endpoints, Page, Readiness, Request
from sync_server.journal import Journal, readings
from sync_server.library import ShellLibrary
from sync_server.logs import configure
from sync_server.metrics import ServerMetrics
from sync_server.settings import ServerSettings, names_of

__all__ = ["Server", "run"]

SWITCH_SECONDS = 0.0005
"""After how long a busy event loop lets the store's threads go on: a commit needs that ten times,
and a bystander's confirmation waits for it."""

log = structlog.get_logger("server")


class Server:
    """One server, from settings; `run` it within an event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self.url: str | None = None
        """Where it listens; set once it does."""

    async def run(self) -> None:
        """Serve until `stop`.

        Raises `StoreError` when the store cannot be opened, `OSError` when the address cannot
        be had, `SettingsRefused` when a key or certificate cannot be read.
        """
        settings, limits = self._settings, self._settings.limits
        authentication, tls = settings.peer_authentication(), settings.tls()
        clock = SystemClock()
        dice = random.Random(secrets.randbits(128))  # noqa: S311 - names and jitter, no secrets
        try:
            settings.store.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"{settings.store} cannot be made ({error.strerror}); set {names_of('store')}"
            ) from error
        store = await SqliteStore.open(settings.store_file, random=dice, limits=limits)
        if store.is_new_incarnation:
            log.warning("this file was copied or restored: it goes on as a new incarnation")
        metrics = ServerMetrics()
        journal = Journal(metrics, clock)
        workers = WorkerProcesses(limits, count=settings.workers)
        shell = Replica(
            store,
            incarnation=store.incarnation,
            limits=limits,
            clock=clock,
            dice=dice,
            workers=workers,
            witness=journal,
            is_listening=True,
        )
        async with shell:
            listener = Listener(
                shell,
                authentication,
                sent_away=journal.sent_away,
                text_types=settings.text_types(),
                authority=settings.authority(),
            )
            endpoints = Endpoints(
                ShellLibrary(shell),
                authentication,
                clock,
                metrics=metrics,
                shows_metrics=settings.metrics,
                limits=limits,
            )

            async def answer(asked: Asked) -> Answer | None:
                if settings.metrics and asked.target.partition("?")[0] == Page.METRICS.value:
                    metrics.measure(readings(shell, workers, listener, server))
                response = await endpoints.answer(
                    Request(asked.method, asked.target, asked.headers)
                )
                if response is None:
                    return None
                return Answer(response.status, response.headers, response.body)

            server = WebSocketServer(
                listener,
                limits,
                host=settings.host,
                port=settings.port,
                rules=settings.origin_rules(),
                answer=answer,
                tls=tls,
            )
            port = await server.start()
            self._announce(port, is_secure=tls is not None)
            self._join(shell)
            endpoints.readiness = Readiness.READY
            try:
                await self._stopping.wait()
            finally:
                endpoints.readiness = Readiness.DRAINING
                log.info("draining")
                await server.drain()
        log.info("stopped")

    def stop(self) -> None:
        """Begin to drain; a second call changes nothing."""
        self._stopping.set()

    def _join(self, replica: Replica) -> None:
        """Take part in the topology, where there is one."""
        neighbourhood = self._settings.neighbourhood()
        if neighbourhood is None:
            return
        has_token = self._settings.peer_token_file is not None
        replica.join(neighbourhood, token=self._settings.peer_token if has_token else None)
        log.info("joined", topology=neighbourhood.kind, peers=list(neighbourhood.peers))

    def _announce(self, port: int, *, is_secure: bool) -> None:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{'wss' if is_secure else 'ws'}://{host}:{port}"
        for warning in settings.warnings():
            log.warning(warning)
        log.info(
            "listening",
            connect=f"{self.url}/<document id>",
            store=str(settings.store_file),
            authentication="on" if settings.has_authentication else "off",
        )


def run(settings: ServerSettings) -> int:
    """Serve in the foreground until SIGINT or SIGTERM; the exit code."""
    sys.setswitchinterval(SWITCH_SECONDS)
    configure(settings.log_format, settings.log_level)
    try:
        with _runner() as runner:
            return runner.run(_serve(settings))
    except KeyboardInterrupt:
        return 130


async def _serve(settings: ServerSettings) -> int:
    server = Server(settings)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        loop.add_signal_handler(signal.SIGINT, server.stop)
    try:
        await server.run()
    except SettingsRefused as error:
        log.error("cannot start", problem=str(error))
        return 2
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        log.error("cannot listen", address=where, problem=str(error))
        return 1
    except CrdtStateError as error:
        log.error("cannot go on", problem=str(error))
        return 3
    return 0


def _runner() -> asyncio.Runner:
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        return asyncio.Runner()
    import uvloop  # noqa: PLC0415 - not everywhere

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
