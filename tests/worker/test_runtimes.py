import threading

from taskrunner.worker.runtimes import FOLD, MOST, OTHER, RunTimes


def test_every_attempt_is_in_the_histogram_and_lists_stay_short() -> None:
    times = RunTimes()
    for _ in range(5):
        took = times.of("q", "t")
        assert len(took) <= FOLD
        took.extend([0.003] * (FOLD + 1))
    histogram = times.histograms()["q", "t"]
    assert sum(histogram.counts) == 5 * (FOLD + 1)
    assert times.of("q", "t") == []


def test_beyond_so_many_pairs_the_rest_is_one() -> None:
    times = RunTimes()
    for n in range(MOST + 10):
        times.of("q", f"t{n}").append(1.0)
    found = times.histograms()
    assert len(found) == MOST + 1
    assert sum(found[OTHER].counts) == 10


def test_nothing_is_lost_or_counted_twice_while_somebody_reads() -> None:
    times = RunTimes()
    rounds, done = 200_000, threading.Event()

    def work() -> None:
        for _ in range(rounds // 100):
            took = times.of("q", "t")
            for _ in range(100):
                took.append(0.5)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        times.histograms()
    worker.join()
    assert sum(times.histograms()["q", "t"].counts) == rounds
