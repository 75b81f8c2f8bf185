"""What a listing that somebody else wrote may lead to: public addresses, and files below the folder it is for.

Without this, an item such as ``http://169.254.169.254/…`` would have a worker's own credentials read, and
``../../etc/passwd`` its files. Looks no name up: what a name leads to is judged when it is connected to (`guard_of`).
"""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airflow_provider_describer.errors import RejectedImage
from airflow_provider_describer.storage.address import mask_query

Address = IPv4Address | IPv6Address

# Lists of our own, as the standard library's idea of a private network differs from one Python to the next.
_NEVER = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local, where clouds serve a machine's credentials
        "100.100.100.200/32",  # … and those clouds that serve them elsewhere
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "fd00:42::42/128",
        "fe80::/10",
        "0.0.0.0/32",
        "::/128",
        "224.0.0.0/4",  # multicast
        "ff00::/8",
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/32",  # tunnels that lead to whatever IPv4 address is within them: Teredo
        "2002::/16",  # … 6to4
        "64:ff9b:1::/48",  # … and local NAT64
    )
)
"""Where no image lies, whatever a connection allows."""
_PRIVATE_IPV4 = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
)
_PUBLIC_IPV6 = ip_network("2000::/3")
_PRIVATE_IPV6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NAT64 = ip_network("64:ff9b::/96")

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
        "metadata.azure.internal",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_PRIVATE_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".intranet", ".lan", ".home.arpa")


def _means(address: Address) -> Address:
    """The IPv4 address that an IPv6 one merely wraps, which is where its packets end."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        # ::127.0.0.1, the oldest way to write one; ::1 and :: are no such.
        if address in _NAT64 or 1 < int(address) < 1 << 32:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _parsed(ip: str) -> Address | None:
    try:
        return _means(ip_address(ip.partition("%")[0]))
    except ValueError:
        return None


def _never(address: Address) -> bool:
    return any(address in network for network in _NEVER)


def _public(address: Address) -> bool:
    if _never(address):
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _PRIVATE_IPV4)
    return address in _PUBLIC_IPV6 and not any(address in network for network in _PRIVATE_IPV6)


def is_public_address(ip: str) -> bool:
    """Whether anybody on the Internet may reach this address; False for what is no address at all."""
    address = _parsed(ip)
    return address is not None and _public(address)


def guard_of(allow_private_hosts: bool) -> Callable[[str], bool]:
    """Return what says of an address that is about to be connected to whether images may be read from it.

    Link-local addresses and those of clouds' metadata are refused even where private ones are allowed.
    """
    if not allow_private_hosts:
        return is_public_address

    def allowed(ip: str) -> bool:
        address = _parsed(ip)
        return address is not None and not _never(address)

    return allowed


def _plain(host: str) -> str:
    """The host as whoever connects may come to read it, who undoes full-width digits, percents and a last dot."""
    return unicodedata.normalize("NFKC", unquote(host)).replace("。", ".").lower().rstrip(".")


def _literal(host: str) -> Address | None:
    """The address that a plain host spells in any way that a resolver takes, or None for a name."""
    if address := _parsed(host):
        return address
    try:
        # Decimal, hexadecimal, octal and short forms: 2130706433, 0x7f.1, 0177.0.0.1.
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def is_public_host(host: str) -> bool:
    """Whether the host is a public address or a name that could lead to one; looks nothing up."""
    host = _plain(host)
    if address := _literal(host):
        return _public(address)
    return "." in host and host not in _METADATA_NAMES and not host.endswith(_PRIVATE_SUFFIXES)


def _is_forbidden(host: str) -> bool:
    host = _plain(host)
    address = _literal(host)
    return _never(address) if address else host in _METADATA_NAMES


@dataclass(frozen=True, slots=True)
class Trust:
    """How far the listing of images is trusted.

    :param base: the folder below which its files must lie (a path or ``file://``); None for anywhere. Below one that
        is no local folder, such as ``s3://bucket/``, there are no local files.
    :param allow_private_hosts: whether its addresses may lead into this network.
    """

    base: str | None = None
    allow_private_hosts: bool = False

    def check_web(self, url: str, shown: str | None = None) -> None:
        """Let pass what may be requested; to be asked before every request and again after every redirect.

        :param shown: the image as messages name it, where ``url`` is what it redirects to.
        :raises RejectedImage: ``forbidden_address``, naming the image and the host.
        """
        shown = shown or mask_query(url)
        host = _host(url)
        if host is None:
            raise _forbidden(f"{shown}: {mask_query(url)!r} is no plain http(s) address.")
        if _is_forbidden(host):
            raise _forbidden(
                f"{shown}: {_said(host)} is link-local, a cloud's metadata service or reserved; images are never read "
                "from there, whatever the connection allows."
            )
        if not self.allow_private_hosts and not is_public_host(host):
            raise _forbidden(
                f"{shown}: {_said(host)} lies in a private network, from which no images are read. Where yours do lie "
                "there, set allow_private_hosts in the connection's extra."
            )

    def check_local(self, uri: str, path: str | os.PathLike[str]) -> Path:
        """Return the path to open: where there is a base, the one with its symbolic links followed.

        :param uri: the image as messages name it.
        :raises RejectedImage: ``outside_base``, naming the image and the folder.
        """
        if self.base is None:
            return Path(path)
        # Both are followed here and now; who can swap folders meanwhile needs no listing to read files.
        found, base = Path(os.path.realpath(path)), _folder(self.base)
        if base is None or not found.is_relative_to(base):
            raise RejectedImage(
                f"{uri}: lies outside {mask_query(self.base)}, where all images of this listing must be (symbolic "
                "links are followed first).",
                kind="outside_base",
            )
        return found


def _said(host: str) -> str:
    """The host, and in brackets the address that it means where it spells it in a way of its own."""
    address = _literal(_plain(host))
    return host if address is None or str(address) == host else f"{host} ({address})"


def _forbidden(message: str) -> RejectedImage:
    return RejectedImage(message, kind="forbidden_address")


def _host(url: str) -> str | None:
    """The host of an http(s) address, or None where programs could disagree about which host that is."""
    if any(c <= " " or c in "\\\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or parts.netloc.count("@") > 1:
        return None
    return host


def _folder(base: str) -> Path | None:
    scheme, colons, rest = base.partition("://")
    if not colons:
        return Path(os.path.realpath(base))
    if scheme.lower() != "file":
        return None
    return Path(os.path.realpath(unquote("/" + rest.partition("/")[2])))
