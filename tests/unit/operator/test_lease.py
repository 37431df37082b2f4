"""What is read from Leases, which anybody with the right to may edit."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_operator.sharding.lease import (
    ANNOTATION_NAMESPACES,
    ANNOTATION_OPERATOR,
    ANNOTATION_SHARDS,
    LABEL_LEASE,
    LONGEST,
    Installation,
    LeaseKind,
    held_by,
    make_lease,
    member_lease_name,
    parse_lease,
    shard_lease_name,
    shard_of,
)

INSTALLATION = Installation("system", "wasession", ("a", "b"), 4)
SHARDS = [0, 2, 0, 2, 1, 3, 1, 3]  # of ns/s-0 to ns/s-7
IDENTITY = {"uid": "uid-1", "resourceVersion": "7"}


def stored(index: int | None = 2, **spec: Any) -> dict[str, Any]:
    """Return a Lease as the API server has it."""
    made = make_lease(INSTALLATION, "name", index, held_by("pod-1", 10) | spec)
    return {**made, "metadata": made["metadata"] | IDENTITY}


@pytest.mark.parametrize("index", [0, 3, None])
@pytest.mark.parametrize("namespaces", [(), ("a",), ("a", "b")])
def test_what_is_written_is_read(index: int | None, namespaces: tuple[str, ...]) -> None:
    installation = Installation("system", "wasession", namespaces, 4)
    made = make_lease(installation, "name", index, held_by("pod-1", 10))
    lease = parse_lease({**made, "metadata": made["metadata"] | IDENTITY})
    assert lease is not None
    assert lease.kind is (LeaseKind.MEMBER if index is None else LeaseKind.SHARD)
    assert (lease.installation, lease.index) == (installation, index)
    assert (lease.key, lease.uid, lease.version) == (("system", "name"), "uid-1", "7")
    assert (lease.holder, lease.duration) == ("pod-1", 10)


def test_a_released_lease_has_no_holder() -> None:
    assert (lease := parse_lease(stored(holderIdentity=""))) is not None
    assert lease.holder == ""
    bare = {key: value for key, value in stored().items() if key != "spec"}
    assert (lease := parse_lease(bare)) is not None
    assert (lease.holder, lease.renewed, lease.transitions) == ("", "", 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (LABEL_LEASE, "other"),
        (LABEL_LEASE, "member"),
        (ANNOTATION_OPERATOR, ""),
        (ANNOTATION_OPERATOR, "wasession"),
        (ANNOTATION_NAMESPACES, ""),
        (ANNOTATION_SHARDS, ""),
        (ANNOTATION_SHARDS, "4"),
        (ANNOTATION_SHARDS, "2/0"),
        (ANNOTATION_SHARDS, "2/-4"),
        (ANNOTATION_SHARDS, "x/4"),
        (ANNOTATION_SHARDS, "1/2/4"),
        (ANNOTATION_SHARDS, "4/4"),
        (ANNOTATION_SHARDS, "-1/4"),
    ],
)
def test_an_edited_lease_is_none_of_an_operator(key: str, value: str) -> None:
    lease = stored()
    of = lease["metadata"]["labels" if key == LABEL_LEASE else "annotations"]
    of[key] = value
    assert parse_lease(lease) is None
    del of[key]
    assert parse_lease(lease) is None


def test_a_lease_speaks_for_the_installation_of_its_own_namespace() -> None:
    """Who may write Leases elsewhere cannot pretend to be another release."""
    obj = stored()
    assert parse_lease({**obj, "metadata": obj["metadata"] | {"namespace": "tenant"}}) is None


def test_no_lease_lasts_for_ever() -> None:
    durations = {-5: 1, 0: 1, 15: 15, 10**9: LONGEST}
    for written, read in durations.items():
        assert (lease := parse_lease(stored(leaseDurationSeconds=written))) is not None
        assert lease.duration == read


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)
texts = st.text(max_size=12) | st.from_regex(r"[0-9/*,-]{0,9}|a/b|shard|member", fullmatch=True)


@given(
    labels=anything | st.dictionaries(st.just(LABEL_LEASE), texts | anything),
    annotations=anything
    | st.dictionaries(
        st.sampled_from([ANNOTATION_OPERATOR, ANNOTATION_NAMESPACES, ANNOTATION_SHARDS]),
        texts | anything,
    ),
    spec=anything
    | st.dictionaries(
        st.sampled_from(
            ["holderIdentity", "renewTime", "leaseDurationSeconds", "leaseTransitions"]
        ),
        anything,
    ),
    keeps=st.sets(st.sampled_from(["labels", "annotations"])),
)
def test_whatever_is_edited_can_be_read(
    labels: Any, annotations: Any, spec: Any, keeps: set[str]
) -> None:
    obj = stored()
    edited = {"labels": labels, "annotations": annotations}
    obj["metadata"] |= {key: value for key, value in edited.items() if key not in keeps}
    obj["spec"] = spec
    lease = parse_lease(obj)
    if lease is None:
        return
    assert isinstance(lease.holder, str)
    assert isinstance(lease.renewed, str)
    assert 1 <= lease.duration <= LONGEST
    assert lease.transitions >= 0
    assert lease.index is None or 0 <= lease.index < lease.installation.shards
    assert (lease.kind is LeaseKind.SHARD) == (lease.index is not None)


# --- installations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "shares", "competes"),
    [
        (Installation("system", "wasession", ("a", "b"), 4), True, False),
        (Installation("system", "wasession", ("c",), 4), True, False),
        (Installation("system", "wasession", ("a", "b"), 2), False, True),
        (Installation("system", "wasession", ("c",), 2), False, True),
        (Installation("other", "wasession", ("b",), 4), False, True),
        (Installation("system", "other", ("b", "c"), 4), False, True),
        (Installation("system", "other", (), 4), False, True),
        (Installation("system", "other", ("c", "d"), 4), False, False),
    ],
)
def test_who_would_act_on_the_same_sessions(
    other: Installation, shares: bool, competes: bool
) -> None:
    for one, two in ((INSTALLATION, other), (other, INSTALLATION)):
        assert one.shares_leases_with(two) is shares
        assert one.competes_with(two) is competes


def test_names_of_leases_are_names_of_objects() -> None:
    """A pod's name may be as long as a Lease's, and begins with the Deployment's."""
    assert shard_lease_name(INSTALLATION, 3) == "wasession-shard-3-of-4"
    assert member_lease_name(INSTALLATION, "pod-1") == "wasession-member-pod-1"
    for length in range(230, 254):
        name = member_lease_name(INSTALLATION, "p" * (length - 6) + ".x-abc")
        assert len(name) <= 253
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name)
    pod = f"{'p' * 246}-12345"
    assert member_lease_name(INSTALLATION, pod).endswith(pod), "no two pods have the same"


def test_shards_have_about_as_many_sessions() -> None:
    keys = [(f"team-{number % 7}", f"session-{number:05}") for number in range(20_000)]
    counts = Counter(shard_of(key, 4) for key in keys)
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) < 1.1 * min(counts.values())
    assert {shard_of(key, 1) for key in keys} == {0}


def test_the_shard_of_a_session_never_changes() -> None:
    """Replicas of two versions have to agree during an upgrade."""
    assert [shard_of(("ns", f"s-{number}"), 4) for number in range(8)] == SHARDS
