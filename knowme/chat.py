"""A conversation in the terminal.

Promises: answers stream; Ctrl-C stops the answer, which is kept as far as it went, and never the
conversation; Ctrl-D or /quit leaves; the lines typed are kept in the home, readable by its owner
only; without a terminal it reads lines from stdin and does the same.
Refuses to know: how an answer comes about.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import console, daemon
from knowme.commands.recall import answer, answerer, print_hits, print_receipt, told_why
from knowme.console import bold, dim, say
from knowme.errors import KnowmeError

if TYPE_CHECKING:
    from knowme.ask import Done, Started
    from knowme.home import Home
    from knowme.inbox import Doubt

HISTORY = "chat_history"
LISTED = 20
"""Conversations that /list shows."""


@dataclass
class Talk:
    """One conversation and what its commands need."""

    home: Home
    runner: asyncio.Runner
    conversation: str  # "": the next question begins one
    role: str = ""  # that answers everything; "": routed
    started: Started | None = None
    latest: str = ""  # the conversation of the last answer
    number: str = "last"  # of the last answer; "last" where none is known
    doubt: str = ""  # the uid of what was asked to be settled
    over: bool = False

    def ask(self, question: str, again: str = "") -> None:
        """Answer one question; Ctrl-C stops this answer only."""
        from knowme.ask import Asked

        asked = Asked(
            question, conversation=self.conversation, surface="chat", again=again,
            model="" if again == "retry_cloud" else self.role,
        )  # fmt: skip
        before = self.started
        try:
            started, done = self.runner.run(answer(self.home, asked, on_start=self._begun))
            self.number = str(done.receipt_id)
            self._rests_on(started)
            self._answered_by(started, done)
        except KeyboardInterrupt:
            if self.started is before:
                say()
            console.note(dim("stopped; what was said so far is kept"))
        say()

    def _begun(self, started: Started) -> None:
        self.number = "last"  # of an answer that is stopped no number comes
        self.started = started
        self.conversation = self.latest = started.conversation

    def _rests_on(self, started: Started) -> None:
        from knowme.times import day, zone

        if started.sources:
            tz = zone(self.home.settings.memory.timezone)
            said = [f"{day(hit.at_ms, tz)} {hit.source}" for hit in started.sources]
            named = ", ".join(dict.fromkeys(said))
            say(dim(console.short(f"from {named}", console.width() - 18) + "  (/sources, /why)"))

    def _answered_by(self, started: Started, done: Done) -> None:
        if told := told_why(started, self.home):
            paid = f", {console.money(done.cost)} spent" if done.cost else ""
            say(dim(console.wrap(f"{done.role} ({done.model}{paid}): {told}")))

    def why(self, rest: str) -> None:
        """Why the last answer (or answer N) is as it is."""
        from knowme.ask import why

        print_receipt(why(self.home, rest or self.number))

    def sources(self, rest: str) -> None:
        """What the last answer rests on, in full."""
        from knowme.times import zone

        del rest
        if self.started is None:
            console.note("Nothing was asked yet.")
        elif not self.started.sources:
            console.note("The last answer rests on nothing that is remembered.")
        else:
            print_hits(self.started.sources, zone(self.home.settings.memory.timezone))

    def search(self, rest: str) -> None:
        """Find what was said: /search heating."""
        from knowme.times import zone
        from knowme.types import Query

        settings = self.home.settings
        hits = self.home.search(Query(rest, top_k=min(5, settings.search.top_k)))
        print_hits(hits, zone(settings.memory.timezone))
        if not hits:
            console.note("Nothing was found.")

    def new(self, rest: str) -> None:
        """Begin another conversation: what was said here is no longer in view."""
        del rest
        self.conversation = ""
        self.started = None
        console.note(dim("a new conversation"))

    def model(self, rest: str) -> None:
        """Who answers; /model ROLE: that one from now on; /model auto: routed again."""
        models = self.home.models
        if rest:
            self.role = "" if rest == "auto" else models.find(rest)
        if len(models.roles) == 1:
            say(answerer(self.home.engine.model, self.home.engine.name))
            return
        for state in models.states():
            mark = "*" if state.role == (self.role or models.primary) else " "
            told = f"  {state.down}" if state.down else ""
            say(f"{mark} {state.role}: {answerer(state.model, state.engine)}{told}")
        if len(models.roles) > 1 and not self.role:
            say(dim("routed by what you ask; once only: @ROLE, /local or /cloud before a question"))

    def retry(self, rest: str) -> None:
        """Answer the last question again."""
        del rest
        self.ask("", "regenerate")

    def cloud(self, rest: str) -> None:
        """Ask the cloud: this question, or the last one again."""
        self.ask(f"/cloud {rest}" if rest else "", "" if rest else "retry_cloud")

    def local(self, rest: str) -> None:
        """Ask a model of this machine, whatever the router would say."""
        self.ask(f"/local {rest}") if rest else console.note("Add a question: /local ...")

    def rate(self, rest: str) -> None:
        """What you think of the last answer: 1 to 5, up or down. The router learns from it."""
        from knowme.commands.route import meant
        from knowme.receipts import rate

        _, kind, value = meant([rest], None)
        rate(self.home, self.number, kind, value)
        console.note(dim("noted"))

    def inbox(self, rest: str) -> None:
        """What is doubtful; settle what is asked: /inbox new, old, both or neither."""
        from knowme import inbox, portrait
        from knowme.times import now_ms

        if rest and self.doubt:
            self.home.db.write(
                lambda conn: inbox.answer(conn, self.doubt, rest.strip().lower(), now_ms())
            )
            self.doubt = ""
            if self.home.settings.profile.build:
                portrait.build(self.home)
            console.note(dim("noted; your word wins"))
            return
        with self.home.db.read() as conn:
            doubts = inbox.doubts(conn)
        if not doubts:
            console.note("Nothing is doubtful.")
            return
        self._ask_doubt(doubts[0])
        if len(doubts) > 1:
            console.note(dim(f"{len(doubts) - 1} more: /inbox again, or knowme inbox"))

    def question_of_the_day(self) -> None:
        """Ask what is doubtful: one question a day at most, from facts.question_at on."""
        from datetime import datetime

        from knowme import inbox
        from knowme.times import now_ms, zone

        settings = self.home.settings
        now = datetime.now(zone(settings.memory.timezone))
        at = settings.facts.question_at
        if not at or f"{now:%H:%M}" < at:
            return
        day = now.date().isoformat()
        doubt = self.home.db.write(lambda conn: inbox.question_of_the_day(conn, now_ms(), day=day))
        if doubt is not None:
            console.note(dim("One question for today:"))
            self._ask_doubt(doubt)

    def _ask_doubt(self, doubt: Doubt) -> None:
        self.doubt = doubt.fact.uid
        say(console.wrap(doubt.question, "  "))
        choices = "new, old, both or neither" if doubt.against is not None else "new or neither"
        say(dim(f"  /inbox {choices}"))

    def held(self, rest: str) -> None:
        """The conversations held here, the last first: knowme chat --continue ID goes on."""
        del rest
        from knowme import sessions

        with self.home.db.read() as conn:
            held = sessions.listed(conn, LISTED)
        for each in held:
            used = str(each["last"] or "")[:10]
            told = f"  {used}  {each['id']}  {console.short(each['title'] or '', 50)}"
            say(f"{told}  {dim(console.many(each['turns'], 'turn'))}")
        if not held:
            console.note("None was held yet.")

    def help(self, rest: str) -> None:
        """This list."""
        del rest
        for name, does in COMMANDS.items():
            told = console.wrap(does.__doc__ or "", f"  {'/' + name:<10}", " " * 12)
            say(told.replace(f"/{name}", bold(f"/{name}"), 1))
        say("  Ctrl-C stops an answer, Ctrl-D leaves.")

    def quit(self, rest: str) -> None:
        """Leave."""
        del rest
        self.over = True


COMMANDS: dict[str, Callable[[Talk, str], None]] = {
    "help": Talk.help,
    "why": Talk.why,
    "sources": Talk.sources,
    "search": Talk.search,
    "new": Talk.new,
    "list": Talk.held,
    "model": Talk.model,
    "cloud": Talk.cloud,
    "local": Talk.local,
    "retry": Talk.retry,
    "rate": Talk.rate,
    "inbox": Talk.inbox,
    "quit": Talk.quit,
}


def run(home: Home, conversation: str = "", model: str = "") -> None:
    """Talk until the person leaves. Raises KnowmeError only before the first question."""
    role = model or home.models.primary
    state = home.models.state(role)
    _ = home.rules  # a pattern that is none is refused now, not at the first question
    with daemon.beside(home), asyncio.Runner() as runner:
        talk = Talk(home, runner, conversation, model)
        console.note(dim(f"{answerer(state.model, state.engine)}. /help lists the commands."))
        talk.question_of_the_day()
        for line in _lines(home.path / HISTORY):
            if text := line.strip():
                _do(talk, text)
            if talk.over:
                break
        runner.run(home.models.aclose())
    if talk.latest:
        console.note(dim(f"To go on with this: knowme chat --continue {talk.latest}"))


def _do(talk: Talk, text: str) -> None:
    name, _, rest = text[1:].partition(" ")
    try:
        if not text.startswith("/"):
            talk.ask(text)
        elif does := COMMANDS.get(name.lower()):
            does(talk, rest.strip())
        else:
            console.note(f"There is no /{console.short(name, 40)}. /help lists the commands.")
    except KnowmeError as error:
        console.error(error.message, error.hint)


def _lines(history: Path) -> Iterator[str]:
    """Yield what is typed, until Ctrl-D. Ctrl-C at the prompt clears the line."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in sys.stdin:
            say(f"> {console.clean(line.rstrip())}")
            yield line
        return
    read = _prompt(history)
    while True:
        try:
            yield read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _prompt(history: Path) -> Callable[[], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))
    history.chmod(0o600)
    session: PromptSession[Any] = PromptSession(
        history=FileHistory(str(history)),
        auto_suggest=AutoSuggestFromHistory(),
        completer=WordCompleter([f"/{name}" for name in COMMANDS], sentence=True),
        complete_while_typing=False,
        reserve_space_for_menu=4,
    )
    return lambda: str(session.prompt("> "))
