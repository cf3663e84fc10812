# Control's list of blocks, and how several nodes keep one without losing an entry.
from __future__ import annotations

import random

import pytest

from edgeproxy.blocklist import MAX_UNSAID, BlockList, Shared
from edgeproxy.policy.blocks import MAX_BLOCKS, Block, Name, Refused

NOW = 1000.0


def block(value: str, until: float = NOW + 60, made: float = 0.0) -> Block:
    return Block("ip", value, until, made, "why")


def values(blocks: BlockList) -> set[str]:
    return {each.value for each in blocks.blocks}


def sharing() -> BlockList:
    """A list that is shared."""
    made = BlockList()
    made.shared = True
    return made


class Store:
    """The shared list, as list.lua keeps it."""

    def __init__(self) -> None:
        self.lose()

    def lose(self) -> None:
        self.epoch, self.version, self.entries = b"", 0, dict[Name, Block]()

    def sync(self, blocks: BlockList, fresh: bytes, *, heard: bool = True) -> bool:
        """A node speaks with it. `heard`: the answer arrives."""
        said = blocks.unsaid()
        self.epoch = self.epoch or fresh
        for name, each in said.items():
            if each is None:
                self.entries.pop(name, None)
            else:
                self.entries[name] = each
        self.version += bool(said)
        known = (blocks.epoch, blocks.version) == (self.epoch, b"%d" % self.version)
        answer = Shared(self.epoch, b"%d" % self.version, None if known else list(self.entries.values()))
        return heard and blocks.heard(answer, said, NOW)


def test_put_take_and_expire() -> None:
    blocks = BlockList()
    assert blocks.put(block("a"), NOW) and blocks.put(block("b", NOW + 5), NOW)
    assert blocks.put(block("a", NOW + 9), NOW) and len(blocks) == 2
    assert not blocks.expire(NOW + 4) and blocks.expire(NOW + 5) and values(blocks) == {"a"}
    assert blocks.put(block("a", NOW), NOW) and not blocks.put(block("a", NOW), NOW)
    assert blocks.counts() == {"ip": 0, "network": 0, "ja4": 0, "key": 0}


def test_a_full_list_takes_no_more_but_changes() -> None:
    blocks = BlockList(block(f"{n}") for n in range(MAX_BLOCKS))
    with pytest.raises(Refused):
        blocks.put(block("more"), NOW)
    assert blocks.put(block("7", NOW + 99), NOW)


def test_nothing_is_kept_for_a_shared_list_that_is_not_there() -> None:
    alone, store, other = BlockList(), Store(), sharing()
    for n in range(100):
        alone.put(block(f"{n}"), NOW)
        alone.put(block(f"{n}", NOW), NOW)
    assert not alone.unsaid() and not alone._unsaid
    alone.put(block("a"), NOW)
    alone.shared = True  # a reload brought a store
    store.sync(alone, b"x")
    store.sync(alone, b"y")
    store.sync(other, b"z")
    assert values(other) == {"a"}


def test_what_waits_for_a_store_that_is_away_is_bounded() -> None:
    one = sharing()
    one.put(block("live"), NOW)
    for n in range(MAX_UNSAID + 50):
        one.put(block(f"{n}"), NOW)
        one.put(block(f"{n}", NOW), NOW)
    assert len(one._unsaid) == MAX_UNSAID and one._unsaid["ip", "live"] is not None
    assert ("ip", f"{MAX_UNSAID + 49}") in one._unsaid


def test_two_nodes_add_at_once() -> None:
    store, one, other = Store(), sharing(), sharing()
    one.put(block("a"), NOW)
    other.put(block("b"), NOW)
    store.sync(one, b"1")
    assert store.sync(other, b"2") and store.sync(one, b"1")
    assert values(one) == values(other) == {"a", "b"}
    one.put(block("b", NOW), NOW)
    store.sync(one, b"1")
    store.sync(other, b"2")
    assert values(one) == values(other) == {"a"}
    assert not store.sync(one, b"1") and not store.sync(other, b"2")  # nothing new is no change


def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    store, one = Store(), sharing()
    one.put(block("a"), NOW)
    store.sync(one, b"1", heard=False)
    assert set(one.unsaid()) == {("ip", "a")}
    store.sync(one, b"1")
    assert not one.unsaid() and values(one) == {"a"}


def test_what_changes_while_a_question_is_under_way_is_said_next() -> None:
    one = sharing()
    one.put(block("a"), NOW)
    said = one.unsaid()
    one.put(block("a", NOW + 99), NOW)
    one.put(block("b"), NOW)
    one.heard(Shared(b"1", b"1", [block("a")]), said, NOW)
    assert {each.value: each.until for each in one.blocks} == {"a": NOW + 99, "b": NOW + 60}
    assert set(one.unsaid()) == {("ip", "a"), ("ip", "b")}


def test_a_store_that_lost_its_data_gets_them_back() -> None:
    store, one, other = Store(), sharing(), sharing()
    for blocks, value in ((one, "a"), (other, "b")):
        blocks.put(block(value), NOW)
        store.sync(blocks, b"1")
    store.sync(one, b"1")
    store.lose()
    for _ in range(2):
        store.sync(one, b"2")
        store.sync(other, b"3")
    store.sync(one, b"2")
    assert values(one) == values(other) == {"a", "b"} == {each.value for each in store.entries.values()}


@pytest.mark.parametrize("seed", range(30))
def test_nodes_agree_in_the_end(seed: int) -> None:
    rand, store, nodes = random.Random(seed), Store(), [sharing() for _ in range(3)]
    last: dict[str, bool] = {}
    for step in range(200):
        node = rand.choice(nodes)
        if rand.random() < 0.5:
            value, add = rand.choice("abcdefgh"), rand.random() < 0.6
            node.put(block(value, NOW + 60 if add else NOW, step), NOW)
            store.sync(node, b"%d" % step)  # at once: the last word is well known
            last[value] = add
        else:
            store.sync(node, b"%d" % step, heard=rand.random() < 0.7)
    for _ in range(2):
        for node in nodes:
            store.sync(node, b"x")
    assert [values(node) for node in nodes] == [{value for value, add in last.items() if add}] * 3
