"""Refused packets find the run whose container sent them, and no other."""

from activities.denials import _AGAIN_MS, _TARGETS, Denials
from crewship.events import Draft
from crewship.netguard.messages import Denial

NOW = 1_700_000_000_000
RUN, OTHER = "172.18.0.2", "172.18.0.3"


def denial(source: str = RUN, *, at: int = 0, host: str = "10.0.0.1", port: int | None = 80) -> Denial:
    return Denial(NOW + at, source, host, port, "tcp")


def test_each_run_is_told_of_its_own() -> None:
    denials, one, other = Denials(), list[Draft](), list[Draft]()
    denials.watch(RUN, NOW, one.append)
    denials.watch(OTHER, NOW, other.append)
    denials.hear(denial())
    denials.hear(denial(OTHER, host="192.168.0.1", port=None))
    denials.hear(denial("172.18.0.9"))
    assert [(draft.type, draft.data) for draft in one] == [
        ("network.denied", {"host": "10.0.0.1", "port": 80, "protocol": "tcp"})
    ]
    assert one[0].at == "2023-11-14T22:13:20.000Z"
    assert [draft.data["host"] for draft in other] == ["192.168.0.1"]


def test_what_came_before_the_run_was_known_is_told_and_an_earlier_containers_is_not() -> None:
    denials, told = Denials(), list[Draft]()
    denials.hear(denial(at=-1, host="10.0.0.1"))
    denials.hear(denial(at=0, host="10.0.0.2"))
    denials.hear(denial(OTHER, host="10.0.0.3"))
    denials.watch(RUN, NOW, told.append)
    assert [draft.data["host"] for draft in told] == ["10.0.0.2"]
    denials.watch(OTHER, NOW, told.append)
    assert [draft.data["host"] for draft in told] == ["10.0.0.2", "10.0.0.3"]


def test_the_same_is_told_again_after_a_while_with_its_count() -> None:
    denials, told = Denials(), list[Draft]()
    denials.watch(RUN, NOW, told.append)
    for at in (0, 1, 2, _AGAIN_MS - 1, _AGAIN_MS, _AGAIN_MS + 1, 3 * _AGAIN_MS):
        denials.hear(denial(at=at))
    assert [draft.data.get("count") for draft in told] == [None, 4, 2]


def test_a_scan_ends_in_silence() -> None:
    denials, told = Denials(), list[Draft]()
    denials.watch(RUN, NOW, told.append)
    for port in range(1, _TARGETS + 100):
        denials.hear(denial(port=port))
    assert len(told) == _TARGETS


def test_an_address_that_another_run_has_by_now_stays_that_ones() -> None:
    denials, first, second = Denials(), list[Draft](), list[Draft]()
    tell_first, tell_second = first.append, second.append
    denials.watch(RUN, NOW, tell_first)
    denials.watch(RUN, NOW + 10, tell_second)
    denials.forget(RUN, tell_first)
    denials.hear(denial(at=20))
    denials.forget(RUN, tell_second)
    denials.hear(denial(at=30, port=81))
    assert (len(first), len(second)) == (0, 1)
