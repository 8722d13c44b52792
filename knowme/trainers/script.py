"""Train an adapter. One file that stands alone: it imports nothing of knowme.

    python script.py FOLDER            FOLDER/spec.json, data/{train,validation}.jsonl -> adapter/
    python script.py --base FILE DIR   dequantise a GGUF into DIR/<digest>; prints that folder
    python script.py --hub NAME DIR    bring a base from its hub; prints its folder

Needs torch, transformers, peft and trl (and unsloth or bitsandbytes where the spec asks for them).
LoRA: Hu et al. 2021, arXiv:2106.09685; QLoRA: Dettmers et al. 2023, arXiv:2305.14314; DPO:
Rafailov et al. 2023, arXiv:2305.18290.

Promises: the loss is on the last answer of an example alone, its end token included, and that is
looked at before a step is made; what was killed goes on from its newest whole checkpoint and ends
in the same adapter; Ctrl-C saves and stops; result.json, with the hash of everything that went in
and came out, is written last. Nothing that it writes (log.jsonl, checkpoints, adapter, result.json)
holds a word of the data.
Refuses to know: where the data came from, whether the adapter is any good.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

VERSION = 1
STOPPED = 75
"""Exit status of a training that was asked to stop; a checkpoint is kept."""
HERE_ONLY = ("threads", "base_folder", "base_path")
"""What a spec says of one machine: the same training elsewhere has the same hash without it."""
_IGNORE = -100  # a label that no loss is taken of
_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_ANSWER_TOKENS = 16  # an answer cut to fewer than this teaches nothing


class Refused(Exception):
    """It cannot be trained; the text is for a person, and holds no word of the data."""


# --- what it says ---------------------------------------------------------------------------------


class Events:
    """Tells events on the first stdout and in log.jsonl. ``shown`` (words) goes to stdout alone."""

    def __init__(self, log: Path | None = None) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        with suppress(OSError):
            os.dup2(2, 1)  # what libraries print is not an event
        self._log = log

    def __call__(self, event: str, **told: Any) -> None:
        """Tell one event."""
        row = {"event": event, **told}
        with suppress(BrokenPipeError):
            self._out.write(json.dumps(row) + "\n")
            self._out.flush()
        if self._log is not None:
            row.pop("shown", None)
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def put(path: Path, told: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(json.dumps(told, indent=1, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spec_sha256(spec: Mapping[str, Any]) -> str:
    """Return the hash of what a spec says of the training, whatever the machine."""
    told = {key: value for key, value in spec.items() if key not in HERE_ONLY}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# --- the base -------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """Return 16 hex digits over the size of a file and 64 samples of it."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for part in range(64):
            file.seek(size * part // 64)
            found.update(file.read(1 << 16))
    return found.hexdigest()[:16]


def base_folder(gguf: Path, cache: Path) -> Path:
    """Return the Hugging Face folder of a GGUF, dequantised (float16) the first time."""
    if not gguf.is_file():
        raise Refused(f"There is no model at {gguf}.")
    name = digest(gguf)
    folder = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f".{name}.lock"):
        if (folder / "base.json").is_file():
            return folder
        partial = cache / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        try:
            _dequantise(gguf, partial)
            put(partial / "base.json", {"gguf": gguf.name, "digest": name, "version": VERSION})
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from huggingface_hub import save_torch_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer

    need, free = gguf.stat().st_size * 5, shutil.disk_usage(folder).free
    if free < need:
        raise Refused(
            f"{gguf.name} needs about {need >> 20:,} MB once dequantised, and {folder.parent} has "
            f"{free >> 20:,} MB free."
        )
    where, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float16)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_torch_state_dict(weights, folder)
    config = model.config
    # A model that came from a GGUF calls itself quantised, and nothing would train it; and
    # llama.cpp's converters ask for its class.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.dtype = torch.float16
    told = json.loads(config.to_json_string(use_diff=False))
    told.pop("_name_or_path", None)
    told.pop("quantization_config", None)
    put(folder / "config.json", told)
    tokenizer.save_pretrained(folder)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: two at once waste work; the rename is whole all the same
        yield
        return
    with open(lock, "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# --- examples -------------------------------------------------------------------------------------


class Coder:
    """Makes tokens of examples by the chat template of the base, and counts what it had to do."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        if not tokenizer.chat_template:
            raise Refused("The base has no chat template. Take one that answers: an -Instruct one.")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        added = tokenizer.added_tokens_decoder.values()
        steering = {str(each) for each in added if each.special or "|" in str(each)}
        self._special = {
            each for each in steering | {*tokenizer.all_special_tokens} if each.strip()
        }
        self._special_ids = set(tokenizer.all_special_ids)
        self.shortened = self.dropped = 0

    def example(self, row: Mapping[str, Any]) -> dict[str, list[int]] | None:
        """Return {input_ids, labels} of a row, or None where it cannot be learned from."""
        made = self.prompt_and_answer(row["messages"])
        if made is None:
            return None
        prompt, answer = made
        return {"input_ids": prompt + answer, "labels": [_IGNORE] * len(prompt) + answer}

    def preference(self, row: Mapping[str, Any]) -> dict[str, list[int]] | None:
        """Return {prompt_ids, chosen_ids, rejected_ids} of a row, or None."""
        said = list(row["messages"])
        other = [*said[:-1], {"role": "assistant", "content": row.get("rejected", "")}]
        chosen, rejected = self.prompt_and_answer(said), self.prompt_and_answer(other)
        if chosen is None or rejected is None or not row.get("rejected"):
            return None
        if chosen[0] != rejected[0]:  # one of them had to be cut more
            self.dropped += 1
            return None
        return {"prompt_ids": chosen[0], "chosen_ids": chosen[1], "rejected_ids": rejected[1]}

    def prompt_and_answer(
        self, messages: Sequence[Mapping[str, str]]
    ) -> tuple[list[int], list[int]] | None:
        """Return the tokens up to the answer as the model will see them, and the answer's.

        Too long: the oldest turns go first (never the instructions or the question), then the end
        of the answer. None: no room, or the words contain a token that steers the template.
        """
        said = [{"role": each["role"], "content": each["content"]} for each in messages]
        if any(token in each["content"] for each in said for token in self._special):
            self.dropped += 1
            return None
        first = 1 if said[0]["role"] == "system" else 0
        cut = False
        while True:
            prompt, answer = self._split(said)
            if len(prompt) + len(answer) <= self.max_tokens:
                break
            if len(said) - first <= 2:
                room = self.max_tokens - len(prompt)
                if room < min(_ANSWER_TOKENS, len(answer)):
                    self.dropped += 1
                    return None
                answer, cut = answer[:room], True
                break
            del said[first : first + (2 if len(said) - first > 3 else 1)]
            cut = True
        self.shortened += cut
        return prompt, answer

    def _split(self, said: list[dict[str, str]]) -> tuple[list[int], list[int]]:
        before = self._text(said[:-1], True)
        whole = self._text(said, False)
        # Where a template renders the prompt alone otherwise, the answer begins where they part.
        at = len(os.path.commonprefix([before, whole]))
        prompt, answer = self._tokens(whole[:at]), self._tokens(whole[at:])
        # What a template writes after the end token is never generated.
        while answer and answer[-1] not in self._special_ids:
            if self.tokenizer.decode(answer[-1:]).strip():
                break
            answer.pop()
        return prompt, answer

    def _text(self, said: list[dict[str, str]], open_end: bool) -> str:
        try:
            made: str = self.tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=open_end
            )
        except Exception as error:
            if said and said[0]["role"] == "system":  # such as Gemma's, which has no such role
                rest = [dict(each) for each in said[1:]]
                if rest:
                    rest[0]["content"] = f"{said[0]['content']}\n\n{rest[0]['content']}"
                    return self._text(rest, open_end)
            told = type(error).__name__
            raise Refused(f"The chat template of the base refuses an example ({told}).") from error
        return made

    def _tokens(self, text: str) -> list[int]:
        # The template writes the special tokens itself.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def check(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Look at the mask of one example and return what it trains: the event `mask`.

        Raises Refused where the labels are not the answer and its end.
        """
        made = self.prompt_and_answer(row["messages"])
        if made is None:
            raise Refused("The first example has no room for an answer.")
        prompt, answer = made
        trained = self.tokenizer.decode(answer, skip_special_tokens=True).strip()
        wanted = row["messages"][-1]["content"].strip()
        plain = "".join(wanted.split())
        seen = "".join(trained.split())
        if not seen or (seen not in plain and plain not in seen):
            raise Refused(
                "The mask is wrong: by the chat template of the base, what would be trained is not "
                "the answer."
            )
        ids = prompt + answer
        shown = [[self.tokenizer.decode([each]), at >= len(prompt)] for at, each in enumerate(ids)]
        return {"tokens": len(ids), "trained": len(answer), "shown": shown}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file; none where it is not there."""
    found = []
    if path.is_file():
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                        if row["messages"][-1]["role"] != "assistant":
                            raise ValueError("the last message is no answer")
                        found.append(row)
                    except (ValueError, KeyError, IndexError, TypeError) as error:
                        told = type(error).__name__
                        raise Refused(f"{path.name}:{number} is no example ({told}).") from error
    return found


def examples(coder: Coder, found: list[dict[str, Any]], method: str) -> Any:
    """Return the tokens of rows as a data set in memory: nothing of it is written to disk."""
    from datasets import Dataset

    one = coder.preference if method == "dpo" else coder.example
    made = [each for each in map(one, found) if each is not None]
    return Dataset.from_list(made) if made else None


# --- the model ------------------------------------------------------------------------------------


def native_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 itself; elsewhere it is slower."""
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        return "avx512_bf16" in told or "amx_bf16" in told
    return False


def number_type(spec: Mapping[str, Any], cuda: bool) -> str:
    """Return float32, bfloat16 or float16: what the base is held in."""
    wanted = str(spec.get("dtype", "auto"))
    if wanted != "auto":
        return wanted
    if cuda:
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
    return "bfloat16" if native_bfloat16() else "float32"


def load(spec: Mapping[str, Any], dtype: str, cuda: bool) -> tuple[Any, Any, Any]:
    """Return the base, its tokenizer and the LoRA that it shall get (None: it has it already)."""
    if spec.get("trainer") == "unsloth":
        return _load_unsloth(spec, dtype)
    import torch
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    base = spec.get("base_folder") or spec["base"]
    more: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if cuda:
        more["device_map"] = {"": 0}
    if spec.get("four_bit"):
        if not cuda:
            raise Refused("4-bit training needs a CUDA card. Train without it, or in a notebook.")
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, **more)
    if spec.get("four_bit"):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model, tokenizer, LoraConfig(task_type="CAUSAL_LM", **_lora(spec))


def _lora(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "r": int(spec["rank"]),
        "lora_alpha": int(spec["alpha"]),
        "lora_dropout": float(spec["dropout"]),
        "target_modules": _ATTENTION if spec["targets"] == "attention" else "all-linear",
    }


def _load_unsloth(spec: Mapping[str, Any], dtype: str) -> tuple[Any, Any, Any]:
    import torch
    import unsloth  # before trl and transformers, which it patches

    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        spec.get("base_folder") or spec["base"],
        max_seq_length=int(spec["max_tokens"]),
        load_in_4bit=bool(spec.get("four_bit")),
        dtype=getattr(torch, dtype),
    )
    lora = _lora(spec)
    if lora["target_modules"] == "all-linear":
        lora["target_modules"] = [*_ATTENTION, "gate_proj", "up_proj", "down_proj"]
    model = unsloth.FastLanguageModel.get_peft_model(
        model, **lora, bias="none", random_state=int(spec["seed"]),
        use_gradient_checkpointing="unsloth",
    )  # fmt: skip
    return model, tokenizer, None


def arguments(spec: Mapping[str, Any], folder: Path, plan: Mapping[str, Any]) -> Any:
    """Return the trainer's arguments."""
    from trl import DPOConfig, SFTConfig

    validates = bool(plan["validates"])
    told: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": float(spec["epochs"]),
        "learning_rate": float(spec["learning_rate"]),
        "per_device_train_batch_size": int(spec["batch"]),
        "per_device_eval_batch_size": int(spec["batch"]),
        "gradient_accumulation_steps": int(spec["accumulate"]),
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, plan["steps"] // 20),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": plan["every"],
        "save_total_limit": 2,
        "eval_strategy": "steps" if validates else "no",
        "eval_steps": plan["every"],
        "load_best_model_at_end": validates,
        "metric_for_best_model": "eval_loss" if validates else None,
        "greater_is_better": False,
        "prediction_loss_only": True,
        "seed": int(spec["seed"]),
        "data_seed": int(spec["seed"]),
        "max_length": int(spec["max_tokens"]),
        "use_cpu": not plan["cuda"],
        "bf16": plan["cuda"] and plan["dtype"] == "bfloat16",
        "fp16": plan["cuda"] and plan["dtype"] == "float16",
        "optim": "adamw_8bit" if spec.get("four_bit") else "adamw_torch",
        # Half the memory for a third more time: on a small model it is not worth it.
        "gradient_checkpointing": plan["parameters"] >= 1_000_000_000,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": bool(plan["cuda"]),
    }
    if spec["method"] == "dpo":
        return DPOConfig(**told, beta=float(spec.get("beta", 0.1)))
    if spec.get("trainer") == "unsloth":
        told["dataset_kwargs"] = {"skip_prepare_dataset": True}
    return SFTConfig(**told)


# --- the course of it -----------------------------------------------------------------------------


def whole_checkpoint(folder: Path, marks: Mapping[str, Any]) -> Path | None:
    """Return the newest checkpoint that is whole and of this very training; delete all others."""
    found = []
    for each in (folder / "checkpoints").glob("checkpoint-*"):
        told: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            told = json.loads((each / "whole.json").read_text())
        sizes = told.pop("sizes", {})
        there = {file.name: file.stat().st_size for file in each.iterdir() if file.name in sizes}
        if sizes and there == sizes and told == dict(marks):
            found.append(each)
        else:
            shutil.rmtree(each, ignore_errors=True)
    newest = max(found, key=lambda each: int(each.name.rpartition("-")[2]), default=None)
    if newest is not None:
        # The trainer keeps the best one by a path; the folder may have moved since.
        state = json.loads((newest / "trainer_state.json").read_text())
        best = state.get("best_model_checkpoint")
        if best:
            state["best_model_checkpoint"] = str(newest.parent / Path(best).name)
            put(newest / "trainer_state.json", state)
            sizes = json.loads((newest / "whole.json").read_text())
            sizes["sizes"]["trainer_state.json"] = (newest / "trainer_state.json").stat().st_size
            put(newest / "whole.json", sizes)
    return newest


def _seal(checkpoint: Path, marks: Mapping[str, Any]) -> None:
    """Mark a checkpoint as whole: all of it is on the disk."""
    for card in (checkpoint / "README.md", checkpoint.parent / "README.md"):
        card.unlink(missing_ok=True)  # TRL's model cards
    sizes = {}
    for each in sorted(checkpoint.iterdir()):
        if each.is_file():
            with open(each, "rb") as file:
                os.fsync(file.fileno())
            sizes[each.name] = each.stat().st_size
    put(checkpoint / "whole.json", {**marks, "sizes": sizes})


class Course:
    """What is done at each step: tell of it, seal checkpoints, know when to stop."""

    def __init__(self, tell: Events, marks: Mapping[str, Any], patience: int, cuda: bool) -> None:
        self.tell, self.marks, self.patience, self.cuda = tell, marks, patience, cuda
        self.asked = False  # to stop, by a signal
        self.enough = False
        self._since: tuple[int, float] | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when this process made its first step."""
        if self._since is None:
            self._since = (state.global_step, time.monotonic())

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell of a step."""
        logs = more.get("logs") or {}
        if "loss" not in logs or self._since is None:
            return
        done = max(1, state.global_step - self._since[0])
        each = (time.monotonic() - self._since[1]) / done
        told = {
            "step": state.global_step,
            "steps": state.max_steps,
            "loss": round(float(logs["loss"]), 6),
            "seconds_left": round(each * (state.max_steps - state.global_step)),
            **memory_now(self.cuda),
        }
        if "rewards/margins" in logs:
            told["margin"] = round(float(logs["rewards/margins"]), 6)
        self.tell("step", **told)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop where that was asked."""
        if self.asked and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of a validation, and stop where the last ones were no better."""
        losses = [each["eval_loss"] for each in state.log_history if "eval_loss" in each]
        best = losses.index(min(losses))
        newest = best + 1 == len(losses)
        self.tell("validation", step=state.global_step, loss=round(losses[-1], 6), best=newest)
        # From the history alone: a training that was resumed decides the same.
        if self.patience and len(losses) - 1 - best >= self.patience:
            self.enough = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal what was saved."""
        _seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.marks)


def memory_now(cuda: bool) -> dict[str, int]:
    """Return what this process holds, in MB: rss_mb, and vram_mb at its peak."""
    found = {"rss_mb": 0, "vram_mb": 0}
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found["rss_mb"] = pages * os.sysconf("SC_PAGE_SIZE") >> 20
    if not found["rss_mb"]:
        with suppress(ImportError):
            import resource

            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found["rss_mb"] = most >> (20 if sys.platform == "darwin" else 10)
    if cuda:
        import torch

        found["vram_mb"] = torch.cuda.max_memory_allocated() >> 20
    return found


def trainer_of(spec: Mapping[str, Any], model: Any, lora: Any, **more: Any) -> Any:
    """Return TRL's trainer, given tokens and labels that are made already."""
    from trl import DPOTrainer, SFTTrainer

    if spec["method"] != "dpo":
        return SFTTrainer(model=model, peft_config=lora, **more)

    class Ready(DPOTrainer):  # type: ignore[misc, unused-ignore]
        """The examples are tokens already; TRL would make them again, with its own mask."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return Ready(model=model, peft_config=lora, **more)


def train(folder: Path, tell: Events) -> int:
    """Train what FOLDER/spec.json says; returns the exit status. Raises Refused."""
    started = time.monotonic()
    spec = json.loads((folder / "spec.json").read_text("utf-8"))
    files = {name: folder / "data" / f"{name}.jsonl" for name in ("train", "validation")}
    hashes = {f"{name}.jsonl": sha256(path) for name, path in files.items() if path.is_file()}
    marks = {"spec_sha256": spec_sha256(spec), "data": hashes}
    if spec.get("trainer") == "unsloth":
        import unsloth  # noqa: F401
    import torch
    from transformers import TrainerCallback, set_seed
    from transformers.utils import logging as talk

    talk.set_verbosity_error()
    if spec.get("threads"):
        torch.set_num_threads(int(spec["threads"]))
    torch.use_deterministic_algorithms(True, warn_only=True)
    cuda = torch.cuda.is_available() and spec.get("device") != "cpu"
    dtype = number_type(spec, cuda)
    set_seed(int(spec["seed"]))
    model, tokenizer, lora = load(spec, dtype, cuda)
    coder = Coder(tokenizer, int(spec["max_tokens"]))
    found = {name: rows(path) for name, path in files.items()}
    if spec["method"] == "dpo":
        found = {
            name: [each for each in told if each.get("rejected")] for name, told in found.items()
        }
    sets = {name: examples(coder, told, spec["method"]) for name, told in found.items()}
    if sets["train"] is None:
        raise Refused(f"There is no example to train on: {len(found['train'])} rows, none fits.")
    plan = planned(spec, sets, model.num_parameters(), dtype, cuda)
    mask = next(told for each in found["train"] if (told := _looked_at(coder, each)))
    set_seed(int(spec["seed"]))
    watch: Any = type("Watcher", (Course, TrainerCallback), {})(
        tell, marks, int(spec["patience"]), cuda
    )
    trainer = trainer_of(
        spec, model, lora, args=arguments(spec, folder, plan), train_dataset=sets["train"],
        eval_dataset=sets["validation"], processing_class=tokenizer, callbacks=[watch],
    )  # fmt: skip
    # A vocabulary is full of words that the person may have said; a checkpoint needs none.
    trainer.processing_class = None
    trainable = [each for each in trainer.model.parameters() if each.requires_grad]
    for each in trainable:  # TRL makes them bfloat16 under 4 bits, which float16 cards cannot scale
        each.data = each.data.float()
    tell(
        "start", device="cuda" if cuda else "cpu", dtype=dtype, parameters=plan["parameters"],
        trainable=sum(each.numel() for each in trainable), tokens=plan["tokens"],
        steps=plan["steps"], examples=len(sets["train"]), shortened=coder.shortened,
        dropped=coder.dropped, threads=torch.get_num_threads(), pid=os.getpid(),
    )  # fmt: skip
    tell("mask", **mask)
    resumed = whole_checkpoint(folder, marks)
    if resumed is not None:
        tell("resumed", step=int(resumed.name.rpartition("-")[2]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(watch, "asked", True))
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    if watch.asked and not watch.enough and trainer.state.global_step < trainer.state.max_steps:
        tell("stopped", why="it was asked to stop", step=trainer.state.global_step)
        return STOPPED
    if watch.enough:
        why = f"the validation loss was no better {spec['patience']} times"
        tell("stopped", why=why, step=trainer.state.global_step)
    history = [each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each]
    keep(folder, trainer, spec, marks, {
        "steps": trainer.state.global_step, "best": min(history, default=None),
        "seconds": round(time.monotonic() - started, 1), "device": "cuda" if cuda else "cpu",
        "dtype": dtype, "tokens": plan["tokens"], "examples": len(sets["train"]),
    }, tell)  # fmt: skip
    return 0


def _looked_at(coder: Coder, row: Mapping[str, Any]) -> dict[str, Any] | None:
    dropped, shortened = coder.dropped, coder.shortened
    fits = coder.prompt_and_answer(row["messages"]) is not None
    told = coder.check(row) if fits else None
    coder.dropped, coder.shortened = dropped, shortened
    return told


def planned(
    spec: Mapping[str, Any], sets: Mapping[str, Any], parameters: int, dtype: str, cuda: bool
) -> dict[str, Any]:
    """Return how long it will be: tokens of one epoch, steps, steps between validations."""
    many = len(sets["train"])
    columns = [name for name in sets["train"].column_names if name.endswith("_ids")]
    tokens = sum(len(each) for name in columns for each in sets["train"][name])
    batches = math.ceil(many / int(spec["batch"]))
    epoch = math.ceil(batches / int(spec["accumulate"]))
    return {
        "parameters": parameters, "dtype": dtype, "cuda": cuda, "tokens": tokens,
        "steps": math.ceil(float(spec["epochs"]) * epoch),
        "every": int(spec.get("every") or 0) or max(1, min(epoch, 50)),
        "validates": sets["validation"] is not None,
    }  # fmt: skip


def keep(
    folder: Path,
    trainer: Any,
    spec: Mapping[str, Any],
    marks: Mapping[str, Any],
    told: dict[str, Any],
    tell: Events,
) -> None:
    """Write adapter/ and then result.json; the checkpoints are not needed any more."""
    partial = folder / ".adapter.partial"
    shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(
        partial, selected_adapters=["default"]
    )
    (partial / "README.md").unlink(missing_ok=True)
    config = json.loads((partial / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = (
        Path(spec["base"]).name if spec.get("base_folder") else spec["base"]
    )
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()  # a set's order differs from run to run
    put(partial / "adapter_config.json", config)
    made = {each.name: sha256(each) for each in sorted(partial.iterdir())}
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    partial.rename(folder / "adapter")
    import peft
    import torch
    import transformers
    import trl

    versions = {each.__name__: each.__version__ for each in (torch, transformers, peft, trl)}
    versions["python"] = platform.python_version()
    put(folder / "result.json", {
        **marks, **told, "version": VERSION, "run": spec.get("run", ""), "base": spec["base"],
        "trainer": spec.get("trainer", "peft"), "adapter": made, "versions": versions,
    })  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    tell("done", steps=told["steps"], best=told["best"], seconds=told["seconds"])


# --- as a program ---------------------------------------------------------------------------------


def _end_with_parent() -> None:
    """End this process as soon as its parent has gone: the parent holds our stdin open."""

    def wait() -> NoReturn:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status: 0 done, 75 stopped on request, 1 refused."""
    child = "--child" in arguments
    arguments = [each for each in arguments if each != "--child"]
    if child:
        _end_with_parent()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with more, the trainer would split batches
    try:
        if len(arguments) == 3 and arguments[0] == "--base":
            Events()("base", folder=str(base_folder(Path(arguments[1]), Path(arguments[2]))))
            return 0
        if len(arguments) == 3 and arguments[0] == "--hub":
            from huggingface_hub import snapshot_download

            found = snapshot_download(
                arguments[1], allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"]
            )
            Events()("base", folder=found)
            return 0
        if not arguments or arguments[0].startswith("-"):
            sys.stderr.write(__doc__ or "")
            return 2
        folder = Path(arguments[0])
        return train(folder, Events(folder / "log.jsonl"))
    except Refused as error:
        sys.stderr.write(f"refused: {error}\n")
        return 1
    except KeyboardInterrupt:  # before there is anything to save
        return STOPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
