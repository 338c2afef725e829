"""A real single node in private namespaces, and the tests that need real pods."""
