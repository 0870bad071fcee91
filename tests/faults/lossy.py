"""A network of this machine's kernel that delays packets and really loses some.

Two addresses are joined by a TUN device, through which every packet between them passes: TCP is
the kernel's, and sends again what is lost. The device lies in a network namespace that one thread
enters and that ends with the process; nothing outside it changes. Needs root, on Linux.
"""

import ctypes
import fcntl
import heapq
import os
import queue
import random
import select
import socket
import struct
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from tests.faults.not_here import NotHereError

_CLONE_NEWNET = 0x40000000
_TUN_SET, _SET_ADDRESS, _SET_MASK, _GET_FLAGS, _SET_FLAGS = (
    0x400454CA,
    0x8916,
    0x891C,
    0x8913,
    0x8914,
)
_TUN, _NO_HEAD, _UP = 0x0001, 0x1000, 0x1
_NAME, _NEAR, _FAR = b"lossy", "10.77.0.1", "10.77.0.2"
_LONGEST_PACKET = 2048
_ADDRESSES = slice(12, 20)  # of an IPv4 packet: source, destination


class LossyLink:
    """Connections to a port of this machine, over a bad network.

    What is sent to the far address comes back as from there: source and destination change places,
    which leaves every checksum as it is.
    """

    def __init__(self, port: int, delay_seconds: float, lost_share: float) -> None:
        """Make the network.

        Args:
            delay_seconds: Of a packet, each way.
            lost_share: Of all packets.

        Raises:
            NotHereError: This machine does not let us.
        """
        self._target = ("127.0.0.1", port)
        self._delay, self._lost_share = delay_seconds, lost_share
        self._chance = random.Random("packets")
        self._wanted: queue.Queue[Future[socket.socket] | None] = queue.Queue()
        self.passed, self.lost, self._closing = 0, 0, False
        ready: Future[tuple[int, socket.socket]] = Future()
        threading.Thread(target=self._live_there, args=(ready,), daemon=True).start()
        try:
            self._tun, self._listener = ready.result()
        except OSError as error:
            msg = f"no network of its own ({error.strerror}): needs root and /dev/net/tun"
            raise NotHereError(msg) from None
        threading.Thread(target=self._carry, daemon=True).start()
        threading.Thread(target=self._accept, daemon=True).start()

    def connect(self) -> socket.socket:
        """Return a connection to the port; what is sent over it meets the network."""
        made: Future[socket.socket] = Future()
        self._wanted.put(made)
        near = made.result()
        near.connect((_FAR, self._listener.getsockname()[1]))
        return near

    def close(self) -> None:
        """Take the network down."""
        self._closing = True
        self._wanted.put(None)
        self._listener.close()

    def _live_there(self, ready: "Future[tuple[int, socket.socket]]") -> None:
        """Make sockets for others: a socket belongs to the namespace of the thread that made it."""
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            ready.set_result((_open_tun(), socket.create_server((_NEAR, 0))))
        except OSError as error:
            ready.set_exception(error)
            return
        while (made := self._wanted.get()) is not None:
            made.set_result(socket.socket())

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                far, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for source, target in ((far, server), (server, far)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=_pass, args=(source, target), daemon=True).start()

    def _carry(self) -> None:
        """Hand each packet back when its time has come, or never."""
        waiting: list[tuple[float, int, bytes]] = []
        while not self._closing:
            left = 1.0 if not waiting else max(0.0, waiting[0][0] - time.monotonic())
            if select.select([self._tun], [], [], min(left, 1.0))[0]:
                packet = os.read(self._tun, _LONGEST_PACKET)
                if packet[0] >> 4 == 4:  # IPv4
                    self._take(packet, waiting)
            while waiting and waiting[0][0] <= time.monotonic():
                with suppress(OSError):
                    os.write(self._tun, heapq.heappop(waiting)[2])
        os.close(self._tun)

    def _take(self, packet: bytes, waiting: list[tuple[float, int, bytes]]) -> None:
        if self._chance.random() < self._lost_share:
            self.lost += 1
            return
        self.passed += 1
        addresses = packet[_ADDRESSES]
        turned = packet[: _ADDRESSES.start] + addresses[4:] + addresses[:4] + packet[20:]
        heapq.heappush(waiting, (time.monotonic() + self._delay, self.passed, turned))


def _open_tun() -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, _TUN_SET, struct.pack("16sH22x", _NAME, _TUN | _NO_HEAD))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, address in ((_SET_ADDRESS, _NEAR), (_SET_MASK, "255.255.255.0")):
            where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s", _NAME, where))
        asked = fcntl.ioctl(control, _GET_FLAGS, struct.pack("16sH14x", _NAME, 0))
        (flags,) = struct.unpack("16xH14x", asked)
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", _NAME, flags | _UP))
    return tun


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while heard := source.recv(65_536):
            target.sendall(heard)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
