"""Of a stop and a success the first is what happened."""

from activities.stops import Stops


def test_a_stop_that_is_first_keeps_a_success_from_being_taken_for_whole() -> None:
    stops = Stops()
    event = stops.watch("run_1")
    assert stops.request("run_1")
    assert event.is_set()
    assert not stops.settle("run_1")


def test_a_success_that_is_first_leaves_nothing_to_stop_until_its_supervisor_is_dismissed() -> None:
    stops = Stops()
    event = stops.watch("run_1")
    assert stops.settle("run_1")
    stops.forget("run_1")  # its activity is over
    assert not stops.request("run_1")
    assert not event.is_set()
    stops.dismissed("run_1")
    assert stops.request("run_1")


def test_who_adopts_can_be_stopped() -> None:
    stops = Stops()
    stops.watch("run_1")
    assert stops.settle("run_1")
    stops.forget("run_1")
    assert not stops.watch("run_1").is_set()
    assert stops.request("run_1")


def test_who_is_not_watched_is_not_settled() -> None:
    assert not Stops().settle("run_1")
