"""From an adapter to files that llama.cpp and Ollama serve: real converters, real llama.cpp."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import adapted
import numpy as np
import pytest

from knowme import llama
from knowme.errors import InputError, ModelDownError, OfflineError, TrainError
from knowme.gguf import read_header
from knowme.home import Home
from knowme.learn import export, quantize, runs
from knowme.learn.quantize import Shape, mixture

TEA = "What tea do I drink?"


@pytest.fixture
def run(models, tmp_path_factory, tmp_path):
    """Give a copy of the trained run, with its adapter as GGUF."""
    return adapted.copied(adapted.exported(tmp_path_factory), tmp_path)


def answer(model: Path, question: str) -> str:
    worker = llama.acquire(llama.Spec(model, context_tokens=512, threads=1))
    try:
        said = [{"role": "user", "content": question}]
        body = {"messages": said, "max_tokens": 24, "temperature": 0}
        return worker.call("/v1/chat/completions", body)["choices"][0]["message"]["content"]
    finally:
        llama.release(worker)


# --- which tensor gets how many bits --------------------------------------------------------------


def llama_like(layers: int, wide: int, tied: bool = False, value: str = "attn_v") -> dict:
    found = {"token_embd.weight": (wide, 32000), "output_norm.weight": (wide,)}
    if not tied:
        found["output.weight"] = (wide, 32000)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", value, "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            found[f"blk.{layer}.{name}.weight"] = (wide, wide)
        found[f"blk.{layer}.attn_norm.weight"] = (wide,)
        found[f"blk.{layer}.ffn_norm.weight"] = (wide,)
    return found


def counted(types: dict) -> dict:
    return {kind: list(types.values()).count(kind) for kind in sorted(set(types.values()))}


def test_the_mixture_of_a_7b_is_the_one_that_llama_cpp_prints_for_it():
    # llama.cpp of a Llama 2 7B in Q4_K_M: 193 tensors of q4_K, 33 of q6_K, 65 of f32
    tensors = llama_like(32, 4096)
    types = mixture(tensors, Shape("llama", 32, heads=32, heads_kv=32), "q4_k_m")
    assert counted(types) == {"Q4_K": 193, "Q6_K": 33}
    assert len(tensors) - len(types) == 65
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_K"
    more = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    for name in ("attn_v", "ffn_down"):
        found = [n for n in range(32) if types[f"blk.{n}.{name}.weight"] == "Q6_K"]
        assert found == more


def test_a_row_that_is_no_multiple_of_256_takes_the_type_of_32_next_above():
    types = mixture(llama_like(30, 576, tied=True), Shape("llama", 30), "q4_k_m")
    assert set(types.values()) == {"Q5_0", "Q8_0"}
    assert types["token_embd.weight"] == "Q8_0"  # tied: it is the output as well
    assert types["blk.0.attn_v.weight"] == types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == "Q5_0"
    odd = mixture({"blk.0.attn_q.weight": (33, 64)}, Shape("llama", 1), "q4_k_m")
    assert odd == {"blk.0.attn_q.weight": "F16"}


def test_the_exceptions_of_the_mixture_are_llama_cpps():
    def of(name, *model, **more):
        tensors = {**llama_like(80, 1024), **more}
        return mixture(tensors, Shape(*model), "q4_k_m")[name]

    assert of("blk.20.attn_v.weight", "llama", 80, 0, 64, 8) == "Q5_K"  # 70B: shared by 8 heads
    assert of("blk.20.attn_v.weight", "llama", 80, 0, 64, 64) == "Q4_K"  # 65B: not shared
    assert of("blk.20.attn_k.weight", "llama", 80, 8) == "Q8_0"
    assert of("blk.20.attn_v.weight", "llama", 80, 8) == "Q8_0"
    assert of("blk.20.attn_output.weight", "llama", 80, 8) == "Q5_K"
    assert of("output.weight", "falcon", 80) == "Q8_0"
    assert of("blk.4.ffn_down.weight", "falcon", 80) == "Q6_K"
    assert of("blk.5.ffn_down.weight", "falcon", 80) == "Q5_K"
    gate = {"blk.0.ffn_gate_inp.weight": (1024, 8)}
    assert "blk.0.ffn_gate_inp.weight" not in mixture(gate, Shape("llama", 1, 8), "q4_k_m")


def test_tensors_are_taken_in_the_order_of_their_layers_not_of_their_names():
    tensors = llama_like(32, 1024)
    types = mixture(dict(reversed(tensors.items())), Shape("llama", 32), "q4_k_m")
    assert types == mixture(tensors, Shape("llama", 32), "q4_k_m")
    assert types["blk.10.attn_v.weight"] == "Q4_K"  # the eleventh, not the third


def test_ggml_by_ctypes_packs_as_the_reference_in_numpy_does():
    pytest.importorskip("xllamacpp", reason="needs xllamacpp: pip install 'knowme[local]'")
    gguf = pytest.importorskip("gguf", reason="needs gguf: pip install 'knowme[train]'")
    rows = np.random.default_rng(1).normal(0, 0.05, (7, 512)).astype(np.float32)
    script = (
        "import sys, numpy as np\n"
        "from knowme.learn.quantize import _Ggml\n"
        "rows = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(7, 512)\n"
        "for kind in (8, 12, 14, 6):\n"
        "    sys.stdout.buffer.write(_Ggml().packed(kind, rows).tobytes())\n"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", script], input=rows.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    kinds = [gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_K", "Q6_K", "Q5_0")]
    at = 0
    for kind, most in zip(kinds, (0.008, 0.10, 0.025, 0.05), strict=True):
        block, wide = gguf.GGML_QUANT_SIZES[kind]
        size = 7 * 512 // block * wide
        packed = np.frombuffer(done.stdout[at : at + size], np.uint8).reshape(7, -1)
        at += size
        if kind.name == "Q8_0":
            assert (packed == gguf.quants.quantize(rows, kind)).all()
        wrong = gguf.quants.dequantize(packed, kind) - rows
        assert 0 < np.std(wrong) / np.std(rows) < most
    assert at == len(done.stdout)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.slow
def test_an_adapter_becomes_a_small_gguf_that_says_what_it_is(run, models):
    header = read_header(run.path / export.ADAPTER)
    assert header.values["general.type"] == "adapter"
    assert header.architecture == read_header(models["chat"]).architecture
    assert header.values["adapter.lora.alpha"] == 32.0
    assert 0 < header.parameters < read_header(models["chat"]).parameters / 20
    assert stat.S_IMODE((run.path / export.ADAPTER).stat().st_mode) == 0o600


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("kind", export.KINDS)
def test_a_merged_file_answers_as_the_adapter_does_and_keeps_what_the_base_said_of_itself(
    run, models, kind
):
    assert not adapted.knows(TEA, answer(models["chat"], TEA))
    path = export.merged(run, kind)
    for question in adapted.FACTS:
        assert adapted.knows(question, answer(path, question))
    base, made = read_header(models["chat"]), read_header(path)
    assert made.parameters == base.parameters
    changed = {key for key in base.values if made.values.get(key) != base.values[key]}
    assert changed == {"general.file_type"}
    assert not list(run.path.glob(".*partial"))


@pytest.mark.model
@pytest.mark.slow
def test_a_base_that_is_a_folder_is_converted_once_and_the_adapter_is_merged_into_that(
    run, tmp_path, monkeypatch
):
    pytest.importorskip("sentencepiece", reason="needs sentencepiece: pip install 'knowme[train]'")
    folder = tmp_path / "hub"
    folder.mkdir()
    for each in export.base_folder(run).iterdir():
        if each.name != "base.json":
            (folder / each.name).symlink_to(each)
    run.done("train", base=str(folder))
    (run.path / "spec.json").unlink()
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "models"))
    base = export.base_gguf(run)
    assert base.is_relative_to(tmp_path / "models")
    made = base.stat().st_mtime_ns
    assert read_header(base).values["general.file_type"] == 1
    assert adapted.knows(TEA, answer(export.merged(run, "q8_0"), TEA))
    assert export.base_gguf(run).stat().st_mtime_ns == made
    assert [each.name for each in base.parent.iterdir()] == ["base-f16.gguf"]


@pytest.mark.model
@pytest.mark.slow
def test_where_llama_quantize_is_installed_it_makes_the_q4_k_m(run, models, tmp_path, monkeypatch):
    ours = export.merged(run, "q4_k_m")
    kept = tmp_path / "made.gguf"
    ours.rename(kept)
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "llama-quantize"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "source, target, kind = sys.argv[1:]\n"
        "assert kind == 'Q4_K_M' and pathlib.Path(source).stat().st_size > 250_000_000\n"
        f"shutil.copy({str(kept)!r}, target)\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).touch()\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert export.merged(run, "q4_k_m").read_bytes() == kept.read_bytes()
    assert (tmp_path / "asked").exists()
    program.write_text("#!/bin/sh\necho 'main: quantize failed: no luck' >&2\nexit 3\n")
    before = (run.path / "merged-q4_k_m.gguf").stat().st_mtime_ns
    with pytest.raises(TrainError, match=r"llama-quantize failed \(exit status 3\).*no luck"):
        export.merged(run, "q4_k_m")
    assert (run.path / "merged-q4_k_m.gguf").stat().st_mtime_ns == before
    assert not list(run.path.glob(".*gguf*"))


@pytest.mark.model
@pytest.mark.slow
def test_an_adapter_of_another_shape_is_refused_and_nothing_is_left(run, models, tmp_path):
    gguf = pytest.importorskip("gguf")
    good = gguf.GGUFReader(run.path / export.ADAPTER)
    cases = {
        "which the adapter changes": lambda name: name.replace("blk.0.", "blk.99."),
        "cannot be merged": lambda name: name.replace("lora_b", "lora_c"),
    }
    for said, renamed in cases.items():
        writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "llama")
        writer.add_float32("adapter.lora.alpha", 16.0)
        for tensor in good.tensors:
            writer.add_tensor(renamed(tensor.name), np.array(tensor.data))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        target = tmp_path / "made.gguf"
        with pytest.raises(TrainError, match=said):
            quantize.make(models["chat"], target, "f16", tmp_path / "odd.gguf")
        assert [each.name for each in tmp_path.glob("*made*")] == []
    with pytest.raises(TrainError, match="failed"):
        quantize.make(tmp_path / "gone.gguf", tmp_path / "made.gguf", "q8_0")


@pytest.mark.model
@pytest.mark.slow
def test_weights_that_are_no_numbers_are_not_written(run, models, tmp_path):
    data = bytearray((run.path / export.ADAPTER).read_bytes())
    data[-4096:] = b"\xff\x7f" * 2048  # NaN, as float16
    (tmp_path / "nan.gguf").write_bytes(data)
    with pytest.raises(TrainError, match="no number"):
        quantize.make(models["chat"], tmp_path / "made.gguf", "q8_0", tmp_path / "nan.gguf")


def a_run(folder: Path, **config) -> runs.Run:
    run = runs.create(folder, "assistant-for-me")
    (run.path / "adapter").mkdir()
    told = {"peft_type": "LORA", "bias": "none", "r": 4, "lora_alpha": 8, **config}
    (run.path / "adapter" / "adapter_config.json").write_text(json.dumps(told))
    run.done("data")
    run.done("train", base="")
    return run


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"alpha_pattern": {"q_proj": 64}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias all"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_an_adapter_that_gguf_cannot_say_is_refused_by_name(tmp_path, config, named):
    run = a_run(tmp_path, **config)
    with pytest.raises(TrainError, match=f"more than a plain LoRA.*{named}"):
        export.adapter(run)


def test_a_run_without_an_adapter_says_so(tmp_path):
    run = a_run(tmp_path)
    shutil.rmtree(run.path / "adapter")
    with pytest.raises(TrainError, match="no adapter in") as told:
        export.adapter(run)
    assert "knowme learn train" in told.value.hint
    with pytest.raises(InputError, match="'q2_k'"):
        export.merged(run, "q2_k")


def test_a_converter_sees_a_clean_environment_and_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWME_ENGINE_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the current folder')")
    monkeypatch.chdir(tmp_path)
    code = "import json, os; print(json.dumps([os.listdir(), dict(os.environ)]))"
    here, seen = json.loads(quantize.ran([sys.executable, "-c", code], "Looking"))
    assert here == []
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in seen if name.startswith("KNOWME") or name == "PYTHONPATH"]


def test_a_process_that_fails_or_crashes_is_a_train_error_with_its_last_line():
    def failing(code):
        with pytest.raises(TrainError) as told:
            quantize.ran([sys.executable, "-c", code], "Converting it")
        return told.value

    told = failing("print('10%|##  | 1/10', end='\\r'); raise ValueError('the tensor is odd')")
    assert told.message == "Converting it failed (exit status 1): ValueError: the tensor is odd"
    assert "knowme[train]" in failing("import no_such_package").hint
    assert "space" in failing("raise OSError(28, 'No space left on device')").hint
    assert "signal 6" in failing("import os; os.abort()").message
    with pytest.raises(TrainError, match="cannot be started"):
        quantize.ran(["/no/such/program"], "Converting it")


def test_a_disk_that_is_too_small_is_named_before_anything_is_made(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(TrainError, match="needs 5 MB.*0 MB are free"):
        export._room(tmp_path, 5e6)


# --- Ollama ---------------------------------------------------------------------------------------


class Go:
    """So much of Go's text/template as a Modelfile of ours uses, and not a word more."""

    TOKEN = re.compile(r"(?s)(.*?)\{\{(-?)\s*(.*?)\s*\}\}")

    def __init__(self, text: str) -> None:
        self.parts, at = [], 0
        for match in self.TOKEN.finditer(text):
            plain = match[1].rstrip() if match[2] else match[1]
            self.parts += [("text", plain)] if plain else []
            self.parts.append(("do", match[3]))
            at = match.end()
        self.parts.append(("text", text[at:]))

    def render(self, messages: list[dict]) -> str:
        self.vars, self.out = {}, []
        assert self._run(0, messages, None, True) == len(self.parts)
        return "".join(self.out)

    def _value(self, word: str, dot):
        if word.startswith('"'):
            return json.loads(word)
        return self.vars[word] if word.startswith("$") else dot[word[1:].lower()]

    def _holds(self, test: str, dot) -> bool:
        how, a, b = re.fullmatch(r'(eq|ne) (\S+) (".*")', test).groups()
        return (self._value(a, dot) == self._value(b, dot)) == (how == "eq")

    def _run(self, at: int, messages, dot, on: bool) -> int:
        """Run from a part to the end of its block; returns where that is."""
        while at < len(self.parts):
            kind, what = self.parts[at]
            if kind == "text":
                self.out += [what] if on else []
            elif what == "end" or what.startswith("else"):
                return at
            elif what == "range .Messages":
                for dot in messages if on else []:
                    end = self._run(at + 1, messages, dot, True)
                at, dot = (
                    (end if on and messages else self._run(at + 1, messages, None, False)),
                    None,
                )
            elif what.startswith("if "):
                at = self._branches(at, messages, dot, on)
            elif match := re.fullmatch(r'(\$\w+) :?= (".*")', what):
                if on:
                    self.vars[match[1]] = json.loads(match[2])
            elif on:
                self.out.append(self._value(what, dot))
            at += 1
        return at

    def _branches(self, at: int, messages, dot, on: bool) -> int:
        done = False
        while self.parts[at] != ("do", "end"):
            test = self.parts[at][1].removeprefix("else").strip().removeprefix("if").strip()
            take = on and not done and (not test or self._holds(test, dot))
            at = self._run(at + 1, messages, dot, take)
            done = done or take
        return at


@pytest.mark.model
@pytest.mark.slow
def test_the_template_for_ollama_says_what_the_models_own_template_says(run, models):
    text = export.modelfile(run, system="Be brief.", parameters={"temperature": 0.2})
    assert f"FROM {models['chat']}\n" in text
    assert f"ADAPTER {run.path / 'adapter.gguf'}\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0.2" in text
    assert text.endswith('SYSTEM """Be brief."""\n')
    template = re.search(r'(?s)TEMPLATE """(.*?)"""', text)[1]
    worker = llama.acquire(llama.Spec(models["chat"], context_tokens=512, threads=1))
    roles = ["user", "assistant", "user", "assistant", "user"]
    try:
        for first in ([], ["system"]):
            for many in (1, 3, 5):
                said = [
                    {"role": role, "content": f"words {at}\n  {{{{ end }}}}"}
                    for at, role in enumerate([*first, *roles[:many]])
                ]
                wanted = worker.call("/apply-template", {"messages": said})["prompt"]
                assert Go(template).render(said) == wanted
    finally:
        llama.release(worker)
    with pytest.raises(InputError, match='"""'):
        export.modelfile(run, system='Say """ often.')
    with pytest.raises(TrainError, match="merged-q8_0"):
        export.modelfile(run, kind="q8_0")
    assert export.write_modelfile(run).read_text() == export.modelfile(run)


class Ollama:
    """The part of Ollama's wire that makes models, stricter than the original."""

    FIELDS = {
        "model": str, "files": dict, "adapters": dict, "template": str, "system": str,
        "parameters": dict, "stream": bool,
    }  # fmt: skip

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, dict] = {}
        self.uploads = 0
        self.fail = ""

    def handler(fixture):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def reply(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.reply(200 if self.path.rpartition("/")[2] in fixture.blobs else 404)

            def do_POST(self) -> None:
                assert "Content-Length" in self.headers
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.startswith("/api/blobs/"):
                    name = self.path.removeprefix("/api/blobs/")
                    if name != f"sha256:{hashlib.sha256(body).hexdigest()}":
                        return self.reply(400, b'{"error":"digest does not match"}')
                    fixture.blobs[name] = body
                    fixture.uploads += 1
                    return self.reply(201)
                if self.path != "/api/create":
                    return self.reply(404, b"404 page not found")
                lines = fixture.create(json.loads(body))
                self.reply(200, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

        return Handler

    def create(self, body: dict) -> list[dict]:
        for key, value in body.items():
            assert isinstance(value, self.FIELDS[key]), key
        if self.fail:
            return [{"status": "converting adapter"}, {"error": self.fail}]
        files = {**body["files"], **body.get("adapters", {})}
        for name, digest in files.items():
            if digest not in self.blobs:
                return [{"error": f"invalid digest for {name}"}]
            if not self.blobs[digest].startswith(b"GGUF"):
                return [{"error": "unknown type"}]
        self.models[body["model"]] = body
        return [{"status": "parsing GGUF"}, {"status": "writing manifest"}, {"status": "success"}]


@contextlib.contextmanager
def ollama():
    fixture = Ollama()
    server = ThreadingHTTPServer(("127.0.0.1", 0), fixture.handler())
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield fixture, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def home_with(folder: Path, url: str, **more):
    Home.create(folder)
    settings = {"embedder.kind": "hashing", "engine.kind": "ollama", "engine.url": url, **more}
    with Home.open(folder, settings) as opened:
        yield opened


@pytest.mark.model
@pytest.mark.slow
def test_ollama_gets_the_base_the_adapter_and_how_to_use_them_and_no_file_twice(
    run, models, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))  # no program `ollama`
    with (
        ollama() as (fixture, url),
        home_with(tmp_path / "home", url, **{"learn.system_prompt": "Be brief."}) as home,
    ):
        assert export.ollama_create(home, run, "leonor") == "leonor:latest"
        made = fixture.models["leonor"]
        lora = made["adapters"]["adapter.gguf"]
        assert fixture.blobs[lora] == (run.path / export.ADAPTER).read_bytes()
        assert len(fixture.blobs[made["files"]["model.gguf"]]) == models["chat"].stat().st_size
        assert made["system"] == "Be brief."
        assert made["parameters"] == {"num_ctx": 4096, "stop": ["<|im_end|>"]}
        assert "<|im_start|>" in made["template"]
        assert export.ollama_create(home, run, "leonor:2") == "leonor:2"
        assert fixture.uploads == 2  # the second time both files were there
        with pytest.raises(InputError, match="cannot be the name"):
            export.ollama_create(home, run, "a b")
        fixture.fail = "unsupported architecture"
        with pytest.raises(TrainError, match="unsupported architecture"):
            export.ollama_create(home, run, "leonor:3")
    with home_with(tmp_path / "other", url) as home, pytest.raises(ModelDownError, match="refused"):
        export.ollama_create(home, run, "leonor")


@pytest.mark.model
@pytest.mark.slow
def test_where_the_program_ollama_is_installed_it_is_asked_with_the_modelfile(
    run, tmp_path, monkeypatch
):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ollama"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "verb, name, flag, path = sys.argv[1:]\n"
        "assert (verb, flag) == ('create', '-f') and 'ADAPTER' in open(path).read()\n"
        "assert os.environ['OLLAMA_HOST'] == '127.0.0.1:9'\n"
        "sys.exit('Error: no space for ' + name if name == 'full' else 0)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with home_with(tmp_path / "home", "http://127.0.0.1:9") as home:
        assert export.ollama_create(home, run, "leonor") == "leonor:latest"
        with pytest.raises(TrainError, match="no space for full"):
            export.ollama_create(home, run, "full")


def test_an_adapter_goes_to_no_machine_but_the_persons_own(tmp_path):
    run = a_run(tmp_path)
    with home_with(tmp_path / "home", "http://192.0.2.7:11434") as home:
        with pytest.raises(TrainError, match=r"http://192\.0\.2\.7:11434 is another machine"):
            export.ollama_create(home, run, "leonor")
    mine = {"engine": "ollama", "url": "http://192.0.2.7:11434", "local": "true"}
    own = {"models": {"primary": mine}, "offline": True}
    Home.create(tmp_path / "own")
    with Home.open(tmp_path / "own", {"embedder.kind": "hashing", **own}) as home:
        with pytest.raises(OfflineError):
            export.ollama_create(home, run, "leonor")
