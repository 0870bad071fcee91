"""A TCP proxy on loopback that can lose what goes through it: a network that fails."""

import contextlib
import socket
import threading

BOTH, TO_SITE = "both ways", "to the site"


class Proxy:
    """Passes connections on to a server, until it is told to lose what they say.

    What is lost is read and thrown away, so that neither side is told. When the network is mended
    the connections that lost something are closed: they could not go on.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lost = ""
        self._spoilt: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, what: str) -> None:
        """Lose BOTH, or TO_SITE."""
        self._lost = what

    def mend(self) -> None:
        self._lost = ""
        spoilt, self._spoilt = self._spoilt, []
        for one in spoilt:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                site, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                site.close()
                continue
            for source, target, way in ((site, server, "to the server"), (server, site, TO_SITE)):
                threading.Thread(target=self._pass, args=(source, target, way), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while heard := source.recv(65_536):
                if self._lost in (BOTH, way):
                    self._spoilt += [source, target]
                else:
                    target.sendall(heard)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
