"""The conformance kit: does an adapter keep every promise of `inturn.persistence.adapter`?

Subclass `AdapterConformance` in a test module, and give it your adapter:

    import functools

    import pytest
    from inturn.testing.conformance import AdapterConformance

    class TestMyAdapter(AdapterConformance):
        @pytest.fixture
        def adapter(self, tmp_path):
            with MyAdapter(tmp_path / "store") as adapter:
                yield adapter

        @pytest.fixture
        def reopen(self, adapter, tmp_path):
            return functools.partial(MyAdapter, tmp_path / "store")

`adapter` is initialised; its store need not be empty, for all IDs are new. `reopen` makes another adapter on
the same store, which the kit closes; where it can be pickled (a lambda cannot) the kit opens the store in
other processes too. Tests that need what is not there are skipped, with the reason.

`long_session`, `kills`, `examples` and `steps` set on the class say how much is tried.
"""

from inturn.testing.conformance.commits import CommitConformance
from inturn.testing.conformance.crashes import CrashConformance
from inturn.testing.conformance.deletions import DeletionConformance
from inturn.testing.conformance.input import InputConformance
from inturn.testing.conformance.lengths import LengthConformance
from inturn.testing.conformance.lifecycle import LifecycleConformance
from inturn.testing.conformance.listings import ListingConformance
from inturn.testing.conformance.loads import LoadConformance
from inturn.testing.conformance.machine import MachineConformance
from inturn.testing.conformance.races import RaceConformance
from inturn.testing.conformance.rewriting import RewritingConformance

__all__ = ["AdapterConformance"]


class AdapterConformance(
    LifecycleConformance,
    LoadConformance,
    CommitConformance,
    ListingConformance,
    DeletionConformance,
    InputConformance,
    RaceConformance,
    CrashConformance,
    LengthConformance,
    RewritingConformance,
    MachineConformance,
):
    """Every test there is. Needs the fixture `adapter`; `reopen` is optional."""
