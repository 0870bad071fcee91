"""A TCP proxy on loopback that loses, delays and breaks what goes through it: a bad network."""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

BOTH, TO_SITE = "both ways", "to the site"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is broken off


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad a network is, for each piece of up to 64 KB that passes.

    Attributes:
        delay_seconds: Each way, the same again at most for jitter.
        stall_share: How often a piece waits for ``stall_seconds``.
        break_share: How often a connection is broken off in its place.
    """

    delay_seconds: float
    stall_share: float
    stall_seconds: float
    break_share: float


class Proxy:
    """Passes connections on to a server, until it is told to do worse.

    What is lost is read and thrown away, so that neither side is told. When the network is mended
    the connections that lost something are closed: they could not go on.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lost = ""
        self._spoilt: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._dial = self._dial_directly
        self._weather: Weather | None = None
        self._chance = random.Random("weather")
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, what: str) -> None:
        """Lose BOTH, or TO_SITE."""
        self._lost = what

    def worsen(self, weather: Weather) -> None:
        """Delay and break connections from now on."""
        self._weather = weather

    def reroute(self, dial: Callable[[], socket.socket]) -> None:
        """Reach the server in another way, for connections that are open too: they are broken."""
        self._dial = dial
        self.break_connections()

    def break_connections(self) -> None:
        """Break every connection off."""
        for one in tuple(self._open):
            _break(one)

    def mend(self) -> None:
        """Be a good network again."""
        self._lost, self._weather = "", None
        spoilt, self._spoilt = self._spoilt, []
        for one in spoilt:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        if self._dial != self._dial_directly:
            self.reroute(self._dial_directly)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _dial_directly(self) -> socket.socket:
        return socket.create_connection(self._target)

    def _accept(self) -> None:
        while True:
            try:
                site, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(site,), daemon=True).start()

    def _connect(self, site: socket.socket) -> None:
        try:
            server = self._dial()
        except OSError:
            site.close()
            return
        for one in (site, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open |= {site, server}
        for source, target, way in ((site, server, "to the server"), (server, site, TO_SITE)):
            threading.Thread(target=self._pass, args=(source, target, way), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while heard := source.recv(65_536):
                if self._lost in (BOTH, way):
                    self._spoilt += [source, target]
                elif self._weather is None or self._survives(self._weather):
                    target.sendall(heard)
                else:
                    self.broken += 1
                    for one in (source, target):
                        _break(one)
        for one in (source, target):
            self._open.discard(one)
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _survives(self, weather: Weather) -> bool:
        """Wait as the weather has it; False if the connection breaks."""
        chance = self._chance.random()
        if chance < weather.break_share:
            return False
        stalls = chance < weather.break_share + weather.stall_share
        delay = weather.delay_seconds * (1 + self._chance.random())
        time.sleep(weather.stall_seconds if stalls else delay)
        return True


def _break(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.shutdown(socket.SHUT_RDWR)
        one.close()
