"""What OpenClaw put around a person's words, taken off again. Pure functions on text.

Promises: only what matches a known pattern whole is taken off; a text that holds none of them comes
back as it was, the person's own brackets included. What a wrapper said goes to ``meta``.
Refuses to know: files, trees, who the owner is.

The three generations (see the source ``openclaw``):

* an envelope, ``[Telegram Ana id:7 +5m 2026-02-07 21:06 GMT-3] text`` with a last line
  ``[message_id: 237]``, inside wrappers for replies, quotes, forwards, history and media;
* titled JSON blocks before (sometimes after) the text, ``Sender (untrusted metadata):``;
* the same blocks with titles that end with the marker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

MARKER = "⟦openclaw:ctx⟧"
MAX_QUOTED_CHARS = 2000
MAX_BLOCKS = 64
MAX_LINE_CHARS = 500

# The channels of OpenClaw's own envelopes; a bracket that names none of them is the person's.
CHANNELS = (
    "Zalo Personal", "Google Chat", "Microsoft Teams", "Nextcloud Talk", "Synology Chat",
    "WebChat", "WhatsApp", "Telegram", "Signal", "Slack", "Discord", "iMessage", "Teams",
    "MSTeams", "Matrix", "Zalo", "BlueBubbles", "LINE", "Feishu", "Lark", "Mattermost", "Nostr",
    "IRC", "Twitch", "Tlon", "Channel",
)  # fmt: skip

_TZ = (
    r"(?:Z|(?:GMT|UTC)(?:[+-]\d{1,2}(?::?\d{2})?)?|[+-]\d{2}:?\d{2}|[A-Z]{2,5}"
    r"|[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z_+-]*\d*)+)"
)
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_STAMP = (
    rf"(?:{_DAY} )?(?P<date>\d{{4}}-\d{{2}}-\d{{2}})[ T](?P<time>\d{{2}}:\d{{2}}(?::\d{{2}})?)"
    rf"(?:\.\d{{1,6}})?(?: ?(?P<tz>{_TZ}))?"
)
_END_STAMP = re.compile(rf"(?:^| ){_STAMP}$")
_NAMED = "|".join(re.escape(name) for name in CHANNELS)
_DATED_HEADER = re.compile(rf"\[(?P<channel>{_NAMED})(?P<rest>(?: [^\n]{{1,400}}?)? {_STAMP})\] ?")
_PLAIN_HEADER = re.compile(rf"\[(?P<channel>{_NAMED})(?P<rest> [^\]\n]{{1,400}})\] ?")
_ELAPSED = re.compile(r"(?:^| )\+\d+[smhd](?= |$)")
_IDENTITY = re.compile(r"^(?P<name>.*?) ?\b(?:user )?id:(?P<id>\S+)$")
_GROUP = re.compile(
    r"(?:^| )(?:channel|group|room|thread|space) id:"
    r"|id:(?:-\d|(?:group|channel|chat|room|thread)[:_])|@g\.us\b|@thread\b"
    r"|(?:^| )#\S|^(?:Guild|Group|Room|Channel)\b|\btopic:\d"
)
_LONE_STAMP = re.compile(rf"\[(?:{_DAY} {_STAMP}|\d{{4}}-\d{{2}}-\d{{2}}T\d{{2}}:\d{{2}}Z)\] *")
_SENDER = re.compile(r"(?P<who>[^\n:\[\]]{1,80}): ")
_MESSAGE_ID = re.compile(
    r"\[(?:message_id|(?:slack|discord|telegram|signal|whatsapp|imessage|google ?chat|msteams"
    r"|matrix|zalo|line|bluebubbles) message id): (?P<id>[^\]\n]+)\]"
)
_FROM_LINE = re.compile(r"\[from: (?P<who>[^\]\n]+)\]")
_FORWARDED = re.compile(r"\[Forwarded from (?P<who>[^\n]+?)(?: at (?P<at>\d{4}-[^\]\s]+))?\]\n")
_PHONE_OR_ID = re.compile(r"^\+?[\d ().-]{5,}$|^\d+@\S+$")

_QUOTE = re.compile(r"^\[(?P<kind>Replying to|Quoting) (?P<who>[^\n\]]*)\]", re.M)
_QUOTE_ENDS = {"Replying to": "[/Replying]", "Quoting": "[/Quoting]"}

_HISTORY = re.compile(
    r"\A\[Chat messages since your last reply - for context\]\n.*?\n"
    r"\[Current message - respond to this\]\n",
    re.DOTALL,
)
_CONTEXT = re.compile(r"\A\[(?:Replied message|Thread starter|Thread history) - for context\]\n")
_MEDIA = re.compile(r"\A\[media attached(?: \d+/\d+)?: (?P<what>[^\n]+)\][ \t]*(?:\n|\Z)")
_MEDIA_HINT = re.compile(
    r"\ATo send an image back, [^\n]*Keep caption in the text body\.[ \t]*(?:\n|\Z)"
)
_DELIVERY = re.compile(r"\ADelivery: [^\n]*`message` tool[^\n]*(?:\n+|\Z)")
_SYSTEM_LINES = re.compile(r"\A(?:System(?: \(untrusted\))?: [^\n]*(?:\n|\Z))+\n*")
_IS_SYSTEM = re.compile(r"\ASystem(?: \(untrusted\))?:")
_QUEUED = re.compile(r"\A\[Queued messages while agent was busy\]\s*\n(?=---\n)")
_QUEUED_ITEM = re.compile(r"(?:\A|\n+)---\nQueued #\d+[^\n]*\n")

_TITLE = (
    r"(?P<title>[^\n`]{1,100}?)"
    rf"(?: \(untrusted(?: metadata|, [^()\n]{{1,60}})\):|: ?{re.escape(MARKER)})"
)
_BLOCK = re.compile(
    rf"\A{_TITLE}[ \t]*\n```json\n(?P<json>.*?)\n?^```[ \t]*(?:\n+|\Z)", re.S | re.M
)
_LAST_BLOCK = re.compile(
    rf"(?:\A|\n){_TITLE}[ \t]*\n```json\n(?P<json>(?:(?!^```).)*?)\n?^```\s*\Z", re.S | re.M
)
# Without a fence a block runs to the next blank line; only these titles are written that way.
_PROSE = re.compile(
    r"\A(?:[^\n`]{1,100} \(untrusted, chronological[^()\n]*\):"
    r"|Chat history since last reply \(untrusted, for context\):"
    rf"|[^\n`]{{1,100}}: ?{re.escape(MARKER)})[ \t]*\n(?!```)(?:[^\n]+\n)*[^\n]*(?:\n+|\Z)"
)
_UNTRUSTED_TAIL = re.compile(
    rf"^(?:Untrusted context \(metadata, [^()\n]*\):|Context: {re.escape(MARKER)})[ \t]*\n.*\Z",
    re.S | re.M,
)
_ACTIVE_MEMORY = re.compile(
    rf"(?:^(?:Untrusted context \(metadata, [^()\n]*\)|Context):(?: {re.escape(MARKER)})?[ \t]*\n)?"
    r"^<active_memory_plugin>[ \t]*$.*?^</active_memory_plugin>[ \t]*(?:\n+|\Z)",
    re.S | re.M,
)
_INTERNAL = re.compile(
    r"^<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>[ \t]*$"
    r"(?:(?!^<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>[ \t]*$).)*?"
    r"^<<<END_OPENCLAW_INTERNAL_CONTEXT>>>[ \t]*$",
    re.S | re.M,
)
_HEARTBEATS = (
    "Read HEARTBEAT.md if it exists",
    "[OpenClaw heartbeat poll]",
    "Run the following periodic tasks (only those due based on their intervals):",
)
_HEARTBEAT_ASK = re.compile(r"\breply (?:with )?HEARTBEAT_OK(?: only)?\.?\s*\Z")
_CRON = re.compile(r"\A\[cron:[0-9a-fA-F-]{8,}[^\]\n]*\] ")
_ACKNOWLEDGED = re.compile(r"\A\W*(?:HEARTBEAT_OK|NO_REPLY)\b|\b(?:HEARTBEAT_OK|NO_REPLY)\W*\Z")
MAX_ACKNOWLEDGEMENT_CHARS = 300

_OFFSETS = {
    "Z": 0, "GMT": 0, "UTC": 0, "WET": 0, "WEST": 60, "BST": 60, "CET": 60, "CEST": 120,
    "EET": 120, "EEST": 180, "MSK": 180, "IST": 330, "JST": 540, "KST": 540, "AEST": 600,
    "AEDT": 660, "NZST": 720, "NZDT": 780, "BRT": -180, "ART": -180, "EST": -300, "EDT": -240,
    "CST": -360, "CDT": -300, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420, "AKST": -540,
    "AKDT": -480, "HST": -600,
}  # fmt: skip


@dataclass(slots=True)
class Stripped:
    """The person's words, and what the wrapping said.

    ``kind`` is ``said``, or ``system``, ``heartbeat`` or ``cron`` for what no person wrote.
    ``speaker`` is the sender's name where a wrapper names one; ``at_ms`` the envelope's time.
    ``group`` is True, False, or None where nothing tells.
    """

    text: str
    speaker: str = ""
    at_ms: int | None = None
    kind: str = "said"
    group: bool | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    enveloped: bool = False


def strip(text: str, group: bool | None = None) -> Stripped:
    """Take OpenClaw's wrapping off one user message. ``group`` is what is known from elsewhere."""
    out = Stripped(text, group=group)
    if _QUEUED.match(text):
        return _strip_queued(out)
    if _may_be_wrapped(text):
        _unwrap(out)
    if _IS_SYSTEM.match(out.text) and not out.enveloped:
        out.kind = "system"
    elif is_heartbeat(out.text):
        out.kind = "heartbeat"
    elif _CRON.match(out.text):
        out.kind = "cron"
    return out


def is_heartbeat(text: str) -> bool:
    """Tell whether a text is OpenClaw's periodic prompt, the usual one or one like it."""
    return text.startswith(_HEARTBEATS) or bool(
        "HEARTBEAT_OK" in text and _HEARTBEAT_ASK.search(text)
    )


def is_acknowledgement(text: str) -> bool:
    """Tell whether an answer only says that there is nothing to say."""
    return len(text) <= MAX_ACKNOWLEDGEMENT_CHARS and bool(_ACKNOWLEDGED.search(text))


def _may_be_wrapped(text: str) -> bool:
    # Most messages of the newest generation are plain; this spares them twenty patterns.
    return "[" in text or "untrusted" in text or MARKER in text or "<" in text or "`" in text


def _strip_queued(out: Stripped) -> Stripped:
    parts = _QUEUED_ITEM.split(_QUEUED.sub("", out.text, count=1))
    items = [strip(part, out.group) for part in parts if part.strip()]
    said = [item for item in items if item.kind == "said"]
    if not said:
        return Stripped(out.text, kind=items[0].kind if items else "system", group=out.group)
    first = said[0]
    first.text = "\n\n".join(item.text for item in said)
    return first


def _unwrap(out: Stripped) -> None:
    before = out.text
    out.text = _without(_ACTIVE_MEMORY, "<active_memory_plugin>", out.text)
    if "ontext" in out.text:
        out.text = _UNTRUSTED_TAIL.sub("", out.text)
    out.text = _without(_INTERNAL, "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>", out.text)
    _strip_leading(out)
    _strip_trailing(out)
    _strip_envelope(out)
    if out.text != before:
        out.text = out.text.strip()


def _without(pattern: re.Pattern[str], opening: str, text: str) -> str:
    """Remove whole blocks, innermost first; a blank line stays between words around them."""
    count = text.count(opening)
    # Blocks are few; a text that is full of openings is an attack on the pattern.
    for _ in range(count if count <= MAX_BLOCKS else 0):
        match = pattern.search(text)
        if match is None:
            break
        head, tail = text[: match.start()].rstrip(), text[match.end() :].lstrip()
        text = f"{head}\n\n{tail}" if head and tail else head + tail
    return text


def _strip_leading(out: Stripped) -> None:
    while True:
        for step in _LEADING:
            rest = step(out, out.text)
            if rest is not None:
                out.text = rest
                break
        else:
            return


def _leading_block(out: Stripped, text: str) -> str | None:
    if match := _BLOCK.match(text):
        _take_block(out, match["title"], match["json"])
        return text[match.end() :]
    if match := _PROSE.match(text):
        return text[match.end() :]
    return None


def _leading_stamp(out: Stripped, text: str) -> str | None:
    match = _LONE_STAMP.match(text)
    if match is None:
        return None
    out.at_ms = out.at_ms or parse_stamp(text[1 : match.end()].rstrip(" ]"))
    return text[match.end() :]


def _leading_media(out: Stripped, text: str) -> str | None:
    if match := _MEDIA.match(text):
        out.meta.setdefault("media", []).append(match["what"])
        return text[match.end() :]
    if out.meta.get("media") and (match := _MEDIA_HINT.match(text)):
        return text[match.end() :]
    if match := _DELIVERY.match(text):
        return text[match.end() :]
    return None


def _leading_history(out: Stripped, text: str) -> str | None:
    if match := _HISTORY.match(text):
        out.group = True if out.group is None else out.group
        return text[match.end() :]
    if match := _CONTEXT.match(text):
        # The quoted message ends where the next wrapper begins; without one it is not ours to cut.
        at = text.find("\n\n[", match.end())
        while at >= 0:
            rest = text[at + 2 :]
            if (
                header(rest)
                or _HISTORY.match(rest)
                or _CONTEXT.match(rest)
                or _LONE_STAMP.match(rest)
            ):
                _quote(out, "", text[match.end() : at])
                return rest
            at = text.find("\n\n[", at + 1)
    return None


def _leading_system(out: Stripped, text: str) -> str | None:
    match = _SYSTEM_LINES.match(text)
    if match is None or match.end() >= len(text):
        return None
    rest = text[match.end() :]
    return rest if _begins_wrapper(rest) else None


def _begins_wrapper(text: str) -> bool:
    patterns = (_HISTORY, _CONTEXT, _LONE_STAMP, _BLOCK, _MEDIA)
    return bool(header(text)) or any(pattern.match(text) for pattern in patterns)


_LEADING: tuple[Callable[[Stripped, str], str | None], ...] = (
    _leading_block,
    _leading_media,
    _leading_stamp,
    _leading_history,
    _leading_system,
)


def _strip_trailing(out: Stripped) -> None:
    while (match := _LAST_BLOCK.search(out.text)) is not None:
        _take_block(out, match["title"], match["json"])
        out.text = out.text[: match.start()].rstrip("\n")
    line, above = _last_line(out.text)
    if match := _MESSAGE_ID.fullmatch(line):
        out.meta["message_id"] = match["id"]
        out.text = above
        line, above = _last_line(above)
    if (match := _FROM_LINE.fullmatch(line)) and above:
        out.speaker = _set_sender(out, match["who"])
        out.text = above


def _last_line(text: str) -> tuple[str, str]:
    """Return the last line, "" if it is too long to be ours, and what stands above it."""
    stop = len(text.rstrip())
    start = text.rfind("\n", 0, stop) + 1
    line = text[start:stop] if stop - start <= MAX_LINE_CHARS else ""
    return line, text[: max(0, start - 1)]


def _strip_quotes(out: Stripped) -> None:
    """Take off ``[Replying to X id:N] ... [/Replying]`` at either end of the text."""
    for _ in range(MAX_BLOCKS):
        match = _QUOTE.search(out.text)
        end = _QUOTE_ENDS[match["kind"]] if match else ""
        if match is None:
            return
        whole = out.text.rstrip()
        if whole.endswith(end):
            stop = len(whole)
        elif match.start() == 0 and (at := out.text.find(end)) >= 0:
            stop = at + len(end)
        else:
            return
        body = out.text[match.end() : stop - len(end)].strip()
        if match["kind"] == "Quoting":
            body = body.removeprefix('"').removesuffix('"')
        _quote(out, match["who"], body)
        out.text = out.text[: match.start()].rstrip("\n") + out.text[stop:].lstrip("\n")


def _quote(out: Stripped, who: str, said: str) -> None:
    name = split_identity(who)[0]
    out.meta.setdefault("quoted", []).append({"from": name, "text": said[:MAX_QUOTED_CHARS]})


def header(text: str) -> re.Match[str] | None:
    """Match an envelope's header: a channel, and a time, an id or an elapsed time."""
    if match := _DATED_HEADER.match(text):
        return match
    match = _PLAIN_HEADER.match(text)
    if match and (_ELAPSED.search(match["rest"]) or re.search(r"\bid:\S", match["rest"])):
        return match
    return None


def _strip_envelope(out: Stripped) -> None:
    match = header(out.text)
    if match is not None:
        out.enveloped = True
        out.meta["channel"] = match["channel"]
        _take_header(out, match["rest"].strip())
        out.text = out.text[match.end() :]
        if out.group and (prefix := _SENDER.match(out.text)):
            out.speaker = _set_sender(out, prefix["who"])
            out.text = out.text[prefix.end() :]
    _strip_quotes(out)
    forward = _FORWARDED.match(out.text)
    if forward and (out.enveloped or forward["at"]):
        out.meta["forwarded_from"] = split_identity(forward["who"])[0]
        out.text = out.text[forward.end() :]


def _take_header(out: Stripped, rest: str) -> None:
    """Read ``from +elapsed host ip time``; each part may be missing."""
    if stamp := _END_STAMP.search(rest):
        out.at_ms = parse_stamp(stamp[0].strip())
        rest = rest[: stamp.start()]
    elapsed = _ELAPSED.search(rest)
    label = (rest[: elapsed.start()] if elapsed else rest).strip()
    if out.group is None and label:
        out.group = bool(_GROUP.search(label))
    if not label:
        return
    if out.group:
        out.meta["group"] = label
    else:
        out.speaker = _set_sender(out, label)


def _set_sender(out: Stripped, label: str) -> str:
    name, identity = split_identity(label)
    if _PHONE_OR_ID.match(name):
        name, identity = "", identity or name
    if identity:
        out.meta["sender_id"] = identity
    return name


def split_identity(label: str) -> tuple[str, str]:
    """``Ana Silva id:76`` -> (``Ana Silva``, ``76``); ``Ana (+351...)`` likewise."""
    label = label.strip()
    if match := _IDENTITY.match(label):
        return match["name"].strip(), match["id"]
    if match := re.match(r"^(?P<name>.+?) \((?P<id>[^()]+)\)$", label):
        return match["name"], match["id"]
    return label, ""


def _take_block(out: Stripped, title: str, body: str) -> None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    value = _mended(value)
    title = title.lower()
    if title.startswith("sender") and isinstance(value, dict):
        _take_sender(out, value)
    elif title.startswith("conversation info") and isinstance(value, dict):
        _take_conversation(out, value)
    elif title.startswith(("repl", "thread starter")):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and isinstance(item.get("body"), str):
                _quote(out, _first(item, "sender_label", "sender"), item["body"])
    elif title.startswith("forwarded") and isinstance(value, dict):
        out.meta["forwarded_from"] = _first(value, "from", "title", "username") or "someone"
    elif title.startswith("location") and isinstance(value, dict):
        out.meta["location"] = value


def _take_sender(out: Stripped, value: dict[str, Any]) -> None:
    name = _first(value, "name", "label", "username", "tag")
    out.speaker = _set_sender(out, name) if name else out.speaker
    if identity := _first(value, "id", "e164"):
        out.meta["sender_id"] = identity


def _take_conversation(out: Stripped, value: dict[str, Any]) -> None:
    sender = value.get("sender")
    name = _first(sender, "name", "username") if isinstance(sender, dict) else sender
    if isinstance(name, str) and name and not out.speaker:
        out.speaker = _set_sender(out, name)
    for key, into in (
        ("sender_id", "sender_id"),
        ("message_id", "message_id"),
        ("channel", "channel"),
    ):
        if isinstance(value.get(key), str | int):
            out.meta.setdefault(into, str(value[key]))
    if isinstance(value.get("timestamp"), str):
        out.at_ms = out.at_ms or parse_stamp(value["timestamp"])
    label = _first(value, "group_subject", "conversation_label", "group_channel", "thread_label")
    if value.get("is_group_chat") is True:
        out.group = True
        if label:
            out.meta["group"] = label
    elif out.group is None:
        out.group = False


def _first(value: dict[str, Any], *keys: str) -> str:
    for key in keys:
        found = value.get(key)
        if isinstance(found, str | int) and not isinstance(found, bool) and str(found).strip():
            return str(found).strip()
    return ""


def _mended(value: Any) -> Any:
    """Undo how fences inside values are broken, with U+200B."""
    if isinstance(value, str):
        return value.replace("`\u200b``", "```")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {key: _mended(item) for key, item in value.items()}
    return value


def parse_stamp(text: str) -> int | None:
    """Return milliseconds from ``Fri 2026-02-13 21:06:08 GMT+5:30``; None for an unknown zone."""
    match = re.fullmatch(_STAMP, text.strip())
    if match is None:
        return None
    minutes = _zone_minutes(match["tz"] or "", match["date"], match["time"])
    if minutes is None:
        return None
    try:
        when = datetime.fromisoformat(f"{match['date']}T{match['time']}").replace(tzinfo=UTC)
        return int((when - timedelta(minutes=minutes)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _zone_minutes(zone: str, date: str, time: str) -> int | None:
    if zone in _OFFSETS:
        return _OFFSETS[zone]
    if match := re.fullmatch(r"(?:GMT|UTC)?([+-])(\d{1,2})(?::?(\d{2}))?", zone):
        minutes = int(match[2]) * 60 + int(match[3] or 0)
        return -minutes if match[1] == "-" else minutes
    if "/" in zone:
        return _named_zone_minutes(zone, date, time)
    return None


def _named_zone_minutes(zone: str, date: str, time: str) -> int | None:
    from zoneinfo import ZoneInfo  # rare, and slow to import

    try:
        offset = datetime.fromisoformat(f"{date}T{time}").replace(tzinfo=ZoneInfo(zone)).utcoffset()
    except (KeyError, ValueError, OSError):
        return None
    return None if offset is None else int(offset.total_seconds() // 60)
