"""Every relative link in a Markdown file leads to a file, and every anchor to a heading."""

import re

from tidy.source_tree import TOP, tracked_files

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Make the anchors of the headings as a forge does: lower case, spaces to hyphens, punctuation dropped."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_resolve() -> None:
    broken = []
    for page in tracked_files("*.md"):
        text = page.read_text(encoding="utf-8")
        for one, other in LINK.findall(FENCE.sub("", text)):
            link = one or other
            if re.match(r"[a-z][a-z+.-]*:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
                broken.append(f"{page.relative_to(TOP)}: {link}")
    assert not broken


def test_every_page_of_the_docs_is_linked_from_the_readme() -> None:
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    unlinked = [page.name for page in sorted((TOP / "docs").glob("*.md")) if f"docs/{page.name}" not in readme]
    assert not unlinked
