"""``python -m release VERSION``: build a release of a clean checkout into ``build/release``.

It is signed with the private key in the file ``KEY``, whose password is ``KEY_PASSWORD``. Of the
environment: ``SOURCE`` is the address of the repository, ``BUILDER`` that of who builds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from support.cluster.images import PROCESSORS

from release import build, provenance, signature
from release.build import FOLDER
from release.notes import notes
from release.repository import Repository
from release.versions import why_not

UNKNOWN = "urn:unknown"  # where nobody has said


def main() -> None:
    arguments = parser().parse_args()
    repository = Repository(build.ROOT)
    if reason := refusal(arguments.version, repository, build.ROOT):
        sys.exit(f"no release: {reason}")
    try:
        key = signature.load_key(Path(arguments.key), os.environ.get("KEY_PASSWORD"))
    except signature.KeyNotUsable as error:
        sys.exit(f"no release: {error}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    make_parts(arguments.version, arguments.architectures.split(","), repository)
    (FOLDER / "release-notes.md").write_text(
        notes(arguments.version, repository.messages_since_release(f"v{arguments.version}"))
    )
    attest(arguments.version, repository, os.environ)
    sums = signature.checksums(digests())
    (FOLDER / "SHA256SUMS").write_text(sums)
    (FOLDER / "SHA256SUMS.sig").write_text(signature.sign(key, sums))
    (FOLDER / "cosign.pub").write_text(signature.public_key(key))
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.stat().st_size:>12,}  {file.relative_to(build.ROOT)}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m release", description="Build a release.")
    made.add_argument("version", help="such as 1.2.3, without a v")
    made.add_argument("--key", required=True, help="a private key of ECDSA P-256 in PEM")
    made.add_argument("--architectures", default=",".join(PROCESSORS), help="of the images")
    return made


def refusal(version: str, repository: Repository, root: Path) -> str | None:
    """Return why there can be no such release of this checkout."""
    if reason := why_not(version, root):
        return reason
    if not repository.is_clean:
        return "the checkout has changes that are not committed"
    if other := repository.other_commit_of(f"v{version}"):
        return f"the tag v{version} is at another commit, {other}"
    return None


def make_parts(version: str, architectures: list[str], repository: Repository) -> None:
    moment = repository.committed_at
    build.build_chart(version, FOLDER)
    build.build_crds(version, FOLDER)
    build.build_api_documents(version, FOLDER)
    build.build_wheels(FOLDER, moment)
    for architecture in architectures:
        for target in build.IMAGES:
            build.build_image(target, architecture, version, FOLDER, moment)


def attest(version: str, repository: Repository, environment: Mapping[str, str]) -> None:
    """Write where everything that is in the folder is from."""
    source = environment.get("SOURCE") or UNKNOWN
    builder = environment.get("BUILDER") or UNKNOWN
    text = provenance.statement(
        version, digests(), repository.revision, source, builder, repository.committed_at
    )
    (FOLDER / "provenance.intoto.json").write_text(text)


def digests() -> dict[str, str]:
    return {file.name: signature.sha256(file) for file in FOLDER.iterdir()}


if __name__ == "__main__":
    main()
