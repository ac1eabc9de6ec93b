"""Redaction: facts without the names, addresses and hardware ids of people and machines, yet fit to be judged.

Placeholders are consistent over all snapshots of one redaction: the same user, host, address or card stays the same
one everywhere, inside paths and messages too. What checks read as vocabulary (package names, versions, GPU models) is
left alone even where somebody's name is the same word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec

from dsdoctor.facts import Section, Snapshot
from dsdoctor.hosts.placeholders import Address, AddressPlan, Names, Network
from dsdoctor.hosts.probe.masking import masked, secret

# Fields of vocabulary, by section and innermost field name.
_VERBATIM = {
    "os": {"machine", "distribution", "distribution_id", "version_id", "libc"},
    "python": {"version", "implementation"},
    "packages": {"name", "version"},
    "torch": {"version", "cuda", "hip", "nccl_requirement", "arch_list"},
    "nccl": {"name", "version", "cuda", "source", "owners", "package", "manager"},
    "gpu": {"status", "via", "name", "driver_version", "nvml_version", "cuda_driver_version", "pci_bus_id"},
    "driver": {"module", "version", "status", "sources", "pci_gpus", "modules", "library_version"},
    "pci": {"address", "driver", "bridges", "nvswitches", "iommu"},
    "kernel_log": {"address", "source"},
    "cuda": {"version", "nvcc_version"},
    "network": {"state", "scope", "family", "kind", "duplex", "reserved_ports", "firewalls"},
    "infiniband": {"state", "physical_state", "rate", "link_layer", "kind"},
    "shm": {"filesystem"},
    "disk": {"filesystem"},
    "cpu": {"model", "flags"},
    "environment": {"secrets", "reader"},
    "container": {"kind"},
    "compilers": {"version"},
    "bitsandbytes": {"version", "libraries"},
    "requirements": {"python", "requires"},
    "binaries": {"package", "python", "cuda", "missing", "torch"},
    "deepspeed": {"version", "installed_ops", "built_torch", "built_cuda"},
    "extensions": {"filesystem", "environment", "lock_kind"},
    "session": {"login_session"},
    "deep": {"version", "cuda", "nccl", "package", "backend", "scope", "at"},
    "inputs": {"role", "kind", "model_type", "dtype", "tokenizer_class", "tokenizer_files", "weights", "broken"},
}
# Names of files in the job's folders may say whose data it is; those that every model and data set has say nothing.
_FILE_NAMES = {"name", "unreadable", "pointers", "missing", "cut_off", "checkpoints"}
_USUAL_FILE = re.compile(
    r"(?:config|generation_config|adapter_config|tokenizer\w*|special_tokens_map|vocab|merges|labels|train|dev|test|"
    r"valid|validation|trainer_state)\.\w+|(?:pytorch_|adapter_)?model[\w.-]*\.(?:bin|safetensors|json)|spiece\.model|"
    r"checkpoint-\d+|global_step\d+|adapter|train|dev|test|README\.md"
)
_INTERFACE_NAMES = {
    "deep": {"interface"},
    "network": {"name", "device", "default_device", "master"},
    "infiniband": {"name", "net_devices"},
}
_IDENTITY = re.compile(r"USER|ENTITY|EMAIL|LOGIN|ACCOUNT|NODELIST|JOB_NAME|SUBMIT|HOSTNAME|HOSTFILE", re.I)
_HEX = "[0-9A-Fa-f]"
_UUID = rf"(?:(?:GPU|MIG)-)?{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}|(?:GPU|MIG)-{_HEX}{{4,}}(?:-{_HEX}+)*"
_MAC = rf"(?<![0-9A-Fa-f:])(?:{_HEX}{{2}}:){{5}}(?:(?:{_HEX}{{2}}:){{14}})?{_HEX}{{2}}(?![0-9A-Fa-f:])"
_MAC_NAME = rf"(?<=enx|wlx|wwx){_HEX}{{12}}(?!{_HEX})"
_IPV6 = (
    rf"(?<![\w:.])(?={_HEX}*:{_HEX}*:)(?:[0-9A-Fa-f:]*:\d+(?:\.\d+){{3}}|[0-9A-Fa-f:]{{2,}})(?:/\d{{1,3}})?(?!\w|\.\d)"
)
_IPV4 = r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?(?!\d|\.\d)"
_EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_THINGS = rf"(?P<uuid>{_UUID})|(?P<mac>{_MAC})|(?P<macname>{_MAC_NAME})|(?P<ip>{_IPV6}|{_IPV4})|(?P<email>{_EMAIL})"
_HOME = re.compile(r"/(?:home|Users)/([^/\s:;,'\"]+)")
_URL_HOST = re.compile(r"://(?:[^\s/@]*@)?([A-Za-z0-9_][\w.-]*)")
_PARTIAL_ADDRESS = re.compile(r"^[*.]*\d{1,3}(?:\.\d{1,3}){0,2}[.*]*$")


class Redaction:
    """Placeholders for everything that snapshots say of people and machines, made once for all of them."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        sections = [(name, section.value) for snapshot in snapshots for name, section in snapshot.sections.items()]
        texts = [text for snapshot in snapshots for text in _texts(msgspec.to_builtins(snapshot))]
        self._names = Names()
        self._names.hosts(snapshot.host for snapshot in snapshots)  # host1 is the hostfile's first
        for snapshot in snapshots:
            self._names.hosts(name for name in _host_names(snapshot) if isinstance(name, str))
            self._names.users(name for name in _user_names(snapshot) if isinstance(name, str))
        for text in texts:
            self._names.hosts(_URL_HOST.findall(text))
            self._names.users(_HOME.findall(text))
        self._addresses = AddressPlan(*_addresses_and_networks(texts, sections))
        words = "|".join(re.escape(name) for name in self._names.inside_texts())
        name = rf"(?<![^\W_])(?P<name>{words})(?![^\W_])" if words else r"(?P<name>(?!))"
        self._name = re.compile(name, re.I)
        self._things = re.compile(f"{_THINGS}|{name}", re.I)

    def snapshot(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot with placeholders."""
        sections = {
            name: Section(
                value=self._value(section.value, name, ""),
                error=None if section.error is None else self.text(section.error),
                seconds=section.seconds,
            )
            for name, section in snapshot.sections.items()
        }
        return msgspec.structs.replace(
            snapshot, host=self.text(snapshot.host), origin=self.text(snapshot.origin), sections=sections
        )

    def text(self, text: str) -> str:
        """A text with placeholders: a message, a path, a value."""
        return self._names.get(text) or self._things.sub(self._placeholder, masked(text))

    def _value(self, value: Any, section: str, key: str) -> Any:
        """A value of a section, rewritten according to the field that it is in."""
        if isinstance(value, dict):
            if section == "environment" and key in ("variables",):
                return self._variables(value)
            if key in ("resolves", "resolve_errors"):
                return {self.text(name): self._value(item, section, "") for name, item in value.items()}
            held = {name: self._value(item, section, name) for name, item in value.items()}
            return self._masked_interface(value, held) if "prefix" in held else held
        if isinstance(value, list | tuple):
            return [] if (section, key) == ("environment", "secrets") else [self._value(v, section, key) for v in value]
        if isinstance(value, str):
            return self._field(value, section, key)
        if (section, key) == ("os", "uid") and isinstance(value, int) and value > 0:
            return 1000
        return value

    def _field(self, value: str, section: str, key: str) -> str:
        if key == "user":
            return self._names.get(value) or value
        if key in _INTERFACE_NAMES.get(section, ()):
            return re.sub(_MAC_NAME, lambda match: self._mac(match[0]), value)
        if key == "kernel":  # 5.15.90.1-microsoft is no address
            return self._name.sub(self._placeholder, value)
        if (section, key) == ("session", "printed"):
            return "***" if value else ""  # a banner tells whose machine it is
        if section == "inputs" and key == "digest":
            return f"digest{self._names.number('digest', value)}" if value else ""
        if section == "inputs" and key in _FILE_NAMES:
            return self._file_name(value)
        return value if key in _VERBATIM.get(section, ()) else self.text(value)

    def _file_name(self, name: str) -> str:
        """A name below one of the job's folders; its suffix stays, which tells data from weights."""
        if _USUAL_FILE.fullmatch(name):
            return name
        suffix = re.search(r"\.[A-Za-z]\w{0,10}$", name)
        return f"entry{self._names.number('entry', name)}" + (suffix[0] if suffix else "")

    def _variables(self, variables: dict[str, Any]) -> dict[str, str]:
        """Environment variables: secrets left out, identities blotted out, the rest with placeholders."""
        kept = {}
        for name, value in variables.items():
            if secret(name):
                continue
            text = "***" if _IDENTITY.search(name) and str(value) else self.text(str(value))
            if name.lower() == "no_proxy":
                words = re.split(r"([,\s]+)", text)
                text = "".join("***" if _PARTIAL_ADDRESS.match(word) else word for word in words)
            kept[name] = text
        return kept

    def _masked_interface(self, real: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
        """An interface's address with the mask of the network that stands for its own."""
        network = self._addresses.network(network) if (network := _network_of(real)) else None
        return {**held, "prefix": network.prefixlen} if network else held

    def _placeholder(self, match: re.Match[str]) -> str:
        text, kind = match[0], match.lastgroup
        if kind == "name":
            return self._names.get(text) or text
        if kind == "email":
            return "user@example.com"
        if kind == "ip":
            return self._address(text)
        return self._uuid(text) if kind == "uuid" else self._mac(text)

    def _address(self, text: str) -> str:
        """The stand-in of an address or a network, or the text itself where it is neither."""
        bare, slash, _ = text.partition("/")
        try:
            if slash:
                network = self._addresses.network(ip_network(text))
                if network is not None:
                    return str(network)
        except ValueError:
            pass  # not a network's own address: an address with a mask behind it
        address = _address_in(bare)
        if address is None:
            return text
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            return f"::ffff:{self._addresses.address(mapped)}" + text[len(bare) :]
        return f"{self._addresses.address(address)}" + text[len(bare) :]

    def _mac(self, text: str) -> str:
        """A hardware address out of 00:00:5E:00:53:xx, the documentation range of RFC 7042; its form is kept."""
        digits = text.replace(":", "").lower()
        if set(digits) <= {"0"} or set(digits) <= {"f"}:
            return text
        number = self._names.number("mac", digits[-12:]) - 1
        mac = f"00005e0053{number:02x}" if number < 256 else f"0200{number:08x}"
        whole = mac if len(digits) == 12 else "80000000" + "fe80" + "0" * 16 + mac
        return ":".join(whole[at : at + 2] for at in range(0, len(whole), 2)) if ":" in text else whole

    def _uuid(self, text: str) -> str:
        """A numbered UUID. The beginning of one, as CUDA_VISIBLE_DEVICES takes it, becomes the whole."""
        kind, _, digits = text.upper().partition("-") if text[:3].upper() in ("GPU", "MIG") else ("", "", text)
        digits = digits.lower()
        known = [uuid for uuid in self._names.numbered("uuid") if uuid.startswith(digits)]
        number = self._names.number("uuid", known[0] if len(known) == 1 else digits)
        return (f"{kind}-" if kind else "") + f"00000000-0000-0000-0000-{number:012d}"


def _host_names(snapshot: Snapshot) -> Iterator[Any]:
    """Everything that a snapshot's sections name as a host, whatever it is."""
    values = {name: section.value for name, section in snapshot.sections.items()}
    yield _mapping(values.get("os")).get("hostname")
    network = _mapping(values.get("network"))
    yield from _mapping(network.get("resolves"))
    yield from _mapping(network.get("resolve_errors"))
    for route in _rows(network.get("routes")):
        yield _mapping(route).get("target")
    variables = _mapping(_mapping(values.get("environment")).get("variables"))
    yield variables.get("MASTER_ADDR")
    for name in ("no_proxy", "NO_PROXY"):
        yield from (word.strip("*. ") for word in str(variables.get(name, "")).split(","))
    for path in (*_rows(_mapping(values.get("disk")).get("paths")), values.get("extensions")):
        server, colon, _ = str(_mapping(path).get("source") or "").partition(":")  # nfs, cifs, lustre: SERVER:EXPORT
        yield server.strip("/") if colon else None


def _user_names(snapshot: Snapshot) -> Iterator[Any]:
    """The users that a snapshot's sections name: the session's own and those of processes on GPUs."""
    values = {name: section.value for name, section in snapshot.sections.items()}
    yield _mapping(values.get("os")).get("user")
    for gpu in _rows(_mapping(values.get("gpu")).get("gpus")):
        for process in _rows(_mapping(gpu).get("processes")):
            yield _mapping(process).get("user")


def _mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping; snapshots from elsewhere may hold anything."""
    return value if isinstance(value, dict) else {}


def _rows(value: Any) -> Sequence[Any]:
    """The value where it is a list."""
    return value if isinstance(value, list | tuple) else ()


def _texts(value: Any) -> Iterator[str]:
    """Every string in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _address_in(text: str) -> Address | None:
    """The address that a whole text is, or None."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network_of(row: dict[str, Any]) -> Network | None:
    """The network of an interface's address."""
    try:
        return ip_interface(f"{row.get('address')}/{row.get('prefix')}").network
    except ValueError:
        return None


def _addresses_and_networks(
    texts: Iterable[str], sections: Iterable[tuple[str, Any]]
) -> tuple[list[Address], list[Network]]:
    """All addresses in the texts, and all networks that interfaces or texts tell of."""
    addresses: list[Address] = []
    networks: list[Network] = []
    for name, value in sections:
        for interface in _rows(_mapping(value).get("interfaces")) if name == "network" else ():
            rows = [_mapping(row) for row in _rows(_mapping(interface).get("addresses"))]
            networks += [network for network in map(_network_of, rows) if network is not None]
    for text in texts:
        for match in re.finditer(rf"{_IPV6}|{_IPV4}", text):
            bare, slash, _ = match[0].partition("/")
            address = _address_in(bare)
            if address is None:
                continue
            addresses.append(getattr(address, "ipv4_mapped", None) or address)
            if slash:
                try:
                    networks.append(ip_network(match[0]))
                except ValueError:
                    continue  # an address with a mask behind it
    return addresses, networks
