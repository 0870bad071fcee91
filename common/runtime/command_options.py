"""Options that commands of every side have, each described in one place."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")]
