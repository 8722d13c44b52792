"""What may leave this machine, by what it is: the person's settings as a policy for each class.

Promises: pure; a class that nobody has named is denied; what looks like a secret is denied
whatever the settings say.
Refuses to know: how a prompt is composed, where it goes, how names are replaced (``redact.py``).

The classes: ``question``, ``history`` (turns that were answered at home), ``sent`` (turns that went
to a remote model before), ``files``, ``memory``, ``summary``, ``recalled`` and ``recalled:SOURCE``,
``sensitive`` (health, politics and the like, see ``sensitive.py``: never, whatever is allowed),
``secret`` (the question holds a password, a key, a card's number: see ``redact.secrets_in``),
``system`` (our own instructions). A model on this machine is asked no permission at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from knowme.settings import PrivacySettings, Settings

ALLOW, PLACEHOLDERS, DENY = "allow", "placeholders", "deny"
CLASSES = ("question", "history", "recalled", "files", "memory", "summary")

_WORDS = {
    "question": "your question",
    "history": "earlier turns that were answered here",
    "recalled": "what is recalled from memory",
    "files": "workspace files",
    "memory": "your profile",
    "summary": "summaries of earlier turns",
}
_NOBODY = frozenset({"assistant", "user", "system", "tool", "you", "me", "i", "document", "knowme"})


@dataclass(frozen=True, slots=True)
class Leave:
    """Class -> allow, placeholders or deny, for a model that is not of this machine."""

    classes: Mapping[str, str] = field(default_factory=dict)

    def policy(self, cls: str) -> str:
        """Return what the settings say of a class; ``recalled:openclaw`` falls to ``recalled``."""
        if cls in ("secret", "sensitive"):
            return DENY
        if cls == "system":
            return ALLOW
        if cls == "sent":
            return self._again()
        if cls == "recalled":
            return self._closest()
        found = self.classes.get(cls)
        if found is None and ":" in cls:
            found = self.classes.get(cls.partition(":")[0])
        return found or DENY

    def _again(self) -> str:
        """Turns that went before go as questions do.

        But an answer to a prompt with placeholders is kept with the names put back, so as soon as
        any class wants placeholders these want them too.
        """
        asked = self.policy("question")
        if asked == ALLOW and PLACEHOLDERS in self.classes.values():
            return PLACEHOLDERS
        return asked

    def _closest(self) -> str:
        """Of what was recalled nobody knows where: as if it were of the source kept closest."""
        recalled = {
            policy for cls, policy in self.classes.items() if cls.partition(":")[0] == "recalled"
        }
        found = next((each for each in (DENY, PLACEHOLDERS) if each in recalled), ALLOW)
        return found if "recalled" in self.classes else DENY

    def may(self, cls: str) -> bool:
        """Tell whether the class may leave at all, with its names or without."""
        return self.policy(cls) != DENY

    def hides_names(self, classes: Iterable[str]) -> bool:
        """Tell whether names are replaced in a prompt made of these classes.

        In all of it when one class wants it: a person who is [PERSON_1] in a note and has a name
        in the question is nobody's secret, and two people to the model.
        """
        return any(self.policy(cls) == PLACEHOLDERS for cls in classes)


def leave(settings: PrivacySettings) -> Leave:
    """Return the policy that these settings mean."""
    classes = {name: str(getattr(settings, name)) for name in CLASSES}
    classes.update({f"recalled:{name}": policy for name, policy in settings.sources.items()})
    return Leave(classes)


def needed_names(settings: Settings, speakers: Iterable[str]) -> tuple[str, ...]:
    """Return the names that placeholders stand for: the person's own, those listed, speakers.

    Each once (case does not matter), in this order. ``speakers`` may hold roles and empty names,
    which are nobody's; a single letter is a name only where the person lists it.
    """
    own = [settings.name, *settings.privacy.names]
    heard = [name for name in speakers if len(name.strip()) > 1]
    found: dict[str, str] = {}
    for name in (*own, *(name for name in heard if name.strip().casefold() not in _NOBODY)):
        if name.strip():
            found.setdefault(name.strip().casefold(), name.strip())
    return tuple(found.values())


def describe(leave: Leave) -> str:
    """Return the policy in a few sentences, for `knowme route` and for a person's eye."""
    groups: dict[str, list[str]] = {ALLOW: [], PLACEHOLDERS: [], DENY: []}
    usual = leave.classes.get("recalled", DENY)
    for cls in CLASSES:
        groups[usual if cls == "recalled" else leave.policy(cls)].append(_WORDS[cls])
    for cls, policy in leave.classes.items():
        if cls.startswith("recalled:") and policy != usual:
            groups[policy].append(f"what is recalled from {cls.partition(':')[2]}")
    if leave.policy("question") == DENY:
        return "Nothing may leave this machine: not even your question may."
    told = [
        f"{words} {', '.join(groups[policy])}."
        for policy, words in (
            (ALLOW, "May leave this machine:"),
            (PLACEHOLDERS, "With names replaced:"),
            (DENY, "Never:"),
        )
        if groups[policy]
    ]
    return " ".join([*told, "A question that holds a password, a key or a card number stays here."])
