"""Previews answer on another site than the shop, by the rules that browsers have for cookies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import domains

SUFFIXES = ("com", "net", "co.uk", "github.io", "localhost", "herokuapp.com", "nowhere-known")
"""Below each of these a domain can be registered: ICANN's, private ones, and names that no rule matches."""

hosts = st.tuples(st.lists(st.sampled_from(["a", "b", "shop", "pr-1"]), max_size=3), st.sampled_from(SUFFIXES))


def name(host: tuple[list[str], str]) -> str:
    return ".".join([*host[0], host[1]])


def cookie_reaches(sender: tuple[list[str], str], receiver: tuple[list[str], str]) -> bool:
    """RFC 6265, 5.3: some Domain attribute that the sender may set, so no public suffix, matches the receiver."""
    labels, suffix = sender
    settable = [".".join([*labels[start:], suffix]) for start in range(len(labels))]
    return any(f".{name(receiver)}".endswith(f".{one}") for one in settable)


@given(hosts, hosts)
def test_no_preview_can_set_a_cookie_for_the_shop(shop: tuple[list[str], str], previews: tuple[list[str], str]) -> None:
    preview = (["pr-1", *previews[0]], previews[1])
    reaches = cookie_reaches(preview, shop)
    assert domains.is_shared(name(shop), name(previews)) is reaches


@given(st.lists(hosts, min_size=1, max_size=3), hosts)
def test_a_preview_is_judged_by_all_names_of_the_shop_at_once(
    shop: list[tuple[list[str], str]], previews: tuple[list[str], str]
) -> None:
    """Whatever a message advises on previewDomainShared is taken the next time."""
    preview, own = (["pr-1", *previews[0]], previews[1]), [name(host) for host in shop]
    reaches = any(cookie_reaches(preview, host) for host in shop)
    covers = any(f".{host}".endswith(f".{name(previews)}") for host in own)
    assert bool(domains.domain_refusal(own, name(previews), accepted=False)) is (reaches or covers)
    # Accepted, a shared site is taken; a name of the shop's under the previews' wildcard never is.
    assert bool(domains.domain_refusal(own, name(previews), accepted=True)) is (covers or not reaches)


@pytest.mark.parametrize(
    ("shop", "previews", "words"),
    [
        ("shop.example.com", "shop.example.com", "would be the shop's too"),
        ("shop.example.com", "example.com", "would be the shop's too"),
        ("shop.example.com", "preview.shop.example.com", "one site (example.com)"),
        ("shop.example.com", "previews.example.com", "one site (example.com)"),
        ("shop.example.co.uk", "previews.example.co.uk", "one site (example.co.uk)"),
        ("shop.example.com", "shop-previews.example.net", ""),
        ("shop.example.co.uk", "shop.previews.co.uk", ""),
        ("shop.github.io", "previews.github.io", ""),
        ("shop.xn--p1ai", "previews.shop.xn--p1ai", "one site (shop.xn--p1ai)"),
    ],
)
def test_what_is_refused_says_why(shop: str, previews: str, words: str) -> None:
    found = domains.domain_refusal([shop], previews, accepted=False)
    assert words in found
    assert bool(found) is bool(words)


def test_a_shared_site_is_said_at_each_update() -> None:
    said = domains.domain_warning(["shop.example.net", "shop.example.com"], "preview.shop.example.com")
    assert "share the site example.com with shop.example.com:" in said
    assert "shopcat:previewDomainShared" in said
