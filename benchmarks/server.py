"""A vendor that costs almost no CPU: answers every POST after a fixed latency, so that the client is what is measured.

``python server.py LATENCY_S`` prints its port; ``GET /stats`` tells requests and connections, ``GET /reset`` forgets.
"""

from __future__ import annotations

import asyncio
import json
import sys

ANSWER = json.dumps(
    {"code": 200, "succeed": True, "msg": "Success", "data": {"content": "A picture of nothing much. " * 20}}
).encode()
STATS = {"requests": 0, "connections": 0, "in_flight": 0, "max_in_flight": 0}


class Vendor(asyncio.Protocol):
    """One connection: reads requests by their Content-Length and answers each."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.buffer = bytearray()
        self.missing = 0
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.missing:
            # The body is counted and thrown away, not kept.
            self.missing -= len(data)
            if self.missing <= 0:
                self._answer()
            return
        self.buffer += data
        head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not found:
            return
        self.buffer.clear()
        self.head = head.lower()
        length = 0
        for line in self.head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.missing = length - len(rest)
        if self.missing <= 0:
            self._answer()

    def _answer(self) -> None:
        self.missing = 0
        path = self.head.split(b" ", 2)[1]
        if path in (b"/stats", b"/reset"):
            if path == b"/reset":
                STATS.update(dict.fromkeys(STATS, 0))
            self._send(json.dumps(STATS).encode())
            return
        if not hasattr(self, "counted"):
            self.counted = True
            STATS["connections"] += 1
        STATS["requests"] += 1
        STATS["in_flight"] += 1
        STATS["max_in_flight"] = max(STATS["max_in_flight"], STATS["in_flight"])
        asyncio.get_running_loop().call_later(self.latency, self._described)

    def _described(self) -> None:
        STATS["in_flight"] -= 1
        self._send(ANSWER)

    def _send(self, body: bytes) -> None:
        if not self.transport.is_closing():
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)


async def serve(latency: float) -> None:
    """Serve until stdin closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Vendor(latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
