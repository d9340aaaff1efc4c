"""One connection per key and path, and how long a lost one keeps its slot."""

from apps.alpaca_simulator.connections import ConnectionSlots


def test_one_connection_per_key_and_path():
    slots = ConnectionSlots()
    assert slots.claim("iex", "K", holder=1, now_s=0)
    assert slots.claim("iex", "K", holder=1, now_s=1)
    assert not slots.claim("iex", "K", holder=2, now_s=1)
    assert slots.claim("test", "K", holder=2, now_s=1)
    assert slots.claim("iex", "L", holder=3, now_s=1)


def test_a_clean_close_frees_the_slot_at_once():
    slots = ConnectionSlots()
    slots.claim("iex", "K", holder=1, now_s=0)
    slots.claim("iex", "L", holder=2, now_s=0)
    slots.release(1, now_s=5, hold_s=0)
    assert slots.claim("iex", "K", holder=3, now_s=5)
    assert not slots.claim("iex", "L", holder=3, now_s=5)


def test_a_lost_connection_keeps_its_slot_for_a_while():
    slots = ConnectionSlots()
    slots.claim("iex", "K", holder=1, now_s=0)
    slots.release(1, now_s=10, hold_s=90)
    assert slots.held_until_s(now_s=99.9) == 100
    assert slots.held_until_s(now_s=100) is None
    assert not slots.claim("iex", "K", holder=2, now_s=99.9)
    assert slots.claim("iex", "K", holder=2, now_s=100)


def test_without_a_hold_a_lost_connection_frees_its_slot():
    slots = ConnectionSlots()
    slots.claim("iex", "K", holder=1, now_s=10)
    slots.release(1, now_s=10, hold_s=0)
    assert slots.claim("iex", "K", holder=2, now_s=10)


def test_a_restart_forgets_everybody():
    slots = ConnectionSlots()
    slots.claim("iex", "K", holder=1, now_s=0)
    slots.free_all()
    assert slots.claim("iex", "K", holder=2, now_s=0)
