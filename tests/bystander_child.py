"""An honest writer in a process of its own, so that nothing but the server makes it wait.

It types one character at a time into one document, asks after each whether everything is durable
(step 1 is the barrier), and notes how long the answer took.  It ends when its standard input
does, and says what it saw.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

from crdt_state.model.state import encode_state_vector
from crdt_state.protocol.ywebsocket import SyncStep1, SyncStep2, Update, decode, encode
from hostile import section, string, update

CLIENT = 4_711
ROUND_SECONDS = 0.02
ANSWER_SECONDS_MAX = 60.0
LETTERS = "an honest text "


def masked(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB4x", 0x82, 0x80 | size) + payload
    return struct.pack("!BBH4x", 0x82, 0x80 | 126, size) + payload


class Wire:
    """A blocking y-websocket client without a library."""

    def __init__(self, port: int, document: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        self._buffer = b""
        self._socket.sendall(
            f"GET /{document} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        self._buffer = self._buffer.partition(b"\r\n\r\n")[2]

    def send(self, *messages: bytes) -> None:
        self._socket.sendall(b"".join(map(masked, messages)))

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        head = self._take(2)
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(self._take(2))
        elif size == 127:
            size = int.from_bytes(self._take(8))
        return head[0] & 0x0F, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _more(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionError("the server hung up")
        self._buffer += data

    def await_answer(self) -> None:
        """Return when a step 2 has come."""
        while True:
            opcode, payload = self.receive()
            if opcode == 8:
                raise ConnectionError(f"closed with {int.from_bytes(payload[:2])}: {payload[2:]!r}")
            if opcode == 9:
                pong = struct.pack("!BB4x", 0x8A, 0x80 | len(payload)) + payload
                self._socket.sendall(pong)
            if opcode == 2 and isinstance(decode(payload), SyncStep2):
                return


def main(port: int, document: str) -> None:
    wire = Wire(port, document)
    waits: list[float] = []
    text = ""
    trouble = ""
    try:
        while not select.select([sys.stdin], [], [], ROUND_SECONDS)[0]:
            at = len(text)
            letter = LETTERS[at % len(LETTERS)]
            typed = string(letter, origin=(CLIENT, at - 1)) if at else string(letter)
            vector = encode_state_vector({CLIENT: at + 1})
            began = time.monotonic()
            wire.send(encode(Update(update(section(CLIENT, at, typed)))), encode(SyncStep1(vector)))
            wire.await_answer()
            waits.append(time.monotonic() - began)
            text += letter
            if at == 0:
                sys.stdout.write("begun\n")
                sys.stdout.flush()
    except (OSError, TimeoutError) as error:
        trouble = repr(error)
    sys.stdout.write(json.dumps({"waits": waits, "text": text, "trouble": trouble}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
