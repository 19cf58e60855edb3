"""Check that pull requests' code answers on another site than the shop.

A host may set cookies for its registrable domain, so for every host below that, and browsers take two hosts of one registrable
domain for one site: `SameSite` cookies go along, and so do rights that are given to a site. A preview runs code that nobody has
reviewed, so it gets a registrable domain that is not the shop's.

Which names are registrable is the Public Suffix List's to say, as browsers do (publicsuffix.org; a name that no rule matches has
the rule `*`). The list comes with the package publicsuffixlist, pinned by hash; nothing is fetched.
Sources: RFC 6265, sections 5.3 (domain attribute, public suffixes) and 4.1.2.3; html.spec.whatwg.org, "same site".
"""

from __future__ import annotations

from functools import cache

from publicsuffixlist import PublicSuffixList


def site(host: str) -> str:
    """Return what a browser takes for the host's site: its registrable domain; a public suffix is a site by itself."""
    return _public_suffixes().privatesuffix(host) or host


def preview_host(stack: str, preview_domain: str) -> str:
    """Return the name under which a preview is reached."""
    return f"{stack}.{preview_domain}"


def is_shared(domain: str, preview_domain: str) -> bool:
    """Tell whether a browser takes a preview and the shop for one site."""
    return site(preview_host("pr-1", preview_domain)) == site(domain)


def domain_refusal(domain: str, preview_domain: str, *, accepted: bool) -> str:
    """Return why previews can't answer below a domain; empty if they can.

    Args:
        domain: the shop's.
        preview_domain: what previews' names end with.
        accepted: a person wants them to share the shop's site.
    """
    if f".{domain}".endswith(f".{preview_domain}"):
        return (
            f"previewDomain: {domain} is {preview_domain} or lies below it, so previews' certificate and name "
            f"*.{preview_domain} would be the shop's too; set it to another domain, such as shop-previews.example.net"
        )
    shared = is_shared(domain, preview_domain)
    if shared and not accepted:
        return (
            f"previewDomain: {preview_domain} and {domain} are one site ({site(domain)}), so a pull request's code could set "
            "the shop's cookies and counts as same-site; set it to a domain of another registration, or set "
            "previewDomainShared to true if that is wanted"
        )
    if accepted and not shared:
        return (
            f"previewDomainShared says nothing: {preview_domain} and {domain} are two sites already; set it to false, or "
            "remove it"
        )
    return ""


def domain_warning(domain: str, preview_domain: str) -> str:
    """Return what an update says as long as previews share the shop's site."""
    return (
        f"shopcat:previewDomainShared: previews below {preview_domain} share the site {site(domain)} with the shop: a pull "
        "request's code can set the shop's cookies, and counts as same-site to it"
    )


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()
