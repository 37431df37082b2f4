"""The image of the pod sandbox, assembled without any tool."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

PAUSE = "localhost/wasession/pause:1"


def pause_archive(target: Path, program: Path) -> Path:
    """Write an OCI archive to ``target`` whose image runs ``program``; return its path."""
    if target.exists():
        return target
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(program, "pause")
    blobs = {}

    def blob(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    layers = [blob(layer.getvalue(), "layer.v1.tar")]
    config = blob(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": ["/pause"]},
                "rootfs": {"type": "layers", "diff_ids": [layers[0]["digest"]]},
            }
        ).encode(),
        "config.v1+json",
    )
    manifest = {"schemaVersion": 2, "config": config, "layers": layers}
    described = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    described["annotations"] = {"io.containerd.image.name": PAUSE}
    index = {"schemaVersion": 2, "manifests": [described]}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }
    # Nodes boot side by side, and each may be the first to need it.
    with (
        tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial,
        tarfile.open(fileobj=partial, mode="w") as archive,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return Path(partial.name).rename(target)
