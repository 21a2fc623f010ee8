"""Who has submitted what last, within a bound."""

from __future__ import annotations

from crdt_state.bridge.sources import Last, Sources


def test_of_each_source_the_last_is_known() -> None:
    sources = Sources((), 0, 9)
    sources.record(Last("a", 1, 10))
    sources.record(Last("b", 1, 11))
    sources.record(Last("a", 2, 12))
    assert sources.last_of("a") == Last("a", 2, 12)
    assert sources.last_of("c") is None
    assert list(sources) == [Last("b", 1, 11), Last("a", 2, 12)]


def test_beyond_the_bound_whoever_was_silent_longest_is_forgotten_and_that_is_remembered() -> None:
    sources = Sources((), 0, 2)
    for number, source in enumerate("abac", 10):
        sources.record(Last(source, number, number))
    assert sources.last_of("b") is None
    assert sources.forgotten == 11
    assert [last.source for last in sources] == ["a", "c"]


def test_a_copy_goes_its_own_way() -> None:
    sources = Sources([Last("a", 1, 10)], 7, 2)
    copy = sources.copy()
    copy.record(Last("b", 1, 11))
    assert (list(sources), sources.forgotten) == ([Last("a", 1, 10)], 7)
    assert (len(list(copy)), copy.forgotten, copy.most) == (2, 7, 2)


def test_a_smaller_bound_forgets_at_once() -> None:
    sources = Sources([Last("a", 1, 10), Last("b", 1, 11)], 0, 1)
    assert (list(sources), sources.forgotten) == ([Last("b", 1, 11)], 10)
