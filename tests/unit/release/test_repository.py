"""What a release looks up in git, and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.testbed import ROOT

from release.__main__ import refusal
from release.repository import Repository
from release.versions import versions

VERSION = next(iter(versions(ROOT).values()))


class Checkout:
    """A repository with one commit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.repository = Repository(folder)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("feat: begin")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        command = ["git", "-C", str(self._folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def refusal(self, version: str = VERSION) -> str | None:
        return refusal(version, self.repository, ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_clean_checkout_is_released(checkout: Checkout) -> None:
    assert checkout.refusal() is None
    checkout.git("tag", f"v{VERSION}")
    assert checkout.refusal() is None, "by a workflow that the tag has started"


def test_changes_that_are_not_committed(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    assert "not committed" in (checkout.refusal() or "")


def test_a_tag_of_another_commit(checkout: Checkout) -> None:
    checkout.git("tag", "--annotate", "--message=it", f"v{VERSION}")
    checkout.commit("fix: more")
    assert f"the tag v{VERSION} is at another commit" in (checkout.refusal() or "")


def test_another_version_than_that_of_the_files(checkout: Checkout) -> None:
    assert "the repository is not at 99.0.0" in (checkout.refusal("99.0.0") or "")


def test_the_commits_since_the_last_release(checkout: Checkout) -> None:
    assert checkout.repository.messages_since_release("v0.1.0") == ["feat: begin"]
    checkout.git("tag", "v0.1.0")
    checkout.commit("fix: second\n\nWith a body.")
    checkout.git("tag", "v0.2.0")
    assert checkout.repository.messages_since_release("v0.2.0") == ["fix: second\n\nWith a body."]
