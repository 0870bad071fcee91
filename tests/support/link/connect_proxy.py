"""A proxy process that knows CONNECT alone, as a hospital's does; every name is this machine."""

import contextlib
import socket
import threading


def carry(source: socket.socket, sink: socket.socket) -> None:
    with sink, contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)


def connect(caller: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        heard = caller.recv(4096)
        if not heard:
            return
        head += heard
    method, target = head.decode().split()[:2]
    print(method, target, flush=True)  # noqa: T201 # its log is what a test reads
    server = socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])))
    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for ends in ((caller, server), (server, caller)):
        threading.Thread(target=carry, args=ends, daemon=True).start()


def serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201 # as above
    while True:
        with contextlib.suppress(OSError):
            connect(listener.accept()[0])


if __name__ == "__main__":
    serve()
