"""The command line: one front door, each room opened only when it is entered."""

import errno
import gc
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

import wardround
from wardround.client.cli.clinic.predict import predict
from wardround.client.cli.model import model_app
from wardround.client.cli.site import site_app
from wardround.commands.bundle_wheels import bundle_wheels
from wardround.commands.completion import ASKED, answer_shell, completion
from wardround.commands.continue_study import continue_study
from wardround.commands.empty_paths import refuse_empty_paths
from wardround.commands.promotion import promote, promoted, rollback
from wardround.commands.refusals import run_command, say_refusal
from wardround.commands.study import study_app
from wardround.common.errors import WardroundError, describe_defect
from wardround.common.runtime.system.accounts import name_nameless_account
from wardround.common.runtime.system.signals import ended_like_ctrl_c, is_ctrl_c
from wardround.server.cli.backup import add_backup_commands
from wardround.server.cli.canary import canary
from wardround.server.cli.operators import runs_app, sites_app, submit
from wardround.server.cli.server import server_app
from wardround.server.cli.service import add_service_commands
from wardround.server.cli.tracking import track as track_server_run
from wardround.server.cli.withdrawal import add_withdrawal_commands
from wardround.simulations.cli.commands import add_commands, plan

if TYPE_CHECKING:
    from wardround.common.study.study import Study

# Help is plain text, as click prints it: rich would read "[privacy]" as markup and cut the names of
# options off. Typer escapes brackets wherever rich is installed, whatever is asked for below.
typer.core.HAS_RICH = False
app = typer.Typer(
    name="wardround",
    help="Federated learning for medical imaging across hospitals: no image leaves its ward.",
    epilog="Begin with: wardround simulate brain-tissue --out runs/first",
    no_args_is_help=True,
    suggest_commands=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study_app, name="study")
app.add_typer(site_app, name="site")
app.add_typer(server_app, name="server")
app.add_typer(runs_app, name="runs")
app.add_typer(sites_app, name="sites")
study_app.command()(submit)
study_app.command()(canary)
study_app.command()(plan)
study_app.command("continue")(continue_study)
runs_app.command("track")(track_server_run)
runs_app.command()(promote)
runs_app.command()(rollback)
runs_app.command()(promoted)
add_withdrawal_commands(runs_app)
add_service_commands(server_app)
add_backup_commands(server_app)
add_commands(app)
app.command()(predict)
app.command()(bundle_wheels)
app.command()(completion)
app.add_typer(model_app, name="model")

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_NO_RIGHT = {errno.EACCES, errno.EPERM}
# What a name that a person typed, or a link that somebody made, leads to.
_NO_PLACE = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"wardround {wardround.__version__}\n")
        raise typer.Exit


def _find_study(text: str) -> "Study":
    from wardround.simulations.studies import find_study

    return find_study(text)


@app.callback()
def _front_door(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Federated learning for medical imaging across hospitals: no image leaves its ward."""
    context.obj = _find_study  # 'wardround study' is common ground and knows no simulation


def main() -> None:
    """Run the command line; a refusal is one paragraph and an exit code, never a traceback."""
    # The imports of a command make a million objects that all stay; looking for garbage among them
    # every 700 takes a tenth of its start-up.
    gc.set_threshold(50_000, 20, 20)
    name_nameless_account()
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"  # no escape code at all, not only no colour
    try:
        command = typer.main.get_command(app)
        if ASKED in os.environ and answer_shell(command):
            sys.exit(0)
        with ended_like_ctrl_c():
            code = run_command(refuse_empty_paths(command))
        sys.exit(code)
    except WardroundError as error:
        sys.exit(say_refusal(str(error), error.exit_code))
    except KeyboardInterrupt:
        sys.exit(say_refusal("stopped.", 130))
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if os.environ.get("WARDROUND_TRACEBACK"):
            raise
        sys.exit(_explain(error))
    finally:
        # The process ends, and its memory with it: the interpreter would look through every object
        # for garbage several times more, which takes half a second after a run.
        gc.freeze()


def _explain(error: Exception) -> int:
    """Say what went wrong without the error's own text, which may name a patient's file."""
    if is_ctrl_c(error):
        return say_refusal("stopped.", 130)
    code = getattr(error, "errno", None)
    if code in _NO_RIGHT:
        return say_refusal(
            f"cannot read or write a file ({os.strerror(code)}). Use the account that the folder "
            "belongs to (ls -ld FOLDER), or choose another folder.",
            3,
        )
    if code in _NO_PLACE:
        return say_refusal(
            f"a name leads to no file or folder that can be used ({os.strerror(code)}). Look at "
            "the names that were given, and at the links in the folders.",
            2,
        )
    if code in _FULL_DISK:
        return say_refusal(
            f"cannot write ({os.strerror(code)}). Make room or choose another folder; "
            "a run that had begun goes on with 'wardround simulate --resume FOLDER'.",
            3,
        )
    return say_refusal(
        f"{describe_defect(error)}. "
        "Run it again with WARDROUND_TRACEBACK=1 and report what it prints.",
        1,
    )


if __name__ == "__main__":
    main()
