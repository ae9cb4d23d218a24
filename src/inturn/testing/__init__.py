"""What a user's own tests can build on: the history checker and the adapters' conformance kit."""
