from apps.execution_gateway.key_reads import GATHER_S, KEY_PAUSE_S, KeyReads


def test_the_first_is_read_at_once_and_then_once_a_second():
    reads = KeyReads()
    assert (reads.is_waiting, reads.take(100.0)) == (False, [])
    reads.want("AAPL")
    assert reads.is_waiting
    assert reads.take(100.0) == ["AAPL"]
    reads.want("AAPL")
    reads.want("AAPL")
    assert reads.take(100.9) == []
    assert reads.is_waiting
    assert reads.take(100.0 + KEY_PAUSE_S) == ["AAPL"]
    assert not reads.is_waiting


def test_a_swarm_shares_one_request():
    reads = KeyReads()
    reads.want("A")
    assert reads.take(1.0) == ["A"]
    for symbol in ("B", "C"):
        reads.want(symbol)
        assert reads.take(1.0 + GATHER_S / 2) == []
    assert reads.take(1.0 + GATHER_S) == ["B", "C"]


def test_however_much_is_published_each_key_is_read_once_a_second():
    reads, taken = KeyReads(), 0
    for step in range(10_000):  # ten seconds, a message for each of ten symbols every millisecond
        for number in range(10):
            reads.want(f"S{number}")
        taken += len(reads.take(step / 1000))
    assert taken == 10 * 10
