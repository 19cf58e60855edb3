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
from typing import TYPE_CHECKING

from publicsuffixlist import PublicSuffixList

if TYPE_CHECKING:
    from collections.abc import Sequence


def site(host: str) -> str:
    """Return what a browser takes for the host's site: its registrable domain; a public suffix is a site by itself."""
    return _public_suffixes().privatesuffix(host) or host


def preview_host(stack: str, preview_domain: str) -> str:
    """Return the name under which a preview is reached."""
    return f"{stack}.{preview_domain}"


def is_shared(domain: str, preview_domain: str) -> bool:
    """Tell whether a browser takes a preview and the shop for one site."""
    return site(preview_host("pr-1", preview_domain)) == site(domain)


def domain_refusal(hosts: Sequence[str], preview_domain: str, *, accepted: bool) -> str:
    """Return why previews can't answer below a domain; empty if they can.

    Args:
        hosts: the shop's: domain, then domainAliases. A preview is judged by all of them at once.
        preview_domain: what previews' names end with.
        accepted: a person wants previews to share a site with the shop.
    """
    covered = [host for host in hosts if f".{host}".endswith(f".{preview_domain}")]
    if covered:
        return (
            f"previewDomain: {', '.join(covered)}: no name of the shop can be {preview_domain} or lie below it, since previews' "
            f"certificate and name *.{preview_domain} would be the shop's too; set it to another domain, such as "
            "shop-previews.example.net, or take the name from domainAliases if it is there"
        )
    sharing = [host for host in hosts if is_shared(host, preview_domain)]
    if sharing and not accepted:
        return (
            f"previewDomain: {preview_domain} and {', '.join(sharing)} are one site ({site(sharing[0])}), so a pull request's "
            "code could set the shop's cookies and counts as same-site; set it to a domain of another registration, or set "
            "previewDomainShared to true if that is wanted"
        )
    if accepted and not sharing:
        return (
            f"previewDomainShared says nothing: {preview_domain} and {', '.join(hosts)} share no site; set it to false, or "
            "remove it"
        )
    return ""


def domain_warning(hosts: Sequence[str], preview_domain: str) -> str:
    """Return what an update says as long as previews share a site with some of the shop's hosts."""
    sharing = [host for host in hosts if is_shared(host, preview_domain)]
    return (
        f"shopcat:previewDomainShared: previews below {preview_domain} share the site {site(sharing[0])} with "
        f"{', '.join(sharing)}: a pull request's code can set the shop's cookies, and counts as same-site to it"
    )


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()
