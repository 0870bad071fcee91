"""A study goes on while strangers, revoked sites and slow callers attack the server.

Five honest sites train with trivial work, once in quiet and once under attack, all on loopback and
from one address: silent connections, connections of a revoked certificate, bodies of a bad site
that come byte by byte, a flood of requests to join. What the server closes is opened again. The
attackers compute on the same machine, so the ratio holds their work too. Linux only.

    python -m benchmarks.load.server_under_attack [--rounds 10] [--silent 2000] [--revoked 200]
"""

import argparse
import base64
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.support.attackers import AttackTask, attacking
from benchmarks.support.deployed_run import DeployedRun
from benchmarks.support.federation_job import TINY
from benchmarks.support.processes import machine
from benchmarks.support.wardround_deployment import run_wardround
from wardround.client.site.enrolment import join
from wardround.common.security.tls_key_pair import private_pem, public_pem, read_private_key
from wardround.server.identity.invitations import invite
from wardround.server.identity.membership import revoke
from wardround.server.settings import open_server
from wardround.simulations.local_federation.processes import LocalFederation

SITES = tuple(f"site-{number}" for number in range(5))
TARGET_RATIO, TARGET_LOG_MB = 2.0, 1.0
_INVITATIONS = 20
_DEADLINE_SECONDS = 900.0


@dataclass
class Measured:
    """What is seen of a run beside its rounds.

    Attributes:
        log_bytes: How much the server's logs have grown.
        counts: What the attackers did.
    """

    arguments: argparse.Namespace
    log_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def quietly(self, federation: LocalFederation) -> Iterator[None]:
        """Watch the log alone."""
        before = _log_bytes(federation)
        yield
        self.log_bytes = _log_bytes(federation) - before

    @contextmanager
    def attacked(self, federation: LocalFederation) -> Iterator[None]:
        """Attack meanwhile."""
        task = _prepare(federation, self.arguments)
        with self.quietly(federation):
            with attacking(task) as attack:
                yield
            self.counts = dict(attack.counts)


def main() -> None:
    """Print a table of both runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--silent", type=int, default=2000)
    parser.add_argument("--revoked", type=int, default=200)
    parser.add_argument("--slow", type=int, default=20)
    parser.add_argument("--enrolments", type=float, default=50.0, help="a second")
    parser.add_argument("--again-seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    quiet, attacked = Measured(arguments), Measured(arguments)
    with tempfile.TemporaryDirectory() as name:
        runs = [
            run_wardround(
                _new(Path(name) / title),
                TINY,
                arguments.rounds,
                _DEADLINE_SECONDS,
                SITES,
                meanwhile,
            )
            for title, meanwhile in (("quiet", quiet.quietly), ("attacked", attacked.attacked))
        ]
    _print(runs, [quiet, attacked])
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def _print(runs: list[DeployedRun], measured: list[Measured]) -> None:
    print("\n| | rounds | s a round | from, to | log, kB |\n|---|---|---|---|---|")
    for title, run, seen in zip(("quiet", "attacked"), runs, measured, strict=True):
        seconds = run.round_seconds or [float("nan")]
        cells = f"{statistics.median(seconds):.2f} | {min(seconds):.2f}, {max(seconds):.2f}"
        print(f"| {title} | {len(run.ended_rounds)} | {cells} | {seen.log_bytes / 1e3:.1f} |")
    for run in runs:
        print(f"failed: {run.failure}" if run.failure else "finished")
    for what, count in sorted(measured[1].counts.items()):
        print(f"{what}: {count}")
    quiet, attacked = (statistics.median(run.round_seconds) for run in runs)
    grown = measured[1].log_bytes / 1e6
    is_kept = attacked <= TARGET_RATIO * quiet and grown < TARGET_LOG_MB
    verdict = "kept" if is_kept and not any(run.failure for run in runs) else "MISSED"
    print(
        f"{attacked / quiet:.2f} times the quiet round (target {TARGET_RATIO:g}), the log grew by "
        f"{grown:.3f} MB (target {TARGET_LOG_MB:g}): {verdict}"
    )


def _prepare(federation: LocalFederation, arguments: argparse.Namespace) -> AttackTask:
    """Give the attackers what they need: certificates of the consortium."""
    folder, server = _new(federation.server.parent / "attackers"), federation.server
    for name in ("revoked", "mallory"):
        join(invite(server, name), folder / name)
    revoke(server, "revoked")
    invitations = []
    for number in range(_INVITATIONS):
        token = invite(server, f"guest-{number}")
        file = folder / f"guest-{number}.pem"
        file.write_bytes(private_pem(token.key) + token.certificate.public_bytes(Encoding.PEM))
        invitations.append(str(file))
    node_key = read_private_key(folder / "mallory" / "keys" / "node.key").public_key()
    return AttackTask(
        open_server(server).settings.port,
        arguments.silent,
        arguments.revoked,
        arguments.slow,
        arguments.enrolments,
        _both(folder / "revoked"),
        _both(folder / "mallory"),
        f"flwr-public-key: {base64.b64encode(public_pem(node_key)).decode()}",
        invitations,
        arguments.again_seconds,
    )


def _both(site: Path) -> str:
    """Return a file with a site's key and certificate."""
    keys, file = site / "keys", site / "both.pem"
    file.write_bytes((keys / "tls.key").read_bytes() + (keys / "tls.crt").read_bytes())
    return str(file)


def _log_bytes(federation: LocalFederation) -> int:
    folder = federation.server.parent
    return sum(log.stat().st_size for log in folder.rglob("*.log"))


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
