"""`crdt_state.protocol.sharedb.codes`: what is sent has a meaning, and nothing harmful is."""

from __future__ import annotations

from crdt_state.protocol.sharedb.codes import CODES, OURS, Code


def test_every_code_that_is_sent_says_when() -> None:
    assert len(Code) > 20
    for code in Code:
        meaning = CODES.get(code) or OURS[code]
        assert meaning.says
        assert meaning.sent


def test_what_is_not_sent_has_a_meaning_all_the_same() -> None:
    silent = {code for code, meaning in CODES.items() if not meaning.sent}
    assert silent == set(CODES) - set(Code)
    assert all(CODES[code].says for code in silent)


def test_no_edit_is_lost_in_silence() -> None:
    for code in (
        "ERR_OP_SUBMIT_REJECTED",
        "ERR_SNAPSHOT_READ_SILENT_REJECTION",
        "ERR_OP_ALREADY_SUBMITTED",
    ):
        assert code in CODES
        assert code not in set(Code)
