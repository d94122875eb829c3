"""A client of servers that stream server-sent events, made to cost little: it shares two cores with the server that it measures.

One thread waits for all sockets and only notes what arrived when; everything is parsed after the run.
"""
import bisect
import json
import selectors
import socket
import time
from collections import deque

from cells import Outcome

RUN_TIMEOUT_S = 1800


class _Stream:
    """One request and the bytes of its answer."""

    def __init__(self, port: int, path: str, body: dict):
        payload = json.dumps(body).encode()
        self._message = (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                         f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n").encode() + payload
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.sent_s = 0.0
        self.arrivals = []  # (seconds since the run began, bytes)

    def send(self, begin: float):
        self.sent_s = time.perf_counter() - begin
        self.socket.sendall(self._message)

    def receive(self, begin: float) -> bool:
        """False at the end of the answer."""
        data = self.socket.recv(1 << 16)
        self.arrivals.append((time.perf_counter() - begin, data))
        return bool(data)


def parse_events(arrivals: list) -> list:
    """[(time, event)] of an HTTP answer, given as (time, bytes) in order of arrival. An event has the time when its last byte came.
    Raises when the answer is not 200."""
    raw = b"".join(data for _, data in arrivals)
    head, separator, _ = raw.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(f"the server answered {raw[:600].decode(errors='replace')!r}")
    ends, total = [], 0
    for _, data in arrivals:
        total += len(data)
        ends.append(total)
    pieces = _dechunk(raw, len(head) + 4) if b"transfer-encoding: chunked" in head.lower() else [(len(raw), raw[len(head) + 4:])]
    events, pending = [], b""
    for end, piece in pieces:
        when = arrivals[bisect.bisect_left(ends, end)][0]
        *lines, pending = (pending + piece).split(b"\n")
        events += [(when, json.loads(line[5:])) for line in lines if line.startswith(b"data:") and b"[DONE]" not in line]
    return events


def _dechunk(raw: bytes, position: int):
    """(offset of its end in `raw`, bytes) of each chunk."""
    while True:
        line_end = raw.index(b"\r\n", position)
        size = int(raw[position:line_end].split(b";")[0], 16)
        if size == 0:
            return
        position = line_end + 2 + size + 2
        yield position - 2, raw[line_end + 2:position - 2]


def run_streams(port: int, path: str, bodies: list, concurrency: int, token_times) -> Outcome:
    """Posts the bodies, `concurrency` at a time. `token_times(events)` says when each token of an answer came, from the events of
    parse_events; it raises on one that reports an error."""
    streams = [_Stream(port, path, body) for body in bodies[:concurrency]]
    waiting = deque(bodies[concurrency:])
    begin = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            stream.send(begin)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(RUN_TIMEOUT_S)
            if not ready:
                raise RuntimeError(f"no token for {RUN_TIMEOUT_S} s")
            for key, _ in ready:
                if key.data.receive(begin):
                    continue
                selector.unregister(key.fileobj)
                key.fileobj.close()
                if waiting:
                    stream = _Stream(port, path, waiting.popleft())
                    streams.append(stream)
                    stream.send(begin)
                    selector.register(stream.socket, selectors.EVENT_READ, stream)
    wall_s = time.perf_counter() - begin
    return Outcome(wall_s, [stream.sent_s for stream in streams], [token_times(parse_events(stream.arrivals)) for stream in streams])
