"""The deck: every kind comes, the same seed deals the same, and what cannot be now waits for its turn."""

from dataclasses import dataclass
from random import Random

from tests.soak.kinds import KINDS
from tests.soak.plan import Deck, companions


@dataclass(frozen=True)
class Card:
    name: str
    touches: frozenset[str] = frozenset()
    may_overlap: bool = True


CARDS = [Card(name) for name in "abcdefgh"]


def dealt(seed: int, count: int) -> str:
    deck = Deck(CARDS, Random(seed))
    return "".join(card.name for _ in range(count) if (card := deck.draw(lambda _: True)) is not None)


def test_every_kind_comes_once_before_any_comes_again() -> None:
    both = dealt(1, 16)
    assert sorted(both[:8]) == sorted(both[8:]) == list("abcdefgh")


def test_the_same_seed_deals_the_same() -> None:
    assert dealt(3, 24) == dealt(3, 24)
    assert dealt(3, 24) != dealt(4, 24)


def test_what_is_not_possible_now_keeps_its_place() -> None:
    deck = Deck(CARDS, Random(1))
    first = dealt(1, 1)
    second = deck.draw(lambda card: card.name != first)
    assert second is not None
    assert second.name != first
    third = deck.draw(lambda _: True)
    assert third is not None
    assert third.name == first
    assert deck.draw(lambda _: False) is None


def test_what_one_would_rather_have_comes_first_when_it_can() -> None:
    deck = Deck(CARDS, Random(1))
    taken = [deck.draw(lambda card: card.name != "c", rather=lambda card: card.name in "cf") for _ in range(8)]
    names = [card.name if card is not None else "" for card in taken]
    assert names[0] == "f"
    assert names[-1] == ""
    assert sorted(names[1:-1]) == list("abdegh")


def test_only_what_takes_hold_of_other_parts_comes_at_the_same_time() -> None:
    link, redis = Card("drop", frozenset({"link"})), Card("killed", frozenset({"redis"}))
    alone = Card("closed", frozenset({"market"}), may_overlap=False)
    assert companions(link)(redis)
    assert not companions(link)(Card("mute", frozenset({"link", "data"})))
    assert not companions(link)(alone)
    assert not companions(alone)(redis)


def test_the_kinds_have_names_of_their_own_and_bounds_that_make_sense() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert 0 <= kind.hold_s[0] <= kind.hold_s[1]
        assert kind.touches
