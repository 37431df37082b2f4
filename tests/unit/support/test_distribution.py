"""The order of the suite."""

from __future__ import annotations

from support.distribution import group, rank

E2E = ["tests/e2e/test_causes.py::test_a", "tests/e2e/test_session.py::test_b"]
RIGHTS = "tests/e2e/test_rights.py::test_c"


def test_what_looks_back_on_the_end_to_end_tests_follows_them() -> None:
    others = ["tests/unit/cli/test_qr.py::test_d", "tests/integration/pod/test_login.py::test_e"]
    order = sorted([*others, RIGHTS, *E2E], key=rank)
    assert order == [*E2E, RIGHTS, *reversed(others)]
    assert {group(nodeid) for nodeid in (*E2E, RIGHTS)} == {"cluster"}
