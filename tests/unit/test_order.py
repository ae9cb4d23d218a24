"""How tests are dealt to processes: all of them, and those that wait to half of the processes."""

from __future__ import annotations

import pytest

from tests.order import deal


class Test(pytest.Item):
    __test__ = False

    def runtest(self) -> None: ...

    def reportinfo(self) -> tuple[str, None, str]:
        return f"test_{self.name}.py", None, self.name


@pytest.fixture
def items(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Six of processes, twenty others and two long ones, each kind in a module of its own."""
    found: list[pytest.Item] = []
    for kind, number in (("process", 6), ("others", 20), ("long", 2)):
        for _ in range(number):
            item = Test.from_parent(request.session, name=kind)
            if kind != "others":
                item.add_marker(kind)
            found.append(item)
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 5, 40])
def test_each_is_dealt_once(items: list[pytest.Item], processes: int) -> None:
    assert sorted(map(id, deal(items, processes))) == sorted(map(id, items))


def test_half_of_the_processes_begin_with_the_long_ones_and_take_what_waits(items: list[pytest.Item]) -> None:
    names = [item.name for item in deal(items, 4)]
    first, second, third, fourth = (names[start : start + 7] for start in range(0, 28, 7))

    assert first == ["long", *["process"] * 6]
    assert second == ["long", *["others"] * 6]
    assert set(third + fourth) == {"others"}
