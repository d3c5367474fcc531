"""One thin module per server or framework, imported as `graceful.integrations.<name>`.

Nothing above this floor imports these modules at its top; each imports its own server or
framework plainly and is loaded only when that one is present.
"""

if __name__ != "graceful.integrations":  # pragma: no cover - a guard against sys.path accidents
    raise ImportError(
        f"this package was imported as {__name__!r}; import it as 'graceful.integrations' "
        "(the checkout's top folder must not serve as a package root for it)"
    )
