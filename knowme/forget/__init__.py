"""Forgetting: ``scope`` says what would go, ``whole`` takes it from everywhere and proves it.

``erasure`` cleans the tables, ``traces`` the files beside them, ``probes`` looks for what is left.
"""

from knowme.forget.scope import Plan, Sample, What, plan, suggest
from knowme.forget.whole import Receipt, Tell, erase, receipts, resume

__all__ = ["Plan", "Receipt", "Sample", "Tell", "What", "erase", "plan", "receipts", "resume",
           "suggest"]  # fmt: skip
