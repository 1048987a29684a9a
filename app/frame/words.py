"""Words on a page: what others wrote is shown as it is, and none of it is taken for Markdown."""

_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]$<>|:#"})


def escape(text: str) -> str:
    """The text with every sign that Markdown would read escaped: no link, image or formula comes of it."""
    return text.translate(_SIGNS)
