"""LoRA and QLoRA by unsloth, on a CUDA card: the same script, with unsloth's kernels.

Promises: what ``peft.py`` promises, with less memory and in less time.
Refuses to know: the same. Not run where this was written: there was no CUDA card.
"""

from __future__ import annotations

from importlib.util import find_spec

from knowme.trainers.peft import PeftTrainer
from knowme.types import TrainSpec


class UnslothTrainer(PeftTrainer):
    """Trains on the first CUDA card of this machine."""

    name = "unsloth"

    def missing(self, spec: TrainSpec) -> str:
        """Return "" when it can train this here, else one sentence with the mend."""
        if not self.cuda():
            return (
                "unsloth needs a CUDA card, and there is none here that torch can use. "
                "Use peft: knowme config set learn.trainer peft"
            )
        why = super().missing(spec)
        if not why and find_spec("unsloth") is None:
            # With its dependencies it would bring another torch.
            return "It needs unsloth. Run: pip install --no-deps unsloth unsloth_zoo"
        return why
