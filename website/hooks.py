"""What MkDocs does for this repository besides building docs/: pages made of other files.

READMEs of the programs and the changelog are pages of the site where they are; the reference comes
from the CRDs and from the tables of the HTTP APIs. Nothing of it is written to docs/.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reference
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from wasession_gateway import operations as gateway
from wasession_pod.api import operations as session_pod

ROOT = Path(__file__).parents[1]
DOCS = "docs"
# Pages of the site that stand elsewhere in the repository.
PAGES = {
    "reference/kubectl-wasession.md": "cli/README.md",
    "reference/chart.md": "charts/wasession-operator/README.md",
    "reference/gateway.md": "gateway/README.md",
    "reference/session-pod.md": "session-pod/README.md",
    "reference/operator.md": "operator/README.md",
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/tests.md": "tests/README.md",
    "project/stand-in.md": "tests/support/standin/README.md",
    "project/vulnerabilities.md": "SECURITY.md",
}
CRDS = {
    "reference/whatsappsession.md": "wasession.dev_whatsappsessions.yaml",
    "reference/whatsappsessionclass.md": "wasession.dev_whatsappsessionclasses.yaml",
    "reference/whatsappsessionbackup.md": "wasession.dev_whatsappsessionbackups.yaml",
}
APIS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "reference/gateway-api": ("REST API of the gateway", gateway.document),
    "reference/session-pod-api": ("HTTP API of the session pod", session_pod.api_document),
}
FENCE = re.compile(r"^ *(```|~~~)")
LINK = re.compile(r"(?P<text>\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^()\s]+)\)")
EXTERNAL = re.compile(r"[a-z]+:|#")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder into the navigation where it names the folder, such as runbooks/.

    A folder that is not there is left out.
    """
    config.nav = _with_folders(config.nav, Path(config.docs_dir))
    return config


def _with_folders(entry: Any, docs: Path) -> Any:
    if isinstance(entry, list):
        return [each for each in (_with_folders(each, docs) for each in entry) if each]
    if isinstance(entry, dict):
        [(title, inner)] = entry.items()
        inner = _with_folders(inner, docs)
        return {title: inner} if inner else None
    if entry.endswith("/"):
        return [page.relative_to(docs).as_posix() for page in sorted((docs / entry).glob("*.md"))]
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""

    def add(path: str, content: str) -> None:
        files.append(File.generated(config, path, content=content))

    for path, source in PAGES.items():
        add(path, (ROOT / source).read_text())
    for path, name in CRDS.items():
        add(path, reference.custom_resource(yaml.safe_load((ROOT / "crds" / name).read_text())))
    for path, (title, make) in APIS.items():
        document, source = make(), f"{posixpath.basename(path)}.json"
        add(f"{path}.json", json.dumps(document, indent=2))
        add(f"{path}.md", reference.rest(title, document, source))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let relative links lead where they do in the repository.

    To a page of the site, or to the repository at ``extra.source``; without that, a link to a file
    that is not in the site is its text alone.
    """
    source = PAGES.get(page.file.src_uri, f"{DOCS}/{page.file.src_uri}")

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if EXTERNAL.match(target) or _is_generated(page.file.src_uri):
            return found[0]
        path, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if (inside := _page_of(path)) is not None:
            relative = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
            return f"{found['text']}({relative}{hash_}{anchor})"
        if not (ROOT / path).exists():
            return found[0]  # MkDocs reports it
        repository = config.extra.get("source")
        if not repository:
            return found["text"][1:-1]
        return f"{found['text']}({repository.rstrip('/')}/blob/main/{path}{hash_}{anchor})"

    return _outside_code(markdown, lambda text: LINK.sub(link, text))


def _is_generated(path: str) -> bool:
    return path in CRDS or path.removesuffix(".md") in APIS


def _page_of(path: str) -> str | None:
    """Return the path in the site of a file of the repository."""
    for page, source in PAGES.items():
        if path == source:
            return page
    inside = posixpath.relpath(path, DOCS)
    virtual = inside in CRDS or inside.removesuffix(".md") in APIS or inside in PAGES
    here = not inside.startswith("..") and (ROOT / path).is_file()
    return inside if virtual or here else None


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change the text between fenced code; what is changed may span lines."""
    parts, text, fence = [], list[str](), ""
    for line in markdown.splitlines(keepends=True):
        mark = FENCE.match(line)
        if not mark and not fence:
            text.append(line)
            continue
        parts += [change("".join(text)), line]
        text.clear()
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
    return "".join([*parts, change("".join(text))])
