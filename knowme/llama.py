"""llama.cpp in a process of its own: a worker per model file that may die and comes back.

Promises: the worker speaks llama.cpp's HTTP on a random loopback port with a random key that only
its parent knows; it never outlives its parent, however that one ends; its log never reaches the
terminal. A worker that died is started again by the next request; one that dies twice without
answering is left alone for a while, and `ModelDownError` says so.
Refuses to know: prompts, prefixes and vectors (`engines/llamacpp.py`, `embedders/local.py`).

Why a process: building and deleting a llama.cpp server in one's own process can deadlock, a bad
GGUF can abort it, and its memory comes back only when it ends.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from knowme import wire
from knowme.errors import ModelDownError, ModelError, TooLongError
from knowme.gguf import Header as Header
from knowme.gguf import read_header as read_header

START_SECONDS = 180.0
"""How long a worker may take to load its model."""

_IDLE_SECONDS = 4.0  # llama.cpp closes a connection that was silent for five
_KEEP = 8  # connections kept open
_REST_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # after the second death, the third ...


@dataclass(frozen=True, slots=True)
class Spec:
    """What a worker is started with; equal specs share one worker.

    ``context_tokens`` is the window of one slot, ``batch_tokens`` what is computed at once (an
    embedding model must take a whole text at once), ``idle_seconds`` frees the model's memory
    after that long without a request (0: never; the next request loads it again). With a
    ``prefix_folder`` what the model has read can be written there (``engines/prefix.py``).
    ``adapters`` (GGUF LoRA) are loaded and not applied: a request names those that it wants and how
    strongly, ``"lora": [{"id": 0, "scale": 1.0}]``, by their place.
    """

    path: Path
    embedding: bool = False
    context_tokens: int = 4096
    slots: int = 1
    batch_tokens: int = 512
    threads: int = 0
    memory_mb: int = 0
    idle_seconds: int = 0
    prefix_folder: Path | None = None
    adapters: tuple[Path, ...] = ()


class NoRoomError(ModelError):
    """The model is larger than what is free now; it may fit when another one has left."""


# --- the parent's side ----------------------------------------------------------------------------


class Worker:
    """One worker process and the connections to it. Thread-safe. Get one with `acquire`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._port = 0
        self._key = ""
        self._idle: list[tuple[float, int, http.client.HTTPConnection]] = []
        self._deaths = 0  # since it last answered
        self._rest_until = 0.0
        self._why = "it was closed"
        self._ending = False

    @property
    def pid(self) -> int | None:
        """The process id of the worker, or None when none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def address(self) -> tuple[str, str]:
        """Return the base URL and the key of a worker that runs, starting one if need be.

        Raises ModelDownError when it dies while loading, twice; ModelError for what loading it
        again cannot mend.
        """
        with self._lock:
            self._ensure()
            return f"http://127.0.0.1:{self._port}", self._key

    def call(self, path: str, body: Mapping[str, Any], timeout_seconds: float = 120.0) -> Any:
        """POST ``body`` and return the JSON answer. If the worker dies, start it and try again.

        Raises ModelDownError when it dies again or does not answer in time, ModelError when it
        refuses the request.
        """
        data = json.dumps(body).encode()
        try:
            return self._call_once(path, data, timeout_seconds)
        except _Died as died:
            self._bury(died.port)
        try:
            return self._call_once(path, data, timeout_seconds)
        except _Died as died:
            raise self.down(died.port) from None

    def call_running(self, path: str, body: Mapping[str, Any], timeout_seconds: float) -> Any:
        """POST ``body`` to the worker that runs now. None is started, nothing is tried again.

        Raises ModelDownError, also when none runs, and ModelError when it refuses the request.
        """
        try:
            return self._call_once(path, json.dumps(body).encode(), timeout_seconds, start=False)
        except _Died:
            raise ModelDownError(f"No process runs for {self.spec.path.name}.") from None

    def memory_bytes(self) -> int:
        """Return what its process holds in memory now; 0 when none runs."""
        pid = self.pid
        if pid is None:
            return 0
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        said = _said(["ps", "-o", "rss=", "-p", str(pid)])
        return int(said) << 10 if said.isdigit() else 0

    def answered(self) -> None:
        """Note that the worker did its work: its earlier deaths are forgiven."""
        self._deaths = 0

    def down(self, port: int) -> ModelDownError:
        """Return the error for a worker that went away while it worked; ``port`` was its port."""
        self._bury(port)
        return ModelDownError(
            f"The model's process ended while it worked on {self.spec.path.name}: {self._why}.",
            "Ask again: it is started anew. If it happens again, run: knowme doctor",
        )

    def close(self) -> None:
        """End the process, also one that still loads. A later request starts a new one."""
        self._ending = True
        process = self._process  # whoever waits for it to load holds the lock
        if process is not None:
            with suppress(OSError):
                process.kill()
        with self._lock:
            self._kill()
            self._ending = False

    # --- its life --------------------------------------------------------------------------------

    def _ensure(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._notice_death()
        while True:
            if self._deaths >= 2 and time.monotonic() < self._rest_until:
                raise self._given_up()
            try:
                self._start()
                return
            except _Died:
                if self._ending:
                    told = f"The model {self.spec.path.name} was unloaded while it was loading."
                    raise ModelDownError(told, "Ask again.") from None
                self._notice_death(wait_seconds=2.0)
                if self._deaths >= 2:
                    raise self._given_up() from None
                time.sleep(0.2)

    def _given_up(self) -> ModelDownError:
        seconds = max(1, round(self._rest_until - time.monotonic()))
        return ModelDownError(
            f"The model's process for {self.spec.path} died {self._deaths} times: {self._why}.",
            f"It is tried again after {seconds} s. The file may be damaged or too large: "
            "knowme models list",
        )

    def _bury(self, port: int) -> None:
        """Take leave of the worker that stopped answering on ``port``."""
        with self._lock:
            if port == self._port:  # else somebody else did it and there is a new one already
                self._notice_death(wait_seconds=2.0)
                self._kill()

    def _notice_death(self, wait_seconds: float = 0.0) -> None:
        process = self._process
        if process is None:
            return
        try:
            code = process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            return
        self._why = _reason(code, self._log)
        self._deaths += 1
        rest = _REST_SECONDS[min(max(self._deaths - 2, 0), len(_REST_SECONDS) - 1)]
        self._rest_until = time.monotonic() + rest
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        self._port = 0
        if process is not None:
            with suppress(OSError):
                process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None
        idle, self._idle = self._idle, []
        for _, _, connection in idle:
            connection.close()

    def _start(self) -> None:
        spec = self.spec
        check_memory(spec)
        keeps = spec.prefix_folder
        self._key = secrets.token_urlsafe(24)
        order = {
            **asdict(spec),
            "path": str(spec.path),
            "threads": choose_threads(spec.threads, beside=_others(self)),
            "prefix_folder": None if keeps is None else str(keeps.absolute()),
            "adapters": [str(path.absolute()) for path in spec.adapters],
            # Else a sliding window keeps too little of the prompt for what was saved to be of use.
            "swa_full": keeps is not None and slides(spec),
            "key": self._key,
            "parent": os.getpid(),
        }
        self._log = tempfile.TemporaryFile()
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            # -P: what lies in the current folder is never imported.
            [sys.executable, "-P", "-m", "knowme.llama"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C in the terminal is for us, not for the worker
        )
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        patience = threading.Timer(START_SECONDS, process.kill)
        patience.start()
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            patience.cancel()
        if not line.endswith(b"\n"):
            raise _Died(0)
        told = json.loads(line)
        if "error" in told:
            self._kill()
            raise ModelError(told["error"], told.get("hint", ""))
        self._port = int(told["port"])

    # --- its requests ----------------------------------------------------------------------------

    def _call_once(self, path: str, data: bytes, timeout_seconds: float, start: bool = True) -> Any:
        with self._lock:
            if start:
                self._ensure()
            elif self.pid is None:
                raise _Died(self._port)
            port, key = self._port, self._key
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection, used = self._connection(port, timeout_seconds)
        while True:
            try:
                connection.request("POST", path, data, headers)
                response = connection.getresponse()
                answer = response.read()
                break
            except TimeoutError:
                connection.close()
                self.close()  # it hangs: only a new one can help
                raise ModelDownError(
                    f"The model {self.spec.path.name} did not answer within {timeout_seconds:g} s.",
                    "The machine may be too busy or the model too large for it; ask again.",
                ) from None
            except (OSError, http.client.HTTPException):
                connection.close()
                if not used:
                    raise _Died(port) from None
                connection, used = self._new_connection(port, timeout_seconds), False
        self._give_back(port, connection)
        self.answered()
        if response.status != 200:
            raise refused(response.status, answer)
        return json.loads(answer)

    def _connection(
        self, port: int, timeout_seconds: float
    ) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            while self._idle:
                since, to, connection = self._idle.pop()
                if to == port and time.monotonic() - since < _IDLE_SECONDS:
                    if connection.sock is not None:
                        connection.sock.settimeout(timeout_seconds)
                    return connection, True
                connection.close()
        return self._new_connection(port, timeout_seconds), False

    @staticmethod
    def _new_connection(port: int, timeout_seconds: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)

    def _give_back(self, port: int, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if port == self._port and len(self._idle) < _KEEP:
                self._idle.append((time.monotonic(), port, connection))
                return
        connection.close()


class _Died(Exception):
    """The worker at ``port`` went away before it answered."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


# For all workers: .4 ms less for each answer than a client of its own. Nothing has to be closed
# between two streams, since llama.cpp closes its end of the connection after each.
_clients = wire.Clients(wire.Server("llama.cpp", "http://127.0.0.1", ""))


async def stream(
    worker: Worker, path: str, body: Mapping[str, Any], timeout_seconds: float
) -> AsyncIterator[dict[str, Any]]:
    """POST ``body`` and yield each event of the answer's stream. Closing it stops the generation.

    ``timeout_seconds`` is the longest wait for the next event. Raises ModelDownError, ModelError.
    """
    import asyncio

    import httpx  # 100 ms, and only chat needs it

    base, key = await asyncio.to_thread(worker.address)
    headers = {"Authorization": f"Bearer {key}"}
    wait = httpx.Timeout(timeout_seconds)
    request = _clients.get().stream("POST", base + path, json=body, headers=headers, timeout=wait)
    try:
        async with request as response:
            if response.status_code != 200:
                raise refused(response.status_code, await response.aread())
            async for line in wire.lines(response):
                if line.startswith("data: ") and line != "data: [DONE]":
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise refused(500, line[6:].encode())
                    yield event
                elif line.startswith("error: "):
                    raise refused(500, line[7:].encode())
        worker.answered()
    except httpx.TimeoutException:
        await asyncio.to_thread(worker.close)
        raise ModelDownError(
            f"The model {worker.spec.path.name} said nothing for {timeout_seconds:g} s.",
            "The machine may be too busy or the model too large for it; ask again.",
        ) from None
    except httpx.HTTPError:
        port = int(base.rpartition(":")[2])
        raise await asyncio.to_thread(worker.down, port) from None
    except ValueError as error:
        raise ModelDownError(f"llama.cpp sent something unexpected: {error}") from error


def refused(status: int, answer: bytes) -> ModelError:
    """Return the error for an answer of llama.cpp that is not 200."""
    try:
        error = json.loads(answer)
        error = error.get("error", error)
        said, kind = str(error.get("message", "")), str(error.get("type", ""))
    except (ValueError, AttributeError):
        said, kind, error = answer[:200].decode("utf-8", "replace"), "", {}
    if kind == "exceed_context_size_error":
        return TooLongError(
            f"The prompt is {error.get('n_prompt_tokens', 'too many')} tokens, and the model's "
            f"window is {error.get('n_ctx', 'smaller')}.",
            "Send less, or raise context_tokens; under `ask`, lower ask.recalled_tokens.",
        )
    return ModelError(f"The model refused the request ({status}): {said}")


_workers: dict[Spec, tuple[Worker, int]] = {}
_workers_lock = threading.Lock()


def acquire(spec: Spec) -> Worker:
    """Return the worker of this spec, shared by all who hold it; nothing is started yet."""
    with _workers_lock:
        worker, holders = _workers.get(spec) or (Worker(spec), 0)
        _workers[spec] = (worker, holders + 1)
        return worker


def release(worker: Worker) -> None:
    """Give a worker back; the last holder ends its process."""
    with _workers_lock:
        held, holders = _workers.get(worker.spec) or (None, 0)
        if held is worker and holders > 1:
            _workers[worker.spec] = (worker, holders - 1)
            return
        if held is worker:
            del _workers[worker.spec]
    worker.close()


def _others(worker: Worker) -> int:
    """Count the other models of chats that are loaded: they may compute at the same time."""
    held = [other for other, _ in list(_workers.values())]
    return sum(not w.spec.embedding and w is not worker and w.pid is not None for w in held)


@atexit.register
def _end_all() -> None:
    for worker, _ in list(_workers.values()):
        worker.close()


def _reason(code: int, log: IO[bytes] | None) -> str:
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    if log is None or log.closed:
        return how
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 2000))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return f"{how}; {lines[-1].strip()[:200]}" if lines else how


# --- the machine ----------------------------------------------------------------------------------


def choose_threads(wanted: int = 0, beside: int = 0) -> int:
    """Return how many threads to compute with: ``wanted``, or the physical cores that are free.

    On a machine of two cores or fewer that is one: two threads on two busy cores wait for each
    other and are slower by a factor of six. ``beside`` is how many other models are loaded: two
    that answer at once share the cores, and generating is bound by memory, so that half of the
    cores is nearly as fast as all.
    """
    if wanted > 0:
        return wanted
    cores = _physical_cores()
    if cores <= 2:
        return 1
    try:
        busy = os.getloadavg()[0]
    except (OSError, AttributeError):
        busy = 0.0
    free = max(1, min(cores - 1, round(cores - busy)))
    return -(-free // 2) if beside else free


def _physical_cores() -> int:
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        allowed = os.cpu_count() or 1
    if sys.platform == "darwin":
        # The efficient cores would hold the fast ones back.
        for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
            said = _said(["sysctl", "-n", name])
            if said.isdigit():
                return min(allowed, int(said))
        return allowed
    return min(allowed, _linux_cores() or allowed)


def _linux_cores() -> int:
    with suppress(OSError):
        siblings = {
            path.read_text().strip()
            for path in Path("/sys/devices/system/cpu").glob("cpu*/topology/thread_siblings_list")
        }
        return len(siblings)
    return 0


def slides(spec: Spec) -> bool:
    """Tell whether some of the model's layers see only a window that slides (Gemma 3)."""
    return read_header(spec.path).number("attention.sliding_window") > 0


def needed_bytes(spec: Spec) -> int:
    """Estimate what the model takes with its window. Raises ModelError where there is none."""
    try:
        size = spec.path.stat().st_size
    except OSError as error:
        raise ModelError(
            f"The model {spec.path} cannot be read: {error.strerror}.", "Run: knowme models list"
        ) from error
    for adapter in spec.adapters:
        with suppress(OSError):  # whoever loads it says that it is not there
            size += adapter.stat().st_size
    return size + window_bytes(spec) + (64 << 20)


def check_memory(spec: Spec) -> None:
    """Raise ModelError when the model with its window is larger than what may be used.

    NoRoomError where it is larger than what is free at this moment.
    """
    needed = needed_bytes(spec) >> 20
    if spec.memory_mb and needed > spec.memory_mb:
        raise ModelError(
            f"The model {spec.path.name} needs about {needed:,} MB with a window of "
            f"{spec.context_tokens} tokens, and engine.memory_mb allows {spec.memory_mb:,}.",
            "Raise engine.memory_mb, lower engine.context_tokens, or take a smaller model: "
            "knowme models list",
        )
    free = available_mb()
    if free is not None and needed > free:
        raise NoRoomError(
            f"The model {spec.path.name} needs about {needed:,} MB with a window of "
            f"{spec.context_tokens} tokens, and {free:,} MB are free.",
            "Close something, lower engine.context_tokens, or take a smaller model: "
            "knowme models list",
        )


def window_bytes(spec: Spec) -> int:
    """Estimate what the whole window of a model takes. Raises ModelError when it is no GGUF."""
    header = read_header(spec.path)
    heads = header.number("attention.head_count_kv") or header.number("attention.head_count")
    wide = header.number("attention.key_length") or (
        header.number("embedding_length") // max(1, header.number("attention.head_count"))
    )
    if spec.embedding and header.pooling:
        return 0  # most keep no window; what the others keep is small
    tokens = spec.context_tokens * spec.slots
    return tokens * header.number("block_count") * heads * wide * 4  # keys and values, two bytes


def available_mb() -> int | None:
    """Return the memory that can be used now, in MB; None where nobody can say."""
    found = [mb for mb in (_linux_mb(), _cgroup_mb(), _macos_mb()) if mb is not None]
    return min(found, default=None)


def _linux_mb() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) >> 10
    return None


def _cgroup_mb() -> int | None:
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        most = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                used -= int(line.split()[1])
        return max(0, most - used) >> 20
    return None


def _macos_mb() -> int | None:
    if sys.platform != "darwin":
        return None
    pages, size = 0, 4096
    for line in _said(["vm_stat"]).splitlines():
        name, _, value = line.partition(":")
        if "page size of" in line:
            size = int("".join(c for c in line.partition("page size of")[2] if c.isdigit()) or 4096)
        elif name in ("Pages free", "Pages inactive", "Pages purgeable", "Pages speculative"):
            pages += int(value.strip(" .") or 0)
    return pages * size >> 20 if pages else None


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


# --- the worker's side ----------------------------------------------------------------------------


def _serve() -> None:
    """Run the worker: read the order from stdin, load, say the port, work until stdin closes."""
    os.umask(0o077)  # what it saves of a prompt is nobody else's
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints goes to the log
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch_parent, args=(order["parent"],), daemon=True).start()
    server = None
    try:
        server = _build(order)
        told: dict[str, Any] = {"port": int(server.listening_address.rsplit(":", 1)[1])}
    except ImportError as error:
        told = {
            "error": f"The embedded model needs the package {error.name}, which is not installed.",
            "hint": "Run: pip install 'knowme[local]'",
        }
    except Exception as error:  # whatever it is, the parent must hear of it
        told = {
            "error": f"llama.cpp cannot load {order['path']}: {error}",
            "hint": "The file may be damaged, or too new for this llama.cpp: knowme models list",
        }
    reply.write(json.dumps(told) + "\n")
    reply.flush()
    if server is not None:
        with suppress(Exception):
            sys.stdin.buffer.read()  # until the parent closes it or ends
    os._exit(0)  # deleting the server can deadlock


def _build(order: Mapping[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order["path"]
    params.verbosity = 1  # errors
    params.port = 0
    params.api_keys = [order["key"]]
    params.ui = False
    params.endpoint_slots = True
    params.n_threads_http = 48  # each stream and each connection kept open holds one
    params.n_parallel = order["slots"]
    params.n_ctx = order["context_tokens"] * order["slots"]
    params.n_batch = params.n_ubatch = order["batch_tokens"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.warmup = False
    if order["idle_seconds"]:
        params.sleep_idle_seconds = order["idle_seconds"]
    if order["embedding"]:
        params.embedding = True
        params.fit_params = False
        params.cache_ram_mib = 0
    else:
        # Of prompts that left their slot. That cache does not ask under which adapter a prompt was
        # read (seen: scale 0 went on from what scale 1 had read), so with adapters there is none.
        params.cache_ram_mib = 0 if order["adapters"] else 256
        params.swa_full = order["swa_full"]
    params.lora_adapters = [_adapter(path) for path in order["adapters"]]
    params.lora_init_without_apply = bool(order["adapters"])
    if order["prefix_folder"]:
        params.slot_save_path = os.path.join(order["prefix_folder"], "")
    return xllamacpp.Server(params)


def _adapter(path: str) -> Any:
    import xllamacpp

    made = xllamacpp.CommonAdapterLoraInfo()
    made.path, made.scale = path, 0.0
    return made


def _watch_parent(parent: int) -> None:
    # Beside stdin: a child that our parent forked may hold the other end of that pipe open.
    # Not PR_SET_PDEATHSIG: it fires when the *thread* that started us ends.
    while hasattr(os, "getppid"):
        if os.name == "posix" and os.getppid() != parent:
            os._exit(0)
        time.sleep(1.0)


if __name__ == "__main__":
    _serve()
