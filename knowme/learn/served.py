"""A base model with adapters as llama.cpp serves it: log-probabilities and answers.

Promises: what is measured is what will be served: the GGUF of the base, the GGUF of each adapter,
the model's own chat template. Each call says how strongly each adapter counts (``scales``), so that
one process holds the base, what is in use and the candidate. The same call gives the same words: a
prompt is read anew for each answer, since what was kept of another is added up in other batches and
may turn a close choice. Log-probabilities use what was kept, and agree to some hundredths of a nat.
Refuses to know: what is good, data sets, torch.

A change of ``scales`` makes llama.cpp read the prompt anew: ask everything of one tuple, then of
the next. About 11 ms for each token of an answer with the packaged model on one thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from knowme import llama
from knowme.errors import InputError, KnowmeError, ModelMissingError, TrainError
from knowme.types import ChatMessage

Scales = tuple[float, ...]
"""How strongly each adapter counts, in their order: (0, 0) the base, (0, 1) the second alone."""

_MOST = 200  # asked for with each token: 1 ms more than 20, and seldom a second request
_BIASES = (15.0, 30.0, 60.0)  # nats; how far a rare token is lifted to be seen


class Served:
    """A context manager over one llama.cpp process. Thread-safe; one request at a time is fastest.

    Raises ModelMissingError for a file that is not there, ModelError for what llama.cpp refuses:
    an adapter of another base, above all.
    """

    def __init__(
        self,
        base: Path,
        adapters: Sequence[Path] = (),
        *,
        threads: int = 0,
        context_tokens: int = 2048,
    ) -> None:
        for path in (base, *adapters):
            if not path.is_file():
                raise ModelMissingError(f"There is no model at {path}.", "Run: knowme learn export")
        self.base, self.adapters = base, tuple(adapters)
        self.context_tokens = context_tokens
        self._spec = llama.Spec(
            base, context_tokens=context_tokens, threads=threads, adapters=self.adapters
        )
        self._worker: llama.Worker | None = None
        self._prompts: dict[tuple[Any, ...], list[int]] = {}

    def __enter__(self) -> Self:
        self._worker = llama.acquire(self._spec)
        try:
            self._worker.address()  # load now: a wrong adapter is named here
        except BaseException as error:
            llama.release(self._worker)
            self._worker = None
            if self.adapters and isinstance(error, KnowmeError):
                names = ", ".join(str(path) for path in self.adapters)
                raise TrainError(
                    f"llama.cpp cannot serve {self.base.name} with {names}: {error.message}",
                    "The adapter belongs to another base model, or its file is damaged: "
                    "knowme learn export",
                ) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            llama.release(worker)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that begin or end a message."""
        said = self._call("/tokenize", {"content": text, "add_special": False})
        return [int(each) for each in said["tokens"]]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; a letter that is cut in two shows as a mark."""
        return str(self._call("/detokenize", {"tokens": list(tokens)})["content"])

    def prompt(self, messages: Sequence[ChatMessage], *, think: bool = False) -> list[int]:
        """Return the tokens of a prompt in the model's template, up to where the answer begins."""
        key = (think, *((each.role, each.content) for each in messages))
        if key not in self._prompts:
            told = [{"role": each.role, "content": each.content} for each in messages]
            asked = {"messages": told, "chat_template_kwargs": {"enable_thinking": think}}
            prompt = self._call("/apply-template", asked)["prompt"]
            body = {"content": prompt, "add_special": True, "parse_special": True}
            if len(self._prompts) >= 512:
                self._prompts.clear()
            self._prompts[key] = [int(t) for t in self._call("/tokenize", body)["tokens"]]
        return self._prompts[key]

    def nll(
        self,
        messages: Sequence[ChatMessage],
        answer: str,
        scales: Scales,
        *,
        lead: str = "",
        most: int = 0,
    ) -> list[float]:
        """Return -log p, in nats, of each token of an answer to ``messages``.

        ``lead``: how the answer begins; it is given and not counted. ``most``: only so many tokens
        (0: all). Raises TooLongError where the window does not hold it, InputError for wrong
        ``scales``, ModelError.
        """
        return [-each[1] for each in self._read(messages, answer, scales, lead, most)]

    def top(
        self,
        messages: Sequence[ChatMessage],
        answer: str,
        scales: Scales,
        *,
        lead: str = "",
        most: int = 0,
    ) -> list[int]:
        """Return the likeliest token at each position of an answer, given what stands before."""
        return [each[0] for each in self._read(messages, answer, scales, lead, most)]

    def generate(
        self,
        messages: Sequence[ChatMessage],
        scales: Scales,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 1,
        *,
        lead: str = "",
    ) -> str:
        """Return what the model answers (after ``lead``): greedy, or drawn with a seed."""
        prompt = self.prompt(messages) + (self.tokens(lead) if lead else [])
        told = self._complete(prompt, scales, max_tokens, temperature, seed, cache_prompt=False)
        return str(told["content"])

    def continued(self, prompt: Sequence[int], scales: Scales, max_tokens: int) -> list[int]:
        """Return the tokens that follow these, greedy."""
        told = self._complete(
            prompt, scales, max_tokens, 0.0, 1, return_tokens=True, cache_prompt=False
        )
        return [int(each) for each in told["tokens"]]

    # --- inside ----------------------------------------------------------------------------------

    def _call(self, path: str, body: Mapping[str, Any]) -> Any:
        if self._worker is None:
            raise InputError("The model is not being served.", "Use it in a `with` block.")
        return self._worker.call(path, body, 300.0)

    def _lora(self, scales: Scales) -> list[dict[str, float]]:
        if len(scales) != len(self.adapters):
            raise InputError(f"{len(scales)} scales for {len(self.adapters)} adapters.")
        return [{"id": at, "scale": scale} for at, scale in enumerate(scales)]

    def _complete(
        self,
        prompt: Sequence[int],
        scales: Scales,
        max_tokens: int,
        temperature: float,
        seed: int,
        **more: Any,
    ) -> Any:
        body = {
            "prompt": list(prompt), "n_predict": max_tokens, "temperature": temperature,
            "seed": seed, "cache_prompt": True, "lora": self._lora(scales), **more,
        }  # fmt: skip
        return self._call("/completion", body)

    def _read(
        self,
        messages: Sequence[ChatMessage],
        answer: str,
        scales: Scales,
        lead: str,
        most: int,
    ) -> list[tuple[int, float]]:
        """Return (likeliest token, log p of the answer's token) for each token of the answer."""
        think = answer.lstrip().startswith("<think>")
        prompt = self.prompt(messages, think=think) + (self.tokens(lead) if lead else [])
        wanted = self.tokens(answer)
        found = []
        for at, token in enumerate(wanted[: most or None]):
            found.append(self._one(prompt + wanted[:at], token, scales))
        return found

    def _one(self, so_far: list[int], token: int, scales: Scales) -> tuple[int, float]:
        told = self._complete(so_far, scales, 1, 0.0, 1, n_probs=_MOST)
        if not told.get("completion_probabilities"):  # the end was the likeliest: nothing was said
            return -1, self._rare(so_far, token, scales)
        listed = told["completion_probabilities"][0]["top_logprobs"]
        for each in listed:
            if each["id"] == token:
                return int(listed[0]["id"]), float(each["logprob"])
        return int(listed[0]["id"]), self._rare(so_far, token, scales)

    def _rare(self, so_far: list[int], token: int, scales: Scales) -> float:
        """Return log p of a token that is not among the likeliest, exactly.

        Its logit is raised by b until it leads; from its share q then, p = q / (q + (1 - q) e^b).
        """
        for bias in _BIASES:
            told = self._complete(
                so_far, scales, 1, 1.0, 1, n_probs=1, samplers=[], post_sampling_probs=True,
                logit_bias=[[token, bias]],
            )  # fmt: skip
            listed = told.get("completion_probabilities") or []
            best = listed[0]["top_probs"][0] if listed and listed[0].get("top_probs") else {}
            raised = float(best.get("prob", 0.0)) if best.get("id") == token else 0.0
            if 0.0 < raised < 1.0:
                return math.log(raised) - math.log(raised + (1.0 - raised) * math.exp(bias))
        return -_BIASES[-1]
