"""A strict server of Anthropic's Message Batches API: what it does not know it refuses.

Batches stay in progress until ``end`` is called. ``answers`` makes the answer of one request's
params: a dict (the tool's input), a text, or an outcome ("errored", "canceled", "expired").
"""

import json
import re
import threading
from contextlib import contextmanager

from contracts import servers

KEY = "sk-ant-api03-test-Zx81Qv"
_PARAMS = {
    "model": str, "max_tokens": int, "messages": list, "system": (str, list),
    "temperature": (int, float), "top_p": (int, float), "top_k": int, "stop_sequences": list,
    "tools": list, "tool_choice": dict, "metadata": dict, "thinking": dict, "service_tier": str,
}  # fmt: skip
_STAMP = "2026-11-21T10:00:00.000000Z"


class Refused(Exception):
    def __init__(self, status, kind, text):
        self.status, self.kind, self.text = status, kind, text


class Api:
    """Keeps what it was asked: ``created`` are the bodies of POSTs, ``gets`` the paths of GETs.

    ``faults`` maps (method, kind of path: create, list, get, results) to a list of faults, taken in
    turn: ("status", number, headers), "cut" (before anything is done), "late" (it is done, and the
    connection is cut), "html".
    """

    def __init__(self, answers=None):
        self.answers = answers or (lambda params: {"pairs": []})
        self.batches, self.created, self.gets, self.faults = {}, [], [], {}
        self.lock = threading.Lock()

    def __call__(self, call):
        method, path = call.command, call.path
        try:
            self._check_headers(call)
            route, found = self._route(method, path)
            fault = self._fault(method, route)
            if isinstance(fault, tuple):
                kinds = {401: "authentication_error", 429: "rate_limit_error"}
                kind = kinds.get(fault[1], "overloaded_error" if fault[1] == 529 else "api_error")
                return self._error(call, fault[1], kind, "scripted", fault[2])
            if fault == "cut":
                return call.cut()
            if fault == "html":
                return call.reply(200, "<html>a proxy's page</html>")
            if method == "GET":
                self.gets.append(path)
            told = getattr(self, f"_{route}")(call, *found)
            if fault == "late":
                return call.cut()
            if isinstance(told, str):
                return call.reply(200, told, {"Content-Type": "application/x-jsonl"})
            return call.reply(200, told)
        except Refused as error:
            return self._error(call, error.status, error.kind, error.text)

    def end(self):
        for batch in self.batches.values():
            batch["ended"] = True

    def _fault(self, method, route):
        with self.lock:
            waiting = self.faults.get((method, route), [])
            return waiting.pop(0) if waiting else None

    @staticmethod
    def _error(call, status, kind, text, headers=None):
        body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}
        call.reply(status, body, headers)

    @staticmethod
    def _check_headers(call):
        if call.headers.get("x-api-key") != KEY or call.headers.get("authorization"):
            raise Refused(401, "authentication_error", "invalid x-api-key")
        if call.headers.get("anthropic-version") != "2023-06-01":
            raise Refused(400, "invalid_request_error", "anthropic-version: header is required")
        if KEY in call.path:
            raise Refused(400, "invalid_request_error", "a key in a path")

    @staticmethod
    def _route(method, path):
        bare = path.partition("?")[0]
        if bare == "/v1/messages/batches":
            return ("create", ()) if method == "POST" else ("list", ())
        match = re.fullmatch(r"/v1/messages/batches/(msgbatch_\w+)(/results)?", bare)
        if method != "GET" or match is None:
            raise Refused(404, "not_found_error", "no such path")
        return ("results" if match[2] else "get", (match[1],))

    def _create(self, call):
        body = call.json
        if not isinstance(body, dict) or set(body) != {"requests"}:
            raise Refused(400, "invalid_request_error", "requests: Field required")
        names = set()
        if not 0 < len(body["requests"]) <= 100_000:
            raise Refused(400, "invalid_request_error", "requests: 1 to 100000")
        for each in body["requests"]:
            if set(each) != {"custom_id", "params"}:
                raise Refused(400, "invalid_request_error", "requests: custom_id and params")
            name = each["custom_id"]
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) or name in names:
                raise Refused(400, "invalid_request_error", f"custom_id {name!r}")
            names.add(name)
            self._check_params(each["params"])
        with self.lock:
            number = f"msgbatch_{len(self.created):024d}"
            self.created.append(body)
            self.batches[number] = {"requests": body["requests"], "ended": False}
        return self._told(number)

    @staticmethod
    def _check_params(params):
        for name, value in params.items():
            if name not in _PARAMS or not isinstance(value, _PARAMS[name]):
                raise Refused(400, "invalid_request_error", f"{name}: Extra inputs not permitted")
        if not {"model", "max_tokens", "messages"} <= set(params) or params["max_tokens"] < 1:
            raise Refused(400, "invalid_request_error", "model, max_tokens, messages are required")
        if not params["messages"] or params["messages"][0]["role"] != "user":
            raise Refused(400, "invalid_request_error", "messages: first role must be user")
        for said in params["messages"]:
            if set(said) != {"role", "content"} or said["role"] not in ("user", "assistant"):
                raise Refused(400, "invalid_request_error", "messages: role and content")
        for tool in params.get("tools", ()):
            if (
                not {"name", "input_schema"} <= set(tool)
                or tool["input_schema"]["type"] != "object"
            ):
                raise Refused(400, "invalid_request_error", "tools")
        choice = params.get("tool_choice")
        if choice and choice.get("name") not in {tool["name"] for tool in params.get("tools", ())}:
            raise Refused(400, "invalid_request_error", "tool_choice")

    def _told(self, number):
        batch = self.batches[number]
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if batch["ended"]:
            for line in self._lines(number):
                counts[line["result"]["type"]] += 1
        else:
            counts["processing"] = len(batch["requests"])
        where = f"https://api.anthropic.com/v1/messages/batches/{number}/results"
        return {
            "id": number, "type": "message_batch", "request_counts": counts,
            "processing_status": "ended" if batch["ended"] else "in_progress",
            "ended_at": _STAMP if batch["ended"] else None, "created_at": _STAMP,
            "expires_at": _STAMP, "archived_at": None, "cancel_initiated_at": None,
            "results_url": where if batch["ended"] else None,
        }  # fmt: skip

    def _list(self, call):
        asked = dict(re.findall(r"[?&](\w+)=([^&]*)", call.path))
        limit = int(asked.pop("limit", 20))
        after = asked.pop("after_id", "")
        if asked or not 1 <= limit <= 1000:
            raise Refused(400, "invalid_request_error", "limit")
        names = list(reversed(self.batches))
        names = names[names.index(after) + 1 :] if after else names
        page = [self._told(number) for number in names[:limit]]
        return {
            "data": page, "has_more": len(names) > limit,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }  # fmt: skip

    def _get(self, call, number):
        if number not in self.batches:
            raise Refused(404, "not_found_error", "no such batch")
        return self._told(number)

    def _results(self, call, number):
        if not self.batches.get(number, {}).get("ended"):
            raise Refused(404, "not_found_error", "no results yet")
        lines = self._lines(number)
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in reversed(lines))

    def _lines(self, number):
        made = []
        for each in self.batches[number]["requests"]:
            told = self.answers(each["params"])
            if told in ("canceled", "expired"):
                result = {"type": told}
            elif told == "errored":
                inner = {"type": "invalid_request_error", "message": "too long"}
                result = {"type": told, "error": {"type": "error", "error": inner}}
            else:
                block = {"type": "text", "text": told}
                if isinstance(told, dict):
                    name = each["params"]["tools"][0]["name"]
                    block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": told}
                message = {
                    "id": "msg_1", "type": "message", "role": "assistant", "content": [block],
                    "model": each["params"]["model"], "stop_reason": "tool_use",
                    "stop_sequence": None, "usage": {"input_tokens": 1000, "output_tokens": 200},
                }  # fmt: skip
                result = {"type": "succeeded", "message": message}
            made.append({"custom_id": each["custom_id"], "result": result})
        return made


@contextmanager
def serving(answers=None):
    """Serve on loopback; gives the Api with its ``url``."""
    api = Api(answers)
    with servers.serving(api) as server:
        api.url = server.url
        yield api
