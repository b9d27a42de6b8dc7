from cli.sparkline import graphs, sparkline


def test_bars_reach_from_zero_to_the_most() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"


def test_the_largest_of_what_shares_a_place_is_shown() -> None:
    assert sparkline([0, 0, 0, 9, 0, 0, 0, 0], width=4) == "▁█▁▁"


def test_graphs_of_a_run() -> None:
    def sample(second: int, **values: float | None) -> dict[str, object]:
        names = (
            "cpu_seconds",
            "memory_bytes",
            "pids",
            "network_rx_bytes",
            "network_tx_bytes",
            "disk_read_bytes",
            "disk_write_bytes",
        )
        return {"at": f"2026-01-01T00:00:{second:02d}.000Z", **dict.fromkeys(names), **values}

    samples = [
        sample(0, cpu_seconds=0.0, memory_bytes=1_000_000, network_rx_bytes=0, network_tx_bytes=0),
        sample(1, cpu_seconds=0.5, memory_bytes=2_000_000, network_rx_bytes=500, network_tx_bytes=500),
        sample(2, cpu_seconds=1.5, memory_bytes=1_000_000, network_rx_bytes=500, network_tx_bytes=500),
    ]
    assert graphs(samples) == [
        ("cpu", "▅█  at most 100 %"),
        ("memory", "▅█▅  at most 2.0 MB"),
        ("network", "█▁  at most 1.0 kB/s"),
        ("", "over 2.0 s"),
    ]
    assert graphs(samples[:1]) == []
