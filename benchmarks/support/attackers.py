"""A process that attacks a server's public port: silent, revoked, slow and enrolling callers.

It is given its task as JSON and tells as JSON, when it is ended, what came of it.
"""

import asyncio
import json
import os
import resource
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from wardround.common.runtime.system.processes import PARENT, end_with_parent

_HOST = "127.0.0.1"
_BODY = 2**20  # of which a byte a second comes


@dataclass(frozen=True)
class AttackTask:
    """Who attacks.

    Attributes:
        silent: Connections on which nothing is ever said.
        revoked: TLS connections that show the certificate ``revoked_file``.
        slow: Requests of a site (``site_file``, with the header ``site_header``) whose body comes
            byte by byte.
        enrolments: Requests to join a second, each over a connection of its own, with the
            certificates ``invitation_files`` in turn.
        again_seconds: When a connection that was closed is opened again.
    """

    port: int
    silent: int
    revoked: int
    slow: int
    enrolments: float
    revoked_file: str
    site_file: str
    site_header: str
    invitation_files: Sequence[str]
    again_seconds: float = 5.0


@dataclass
class Attack:
    """What came of it.

    Attributes:
        counts: How often each thing was done, or answered.
    """

    counts: Counter[str] = field(default_factory=Counter)


@contextmanager
def attacking(task: AttackTask) -> Iterator[Attack]:
    """Attack until the context ends; then the counts are there."""
    attack = Attack()
    command = [sys.executable, "-m", "benchmarks.support.attackers", json.dumps(asdict(task))]
    environment = {**os.environ, PARENT: str(os.getpid())}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield attack
    finally:
        process.terminate()
        told, _ = process.communicate()
        attack.counts.update(json.loads(told or "{}"))


class _Attackers:
    def __init__(self, task: AttackTask) -> None:
        self._task = task
        self.counts: Counter[str] = Counter()

    def all(self) -> list[Awaitable[None]]:
        """Return everything that goes on at the same time."""
        task = self._task
        revoked, site = _context(task.revoked_file), _context(task.site_file)
        return [
            *(self._again("silent", self._keep, None) for _ in range(task.silent)),
            *(self._again("revoked", self._keep, revoked) for _ in range(task.revoked)),
            *(self._again("slow bodies", self._drip, site) for _ in range(task.slow)),
            self._enrol([_context(file) for file in task.invitation_files]),
        ]

    async def _again(
        self,
        name: str,
        act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        context: ssl.SSLContext | None,
    ) -> None:
        while True:
            await self._once(name, act, context)
            await asyncio.sleep(self._task.again_seconds)

    async def _once(
        self,
        name: str,
        act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        context: ssl.SSLContext | None,
    ) -> None:
        try:
            reader, writer = await asyncio.open_connection(_HOST, self._task.port, ssl=context)
        except (OSError, TimeoutError):
            self.counts[f"{name}: not connected"] += 1
            return
        self.counts[name] += 1
        try:
            await act(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    @staticmethod
    async def _keep(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"POST /v1/fleet/push-messages HTTP/1.1\r\nhost: x\r\ncontent-length: {_BODY}\r\n"
        writer.write(f"{head}{self._task.site_header}\r\n\r\n".encode())
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1.0)

    async def _enrol(self, contexts: Sequence[ssl.SSLContext]) -> None:
        number, running = 0, set[asyncio.Task[None]]()
        while self._task.enrolments > 0:
            number += 1
            context = contexts[number % len(contexts)]
            one = asyncio.ensure_future(self._once("enrolments", self._join, context))
            running.add(one)
            one.add_done_callback(running.discard)
            await asyncio.sleep(1.0 / self._task.enrolments)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"request": "x" * 2000, "node_key": "y", "node_signature": "z"}).encode()
        head = "POST /wardround/enrol/join HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = (await reader.readline()).decode("latin-1").split(" ")[1:2]
        self.counts[f"enrolments answered {''.join(status) or 'nothing'}"] += 1


def _context(file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file)
    return context


async def _attack(task: AttackTask) -> Counter[str]:
    attackers, over = _Attackers(task), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.set_exception_handler(lambda *_: None)  # of connections that the server broke off
    working = [asyncio.ensure_future(one) for one in attackers.all()]
    await over.wait()
    for one in working:
        one.cancel()
    return attackers.counts


if __name__ == "__main__":
    end_with_parent()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(_attack(AttackTask(**json.loads(sys.argv[1]))))))
