"""stub"""

POLICY = "default-src 'none'"


def page(name: str, locked: bool) -> str:
    return ""
