"""A plugin in one file: an engine that answers in capitals, an embedder that counts letters."""

from collections.abc import AsyncIterator, Sequence

import numpy as np

from knowme.types import ChatMessage, Chunk, EmbedKind, Options, Usage


class ShoutEngine:
    """Answers with the question, in capitals."""

    name = "shout"
    local = True
    model = "shout-1"

    def __init__(self, *, context_tokens: int = 4096, **_: object) -> None:
        self.context_tokens = context_tokens

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        words = messages[-1].content.upper().split()[: options.max_tokens]
        for word in words:
            yield Chunk(text=f"{word} ")
        yield Chunk(usage=Usage(model=self.model, answer_tokens=len(words)))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def health(self) -> str:
        return ""

    async def aclose(self) -> None:
        pass


class LettersEmbedder:
    """How often each letter occurs: near texts are anagrams."""

    dims = 26
    fingerprint = "letters:latin@1:26:none"

    def __init__(self, **_: object) -> None:
        pass

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> np.ndarray:
        counts = [[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts]
        found = np.array(counts, np.float32).reshape(len(texts), 26)
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(norms > 0, norms, 1)

    def close(self) -> None:
        pass
