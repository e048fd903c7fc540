"""Damaged ledgers: what has to be refused by whoever reads one."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.errors import LedgerError
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.verify import Verification, verify_file


def refused(path: Path, content: bytes) -> Verification:
    """Check that verifier and reader both refuse, and return what the verifier found."""
    path.write_bytes(content)
    verification = verify_file(path)
    assert not verification.ok, "the verifier let it pass"
    with pytest.raises(LedgerError):
        read_ledger(path)
    return verification
