"""``wardround site worth``: what a running study has to offer, before a hospital decides on it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from wardround.client.clinic.joining import Worth

_DECIMALS = 3


def worth(
    study: Annotated[
        str,
        typer.Argument(
            help="A study file, or 16 or more digits of the digest of one that waits here.",
            show_default=False,
        ),
    ],
    site: Annotated[Path, typer.Option("--site", help="A site folder.", show_default=False)],
    rounds: Annotated[
        int, typer.Option(help="How long a copy of the model is trained here.", min=1)
    ] = 3,
    server: Annotated[
        str, typer.Option(help="host:port, instead of the server that the site has joined.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Say what a running study's present model is worth here, before this hospital decides on it.

    It is measured on this hospital's own test patients, compared with a copy trained here and a
    model that is trained here alone. The numbers stay: whoever wants to tell somebody does so.

    Example: wardround site worth 5e3a90c2b7d14f68 --site /data/wardround/north
    """
    from wardround.client.clinic.joining import weigh_joining
    from wardround.common.runtime.printable import write_lines

    found = weigh_joining(site, study.strip(), rounds, server)
    if as_json:
        sys.stdout.write(json.dumps(_finite(asdict(found))) + "\n")
    else:
        write_lines("\n".join(_words(found)) + "\n")


def _words(found: "Worth") -> list[str]:
    from wardround.common.statistics.joining.worth_joining import FEWEST

    lines = [
        f"The present model, after round {found.round}, made by {found.sites} sites; "
        f"{found.metric} on {found.patients} test patients of this one:"
    ]
    lines += [f"  {name}: {value:.{_DECIMALS}f}" for name, value in found.values.items()]
    word, gain = found.joining.word, found.gain
    if gain.is_known:
        low, high = gain.lower(), gain.upper()
        lines.append(
            f"Worth joining: {word} ({found.joining.reason}). The present model's gain over a "
            f"model of {found.rounds[1]} rounds here alone is {gain.value:+.{_DECIMALS}f}, 90 % "
            f"interval {low:+.{_DECIMALS}f} to {high:+.{_DECIMALS}f}."
        )
        if found.joining.patients_needed:
            lines.append(f"About {found.joining.patients_needed} test patients would tell.")
    else:
        lines.append(
            f"Worth joining: cannot be told; it takes classes, one of the study's usual metrics "
            f"and {FEWEST} test patients."
        )
    return [*lines, "None of these numbers has left this machine."]


def _finite(said: object) -> object:
    """Return the same for JSON, which knows neither NaN nor infinity."""
    import math

    if isinstance(said, dict):
        return {key: _finite(value) for key, value in said.items()}
    if isinstance(said, list | tuple):
        return [_finite(value) for value in said]
    return None if isinstance(said, float) and not math.isfinite(said) else said
