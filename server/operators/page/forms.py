"""What an operator who may does on a page: buttons of a run, a form for a study, one for a site."""

from html import escape

from wardround.common.runtime.printable import printable
from wardround.server.operators.messages import RunSummary

_STOP = "Stop {run}? It keeps its last commit, from which it can be resumed."


def run_button(run: RunSummary) -> str:
    """Return what can be done with a run as it stands: stop it, or resume it; "" for nothing."""
    if printable(run.run) != run.run:  # no server of ours calls a run so
        return ""
    if run.state in ("stopped", "failed"):
        return _button("resume", "Resume", run.run, "")
    if run.is_over or run.state == "stopping":
        return ""
    return _button("stop", "Stop", run.run, _STOP.format(run=printable(run.run)))


def _button(action: str, word: str, run: str, question: str) -> str:
    name = escape(run)
    asked = f' data-confirm="{escape(question)}"' if question else ""
    return (
        f'<form method="post" action="do/{action}" data-action="{action}"{asked}>'
        f'<input type="hidden" name="run" value="{name}">'
        f'<button id="{action}-{name}" aria-label="{word} {escape(printable(run))}">{word}</button>'
        "</form>"
    )


def forms(may_invite: bool) -> str:
    """Return the forms of a page on which an operator may act."""
    return _SUBMIT + (_INVITE if may_invite else _NO_INVITE)


_SUBMIT = """\
<details id="submitting"><summary>Submit a study</summary>
<form method="post" action="do/submit" data-action="submit">
<p class="small">It is checked as by wardround study check, and put in the queue. The
hospitals see it when it is its turn, and approve it or not.</p>
<label for="study-file">The study file (TOML or JSON)</label>
<input type="file" id="study-file" accept=".toml,.json" data-file-into="study-text">
<label for="study-text">Its text</label>
<textarea id="study-text" name="study" required spellcheck="false"></textarea>
<label for="study-sites">For these sites alone, with commas between; empty for all</label>
<input id="study-sites" name="sites" autocomplete="off">
<p><button>Submit</button></p>
</form></details>
"""
_INVITE = """\
<details id="inviting"><summary>Invite a site</summary>
<form method="post" action="do/invite" data-action="invite">
<p class="small">This makes a token with which one site joins, once. It is shown here and
nowhere else: hand it over so that nobody else sees it, not by open mail. An earlier token of the
site is withdrawn.</p>
<label for="invited-site">Name of the site</label>
<input id="invited-site" name="site" required maxlength="64" autocomplete="off">
<label for="invited-hours">For how many hours</label>
<input id="invited-hours" name="hours" type="number" min="1" max="8760" value="72" required>
<p><button>Invite</button></p>
</form></details>
"""
_NO_INVITE = """\
<p class="small">Invitations are made on the server's own machine:
<code>wardround server invite SITE</code></p>
"""
