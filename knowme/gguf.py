"""What a GGUF says of itself: its metadata and how many weights it has, without loading it.

Promises: a file that is none, or is cut short, is a `ModelError` with its name; nothing of the
weights is read.
Refuses to know: how a model is run (``llama.py``).
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowme.errors import ModelError


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF, without its long lists; ``parameters`` is how many weights it has."""

    values: Mapping[str, Any]
    parameters: int

    @property
    def architecture(self) -> str:
        """Such as llama, bert or gemma3."""
        return str(self.values.get("general.architecture", ""))

    @property
    def name(self) -> str:
        """What the model calls itself; may be empty."""
        return str(self.values.get("general.name", ""))

    @property
    def pooling(self) -> int:
        """How token vectors become one: 1 mean, 2 first, 3 last; 0 when it is no embedder."""
        return self.number("pooling_type")

    @property
    def chat_template(self) -> str:
        """The model's own template; empty for a base model."""
        return str(self.values.get("tokenizer.chat_template", ""))

    def number(self, key: str) -> int:
        """Return a whole number of this architecture, such as context_length; 0 if not there."""
        value = self.values.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else 0


def read_header(path: Path) -> Header:
    """Read a GGUF's metadata. Raises ModelError when it is none, or is cut short."""
    try:
        about = path.stat()
        return _read_header(path, about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise ModelError(
            f"The model {path} cannot be read: {error.strerror}.", "Run: knowme models list"
        ) from error
    except (ValueError, KeyError, IndexError) as error:
        raise ModelError(
            f"{path} is not a whole GGUF model: {error}.",
            "Download it again, or take another: knowme models list",
        ) from error


@lru_cache(maxsize=16)
def _read_header(path: Path, mtime_ns: int, size: int) -> Header:
    del mtime_ns
    if size < 24:
        raise ValueError("it is too short")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Gguf(data).header()


class _Gguf:
    """A cursor over a GGUF, version 2 or 3, little-endian."""

    _WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    _SIGNED = (1, 3, 5, 11)

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def header(self) -> Header:
        if self.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self.whole(4)
        if version not in (2, 3):
            raise ValueError(f"its version is {version}, and 2 and 3 are known")
        tensors, pairs = self.whole(8), self.whole(8)
        values: dict[str, Any] = {}
        for _ in range(pairs):
            key = self.string()
            value = self.value(self.whole(4))
            if value is not None:
                values[key] = value
        parameters = 0
        for _ in range(tensors):
            self.skip_string()
            count = 1
            for _ in range(self.whole(4)):
                count *= self.whole(8)
            parameters += count
            self.at += 12  # its type and where it lies
        if self.at > len(self.data):
            raise ValueError("it is cut short")
        return Header(values, parameters)

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError("it is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def whole(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def string(self) -> str:
        return self.take(self.whole(8)).decode("utf-8", "replace")

    def skip_string(self) -> None:
        self.at += 8 + int.from_bytes(self.data[self.at : self.at + 8], "little")

    def value(self, kind: int) -> Any:
        """Return a value, or None for a list: vocabularies are long and nobody here needs them."""
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.whole(4), self.whole(8)
            if inner == 8:
                for _ in range(count):
                    self.skip_string()
            else:
                self.at += self._WIDTHS[inner] * count
            return None
        if kind in (6, 12):
            import struct

            return struct.unpack("<f" if kind == 6 else "<d", self.take(self._WIDTHS[kind]))[0]
        if kind == 7:
            return self.take(1) != b"\0"
        return self.whole(self._WIDTHS[kind], kind in self._SIGNED)
