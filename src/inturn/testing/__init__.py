"""What a user's own tests can build on: the history checker and the adapters' conformance kit."""

import sys

if "pytest" in sys.modules:
    # The kit is imported, not collected, so pytest has to be told to explain its assertions.
    sys.modules["pytest"].register_assert_rewrite("inturn.testing.conformance")
