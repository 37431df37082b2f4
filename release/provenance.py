"""What a release was built from and by whom: an in-toto statement with SLSA's predicate: pure.

https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD_TYPE = "make-release/v1"


def statement(
    version: str, digests: Mapping[str, str], revision: str, source: str, builder: str, at: datetime
) -> str:
    """Return the statement about files, given their SHA-256 by name.

    ``source`` is the address of the repository, ``builder`` that of who ran the build.
    """
    material = {"uri": f"git+{source}", "digest": {"gitCommit": revision}}
    predicate = {
        "buildDefinition": {
            "buildType": f"{source}/{BUILD_TYPE}",
            "externalParameters": {"version": version},
            "resolvedDependencies": [material],
        },
        "runDetails": {"builder": {"id": builder}, "metadata": {"finishedOn": at.isoformat()}},
    }
    subject = [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)]
    document = {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": predicate,
    }
    return json.dumps(document, indent=2) + "\n"
