"""``wardround site serve``: a model that answers the studies of the picture archive."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wardround.client.clinic.gateway.queue import QueueCounts

SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]


def serve(  # noqa: PLR0913 # one argument an option of the command line
    site: SiteFolder,
    model: Annotated[
        Path | None, typer.Option(help="A model folder, as a run leaves it.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="A public key that must have signed the model.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or a GPU such as cuda:1.")] = "auto",
    once: Annotated[
        bool, typer.Option("--once", help="Answer what is there now, and end.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say what was answered and what was not, and end.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Have what was given up be tried again, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --status: print JSON.")] = False,
) -> None:
    """Watch the archive that pacs.toml names, predict, and store SEG and SR objects there.

    End it with Ctrl-C or SIGTERM: the study in hand may finish for 20 seconds. Whatever ends it,
    no study is lost and none is answered twice. Results are not for diagnosis.

    Example: wardround site serve /data/wardround/north --model models/federated
    """
    from wardround.common.errors import InputError
    from wardround.common.files.account import shown, started_as_owner

    if sum((status, again, model is not None)) != 1:
        msg = "give one of --model (to serve), --status and --again."
        raise InputError(msg)
    if status:
        _print_status(site, as_json)
    elif again:
        _try_again(site)
    elif model is not None:
        with started_as_owner(site, shown("wardround", "site", "serve", site, "--model", model)):
            _serve(site, model, key, device, once)


def _serve(site: Path, model: Path, key: Path | None, device: str, once: bool) -> None:
    import logging

    from wardround.client.clinic.gateway.serving import serve as serve_archive
    from wardround.common.runtime.printable import PrintableFormatter
    from wardround.common.security.signing_key import open_public_key

    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("wardround").setLevel(logging.INFO)
    trusted = None if key is None else open_public_key(key)
    serve_archive(site, model, trusted, device, once)


def _try_again(site: Path) -> None:
    from wardround.client.clinic.gateway.status import open_queue

    queue = open_queue(site)
    try:
        count = queue.try_again()
    finally:
        queue.close()
    sys.stdout.write(f"{count} studies that were given up are tried again.\n")


def _print_status(site: Path, as_json: bool) -> None:
    from wardround.client.clinic.gateway.status import is_serving, open_queue
    from wardround.common.runtime.printable import write_lines

    queue = open_queue(site)
    try:
        counts = queue.counts()
    finally:
        queue.close()
    serving = is_serving(site)
    if as_json:
        said = {
            "serving": serving,
            "states": counts.states,
            "reasons": [
                {"state": state, "reason": reason, "studies": count}
                for state, reason, count in counts.reasons
            ],
            **{name.replace(" ", "_"): value for name, value in counts.facts.items()},
        }
        sys.stdout.write(json.dumps(said) + "\n")
        return
    write_lines("\n".join(_lines(counts, serving)) + "\n")


def _lines(counts: "QueueCounts", serving: bool) -> list[str]:
    from datetime import UTC, datetime

    facts = counts.facts
    lines = ["serving" if serving else "NOT SERVING: no process is at work"]
    if facts.get("model"):
        lines[0] += f"; model {facts['model']}"
    if facts.get("last asked", "").isdecimal():
        asked = datetime.fromtimestamp(int(facts["last asked"]), UTC)
        lines.append(f"the archive was last asked at {asked:%Y-%m-%d %H:%M:%S} UTC")
    if facts.get("trouble"):
        lines.append(f"the archive is NOT REACHED: {facts['trouble']}")
    lines.append(", ".join(f"{count} {state}" for state, count in counts.states.items()))
    lines += [f"{count} {state}: {reason}" for state, reason, count in counts.reasons]
    return lines
