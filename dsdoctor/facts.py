"""What a probe can know about a host, typed.

`hosts/probe.py` runs on the host and prints one JSON object: a mapping of sections, each `{"value" | "error",
"seconds"}`. :class:`HostFacts` wraps it; reading a section (`host.nccl`) gives the typed value, or raises
:class:`FactUnavailable` with the reason, which makes the check that asked *skipped* rather than failed or passed.

Units are in the names or comments: `*_bytes`, `*_mib`, `*_mbit`. Limits are numbers, or `None` for "unlimited".
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import msgspec

SCHEMA = "dsdoctor.facts/1"

T = TypeVar("T")


class FactUnavailable(Exception):  # noqa: N818 - a check that meets it is skipped, nothing has failed
    """A fact could not be learnt. Carries the section and the reason; the check that asked is skipped."""

    def __init__(self, section: str, reason: str) -> None:
        super().__init__(f"{section}: {reason}")
        self.section = section
        self.reason = reason


class OsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system, as /etc/os-release and uname have it."""

    hostname: str
    kernel: str  # uname -r
    machine: str  # x86_64, aarch64
    distribution: str = ""  # PRETTY_NAME
    distribution_id: str = ""
    version_id: str = ""
    libc: str = ""  # "glibc 2.36"
    user: str = ""
    uid: int = -1
    uptime_seconds: float | None = None
    time: float | None = None  # the host's clock, seconds since the epoch, when the probe started
    clock_ahead_least: float | None = None  # seconds by which it is ahead of the clock of who asked, at least
    clock_ahead_most: float | None = None  # and at most; what lies between is the time that asking took


class PythonFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter that the job will use."""

    version: str  # "3.11.7"
    executable: str
    implementation: str = "CPython"
    prefix: str = ""
    base_prefix: str = ""
    conda_prefix: str | None = None
    user_site: str | None = None
    user_site_enabled: bool = False
    path: tuple[str, ...] = ()


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One installed distribution."""

    name: str  # normalised: lower case, dashes
    version: str
    location: str = ""
    editable: bool = False


class PackageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All distributions in the order of `sys.path`: of two with one name the first is the one imported."""

    distributions: tuple[Package, ...] = ()
    leftovers: tuple[str, ...] = ()  # .dist-info folders without METADATA: what a broken (un)installation left

    def version(self, name: str) -> str | None:
        """The version that `import` would take, or None."""
        wanted = name.lower().replace("_", "-")
        return next((package.version for package in self.distributions if package.name == wanted), None)


class Requires(msgspec.Struct, frozen=True, kw_only=True):
    """What a distribution says that it needs, in the words of its metadata."""

    python: str = ""  # Requires-Python: ">=3.9"
    requires: tuple[str, ...] = ()  # Requires-Dist: "torch>=2.6; extra == \"torch\""


class RequirementFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The requirements of every installed distribution by name, of two with one name those of the one imported.

    Of the requirements of extras only those are there that another distribution asks for, and what transformers and
    accelerate want for torch and DeepSpeed.
    """

    packages: dict[str, Requires] = {}


class NativeModule(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled module that is linked with torch: flash-attn's, xformers', torchvision's, DeepSpeed's built ops.

    `missing` are symbols of torch that it asks for and the installed torch does not have; it cannot be loaded then.
    """

    package: str
    path: str
    python: str | None = None  # "310" of a name with .cpython-310-; None: for any
    cuda: str | None = None  # major version of the libcudart.so that it asks for: "12"
    cxx11_abi: bool | None = None
    missing: tuple[str, ...] = ()  # the first 3
    checked: bool = False  # whether the symbols could be compared


class BuiltFor(msgspec.Struct, frozen=True, kw_only=True):
    """What a package says that it was built with."""

    torch: str | None = None  # "2.5.0+cu121"
    cuda: str | None = None  # "12.1"


class BinaryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The compiled modules that are linked with torch, and what packages say of their build (xformers does)."""

    modules: tuple[NativeModule, ...] = ()
    built_for: dict[str, BuiltFor] = {}


class DeepspeedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The installed DeepSpeed and the ops that were built at its installation; `version` None when there is none."""

    version: str | None = None
    path: str | None = None
    installed_ops: tuple[str, ...] = ()  # DS_BUILD_*: they are loaded as they are, the others are built at first use
    built_torch: str | None = None  # "2.1"
    built_cuda: str | None = None  # "12.1"


class TorchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The installed torch, read from its files without importing it; `version` None when there is none."""

    version: str | None = None  # "2.1.2+cu121"
    cuda: str | None = None  # "12.1"; None for a CPU build
    hip: str | None = None
    path: str | None = None
    nccl_requirement: str | None = None  # "nvidia-nccl-cu12==2.18.1", the pin in torch's own metadata
    arch_list: tuple[str, ...] | None = None  # ("sm_70", "sm_80", "compute_90"); None when it could not be read
    glibc: str | None = None  # the newest glibc that its libraries ask for: "2.28"
    cxx11_abi: bool | None = None


class NcclCopy(msgspec.Struct, frozen=True, kw_only=True):
    """One libnccl.so.2 on the host."""

    path: str
    real_path: str = ""
    version: str | None = None  # read from the bytes of the file: "2.18.1"
    cuda: str | None = None  # the "+cuda12.1" beside it
    source: str = "other"  # wheel | torch | ld-preload | ld-library-path | ldconfig | conda | system
    owners: tuple[str, ...] = ()  # "nvidia-nccl-cu12==2.18.1": every distribution that claims this file
    package: str | None = None  # "libnccl2 2.18.1-1+cuda12.1": of the system's packages or of conda's
    manager: str | None = None  # deb | rpm | conda


class NcclFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Every NCCL on the host, and the distributions that claim the wheel's shared file.

    `owners` includes distributions whose file is gone: uninstalling one of two owners deletes the file for both
    (facts.md §2). `loaded` is the copy that the job's torch would load, by the loader's order.
    """

    copies: tuple[NcclCopy, ...] = ()
    owners: tuple[Package, ...] = ()
    wheel_file: str | None = None  # where the wheels put it, whether it is there or not
    wheel_file_exists: bool = False
    loaded: str | None = None  # a path out of `copies`


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds memory on a GPU."""

    pid: int
    memory_mib: int | None = None
    command: str = ""
    user: str = ""
    age_seconds: float | None = None  # since it was started


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as NVML describes it; None where NVML says "not supported"."""

    index: int
    name: str
    uuid: str = ""
    brand: int | None = None  # nvmlBrandType_t: 2 Tesla, 5 GeForce, 6 Titan, 13 NVIDIA RTX, 14 NVIDIA (data center)
    memory_mib: int | None = None
    memory_used_mib: int | None = None  # with the reserved part where `memory_reserved_mib` is not known
    memory_reserved_mib: int | None = None  # what the driver keeps for itself
    compute_capability: tuple[int, int] | None = None
    pci_bus_id: str = ""  # "00000000:17:00.0"
    pcie_generation: int | None = None  # now; an idle card lowers it
    pcie_generation_max: int | None = None  # of card and slot together
    pcie_generation_card: int | None = None  # of the card alone
    pcie_width: int | None = None
    pcie_width_max: int | None = None  # of card and slot together
    ecc: bool | None = None
    ecc_uncorrected: int | None = None  # over the card's life
    ecc_uncorrected_now: int | None = None  # since the driver was loaded
    rows_remapped: int | None = None  # after uncorrectable errors; Ampere and newer
    row_remap_pending: bool | None = None  # a reset is needed
    row_remap_failed: bool | None = None  # at some time
    pages_retired: int | None = None  # for either cause; before Ampere
    page_retirement_pending: bool | None = None
    temperature_c: int | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    performance_state: int | None = None  # 0 the fastest … 15
    throttle_reasons: int | None = None  # NVML's bit field, nvmlClocksEventReasons
    compute_mode: int | None = None  # 0 default, 2 prohibited, 3 exclusive process
    persistence: bool | None = None
    display: bool | None = None  # a display server has memory on it
    mig: bool | None = None
    mig_devices: int | None = None  # instances that can be used, where MIG is on
    nvlinks: int | None = None  # links that are up
    nvlinks_total: int | None = None  # links that the card has
    nvlinks_to_switch: int | None = None  # of those that are up, how many lead to an NVSwitch
    recovery_action: int | None = None  # nvmlDeviceGpuRecoveryAction_t: 0 none, 1 reset, 2 reboot the host ...
    fabric_state: int | None = None  # NVML_GPU_FABRIC_STATE_: 0 not supported, 1 not started, 2 in progress, 3 done
    fabric_status: int | None = None  # nvmlReturn_t, once the state is 3
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None  # "GPU is lost": the card is there but does not answer


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs. `status` is `ok`, `no-library`, `driver-not-loaded`, `library-mismatch` or `error`.

    `p2p_read[i][j]` is nvmlGpuP2PStatus_t between i and j (0 OK, 1 chipset not supported, 2 GPU not supported,
    3 topology, 4 disabled by a registry key, 5 not supported, 6 unknown), None where it could not be asked;
    `topology[i][j]` is nvmlGpuTopologyLevel_t (0 same board … 50 across sockets).
    """

    status: str
    detail: str = ""
    via: str = ""  # pynvml | ctypes | nvidia-smi
    driver_version: str | None = None
    nvml_version: str | None = None
    cuda_driver_version: str | None = None  # the newest CUDA the driver can run: "12.2"
    gpus: tuple[Gpu, ...] = ()
    p2p_read: tuple[tuple[int | None, ...], ...] = ()
    topology: tuple[tuple[int | None, ...], ...] = ()


class DkmsEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `dkms status`."""

    module: str
    version: str
    kernel: str = ""
    status: str = ""  # added | built | installed


class DriverFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's side of the driver."""

    loaded: bool  # /proc/driver/nvidia/version is there
    version: str | None = None
    kernel: str = ""  # the running kernel
    dkms_available: bool = False
    dkms: tuple[DkmsEntry, ...] = ()
    sources: tuple[str, ...] = ()  # versions of /usr/src/nvidia-*
    module_files: tuple[str, ...] = ()  # nvidia.ko* found below /lib/modules/<running kernel>
    pci_gpus: tuple[str, ...] = ()  # PCI addresses of NVIDIA display controllers, from sysfs
    modules: tuple[str, ...] = ()  # nvidia, nvidia_uvm, nouveau ... out of /sys/module
    open_module: bool | None = None  # NVIDIA's open kernel module is the one that is loaded
    library_version: str | None = None  # of the libnvidia-ml.so.1 that the loader finds, out of its file's name
    fabric_manager_running: bool | None = None  # asked only where NVSwitches are on the bus


class PciLink(msgspec.Struct, frozen=True, kw_only=True):
    """A PCI Express link as sysfs has it; None where it does not say. Speeds in GT/s."""

    width: int | None = None
    width_max: int | None = None  # of the device alone
    speed_gts: float | None = None  # now; an idle card lowers it
    speed_max_gts: float | None = None  # of the device alone


class PciBridge(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge above a GPU."""

    address: str
    acs: int | None = None  # ACS control register; None: it has none, or only root may read it
    root_port: bool = False  # where PCI Express begins, on the processor or the chipset


class PciGpu(msgspec.Struct, frozen=True, kw_only=True):
    """An NVIDIA display or 3D controller on the bus."""

    address: str  # "0000:17:00.0"
    driver: str = ""  # nvidia, nouveau, vfio-pci, or nothing
    link: PciLink = PciLink()
    port: PciLink = PciLink()  # of the slot that the card sits in
    bridges: tuple[str, ...] = ()  # above it, from the root down
    iommu: str | None = None  # the IOMMU group's type: DMA, DMA-FQ, identity; None: no group, or an old kernel


class PciFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The PCI bus as far as GPUs go. `registers` says whether the bridges' registers could be read (by root only)."""

    gpus: tuple[PciGpu, ...] = ()
    bridges: tuple[PciBridge, ...] = ()
    nvswitches: tuple[str, ...] = ()  # PCI addresses
    registers: bool = False
    iommu_groups: int = 0  # 0: no IOMMU is in use
    kernel_parameters: tuple[str, ...] = ()  # those about iommu, pci, nvidia and nouveau

    def gpu(self, address: str) -> PciGpu | None:
        """The card at an address, with a domain of 4 digits or NVML's 8."""
        domain, _, rest = address.lower().partition(":")
        wanted = f"{domain[-4:]}:{rest}"
        return next((gpu for gpu in self.gpus if gpu.address.lower() == wanted), None)


class Xid(msgspec.Struct, frozen=True, kw_only=True):
    """An error number of NVIDIA's driver in the kernel's log, with how often and when it came."""

    code: int
    address: str  # "0000:3b:00"
    count: int = 1
    last_seconds_ago: float | None = None
    text: str = ""  # of the last one, without process and number


class KernelLogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel's log since the boot says of GPUs. `since_seconds` is how far back it goes."""

    source: str  # /dev/kmsg | journalctl | dmesg; empty where none of them may be read
    detail: str = ""  # why
    xids: tuple[Xid, ...] = ()
    since_seconds: float | None = None


class CudaToolkit(msgspec.Struct, frozen=True, kw_only=True):
    """One CUDA toolkit on the host."""

    path: str
    version: str | None = None  # of nvcc: "12.6"


class CudaFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The CUDA toolkit that a build would use (CUDA_HOME, else nvcc on the PATH, else /usr/local/cuda), and others."""

    home: str | None = None
    nvcc: str | None = None
    nvcc_version: str | None = None  # "12.6"
    toolkits: tuple[CudaToolkit, ...] = ()
    runtime_headers: bool | None = None  # cuda_runtime.h is in the home's include; None: no home, or not looked for
    curand: bool | None = None  # curand_kernel.h and libcurand.so are in the home: cpu_adam is linked with it


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address of an interface."""

    address: str
    prefix: int
    family: str = "inet"  # inet | inet6
    scope: str = ""


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface."""

    name: str
    up: bool  # administratively up and with carrier
    state: str = ""  # operstate
    mtu: int | None = None
    speed_mbit: int | None = None
    addresses: tuple[Address, ...] = ()
    virtual: bool = False  # below /sys/devices/virtual
    loopback: bool = False
    mac: str = ""
    kind: str = ""  # bridge, bond, vlan, vxlan, wlan, tun, wireguard ...; empty for an ordinary one
    master: str | None = None  # the bond or bridge that it is a part of
    duplex: str | None = None  # full | half
    rp_filter: int | None = None  # net.ipv4.conf: 0 off, 1 strict, 2 loose; the larger of its own and that of "all"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How this host reaches an address: `ip route get`. A name without an address has an empty one and an `error`."""

    target: str  # as asked: a name or an address
    address: str  # what it resolved to
    device: str | None = None
    source: str | None = None
    via: str | None = None
    local: bool = False  # the address is this host's own
    error: str | None = None


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Interfaces, names and routes. `resolves` and `routes` cover the names the probe was asked about."""

    interfaces: tuple[Interface, ...] = ()
    default_device: str | None = None
    resolves: dict[str, tuple[str, ...]] = {}  # name -> addresses, empty when it does not resolve; has the own name too
    resolve_errors: dict[str, str] = {}  # name -> why it has no address
    routes: tuple[Route, ...] = ()
    policy_rules: int | None = None  # rules of `ip rule` beyond the three of every Linux: answers may go by source
    port_range: tuple[int, int] | None = None  # net.ipv4.ip_local_port_range
    reserved_ports: str = ""  # net.ipv4.ip_local_reserved_ports: "29500,30000-30010"
    listening: tuple[int, ...] = ()  # TCP ports somebody listens on
    firewalls: tuple[str, ...] = ()  # programs that are switched on: firewalld, ufw

    def interface(self, name: str) -> Interface | None:
        """The interface of that name, or None."""
        return next((interface for interface in self.interfaces if interface.name == name), None)

    def route(self, target: str) -> Route | None:
        """The route to a name or address that was asked about, or None."""
        return next((route for route in self.routes if target in (route.target, route.address)), None)


class Gid(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a port's GID table that is not empty. `kind` is "RoCE v2", "IB/RoCE v1", or empty."""

    index: int
    gid: str  # "::ffff:192.0.2.4" for an IPv4 address
    kind: str = ""


class IbPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of an InfiniBand or RoCE device."""

    port: int
    state: str = ""  # ACTIVE, DOWN, INIT
    physical_state: str = ""
    rate: str = ""
    link_layer: str = ""  # InfiniBand | Ethernet
    gids: tuple[Gid, ...] | None = None  # of the first 32 entries; None: not looked at


class IbDevice(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of /sys/class/infiniband."""

    name: str
    ports: tuple[IbPort, ...] = ()
    net_devices: tuple[str, ...] = ()


class InfinibandFacts(msgspec.Struct, frozen=True, kw_only=True):
    """RDMA devices, and whether GPUDirect's module is loaded."""

    devices: tuple[IbDevice, ...] = ()
    verbs: tuple[str, ...] | None = None  # what programs open: the uverbs entries of /dev/infiniband; None: not told
    peermem_loaded: bool = False
    libibverbs: bool | None = None  # the loader finds libibverbs.so.1, without which NCCL uses sockets


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A resource limit of a non-interactive session; None is unlimited."""

    soft: int | None
    hard: int | None


class LimitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What getrlimit says inside the job's kind of session. Bytes for memlock and stack, counts for the others.

    `nproc` counts the processes and threads of the user, `cgroup_pids` those of the tightest cgroup around the session
    (a container's --pids-limit), of which `cgroup_pids_used` are there already.
    """

    nofile: Limit
    nproc: Limit | None = None
    memlock: Limit | None = None
    stack: Limit | None = None
    core: Limit | None = None
    cgroup_pids: int | None = None
    cgroup_pids_used: int | None = None


class ShmFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Shared memory: /dev/shm."""

    total_bytes: int
    free_bytes: int
    writable: bool = True
    filesystem: str = ""


class DiskPath(msgspec.Struct, frozen=True, kw_only=True):
    """The file system behind a path. `exists` false: the figures are those of the nearest parent that exists.

    With an `error` (a mount that hangs, a folder that may not be entered) the figures are 0 and mean nothing.
    """

    path: str
    roles: tuple[str, ...] = ()  # what is written there: home, temporary, hub cache, extension cache, work, output
    exists: bool
    total_bytes: int
    free_bytes: int
    inodes_free: int | None = None
    writable: bool = False
    filesystem: str = ""  # ext4, nfs4, overlay
    source: str = ""  # the device or export
    mount: str = ""  # where it is mounted
    error: str | None = None


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Home, the temporary folder and the paths the probe was asked about."""

    paths: tuple[DiskPath, ...] = ()


class MemoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Host RAM; `cgroup_limit_bytes` is what a container may really use."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int = 0
    cgroup_limit_bytes: int | None = None


class CpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The processor."""

    model: str = ""
    cores: int = 0  # logical, that this process may use
    quota: float | None = None  # how many cores' time the cgroup allows; None: no limit
    flags: tuple[str, ...] = ()
    numa_nodes: int | None = None


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that sets NCCL variables: /etc/nccl.conf, ~/.nccl.conf, .deepspeed_env."""

    path: str
    variables: dict[str, str] = {}
    bad_lines: tuple[int, ...] = ()  # without "=": NCCL ignores them, DeepSpeed's launcher dies of them
    reader: str = ""  # nccl | deepspeed | shell; empty in older snapshots
    secrets: tuple[str, ...] = ()  # names only


class EnvironmentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The variables a job on this host would get that matter to training. Values of secrets never leave the host."""

    variables: dict[str, str] = {}
    secrets: tuple[str, ...] = ()  # names only
    files: tuple[ConfigFile, ...] = ()
    shell_files: tuple[ConfigFile, ...] = ()  # what ~/.bashrc and the like assign: a job may not get it


class ContainerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is none, docker, podman, kubernetes, lxc, wsl or other; `evidence` says how it was told."""

    kind: str
    evidence: str = ""
    capabilities: int | None = None  # CapEff of /proc/self/status: bit 14 CAP_IPC_LOCK, bit 23 CAP_SYS_NICE


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A program on the PATH."""

    path: str
    version: str = ""


class CompilerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What building an op needs: gcc, g++, ninja, make; None where the program is missing."""

    tools: dict[str, Tool | None] = {}
    python_headers: bool | None = None
    cxx: Tool | None = None  # what torch compiles with: $CXX, else c++
    cxx_name: str = ""  # as it is asked for; empty in snapshots that did not look for it
    cxx_clang: bool = False
    libaio: bool | None = None  # the linker finds libaio.so; None: no compiler to ask
    libaio_header: bool | None = None  # the compiler finds libaio.h


class BitsandbytesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The bitsandbytes package and the native libraries beside it; `version` None when it is not installed."""

    version: str | None = None
    path: str | None = None
    libraries: tuple[str, ...] = ()  # file names: libbitsandbytes_cuda121.so


class PeerPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of another host, tried with a real connection."""

    kind: str  # ephemeral | master
    port: int
    error: str | None = None  # in the words of the system, or who else answered
    seconds: float = 0.0
    round_trip_ms: float | None = None  # median of 32 messages of 64 bytes


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another host as seen from this one. Speeds are known to the one host of each pair that measured them."""

    peer: str
    address: str
    ports: tuple[PeerPort, ...] = ()
    error: str | None = None  # why none was tried
    send_mbit: float | None = None
    receive_mbit: float | None = None
    speed_error: str | None = None


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of `--network`: `address` is the one this host took part with."""

    address: str
    problems: tuple[str, ...] = ()  # a port that could not be listened on
    peers: tuple[Peer, ...] = ()


class DeepStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the deep trial that was begun, and what it cost. `error` says how it ended where that was not well."""

    name: str  # torch | gpus | copies | host all-reduce | import NAME | job all-reduce
    seconds: float = 0.0
    error: str | None = None


class DeepTorch(msgspec.Struct, frozen=True, kw_only=True):
    """torch as it was imported by the job's interpreter. `gpus` None: it was not asked, or did not come back."""

    version: str | None = None  # None: it could not be imported
    cuda: str | None = None
    path: str = ""
    nccl: str | None = None  # of the library that is loaded, as it says itself
    gpus: int | None = None  # that torch sees
    gpu_error: str | None = None  # why it sees none
    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES as the ranks would have it
    import_seconds: float | None = None
    error: str | None = None
    output: tuple[str, ...] = ()  # what was printed, where it failed


class DeepGpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU on which memory was filled and read back, and matrices were multiplied.

    `products` are the wrong numbers of a product by precision, out of 1,048,576; None where it was not come to.
    """

    index: int  # as nvidia-smi numbers it
    name: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    filled_bytes: int | None = None
    wrong: int | None = None  # 64-bit numbers that were read back otherwise than they were written
    products: dict[str, int | None] = {}
    seconds: float = 0.0
    error: str | None = None


class DeepCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy from one GPU to another, compared number by number. With an `error` the figures mean nothing."""

    source: int
    target: int
    peer_access: bool | None = None  # CUDA lets the target reach the source's memory
    numbers: int = 0
    wrong: int | None = None
    first_wrong: int | None = None  # the place of the first wrong one
    zeros: int | None = None  # of the wrong ones: nothing has arrived
    gigabytes_per_second: float | None = None
    error: str | None = None


class DeepImport(msgspec.Struct, frozen=True, kw_only=True):
    """A package with compiled parts that was imported."""

    package: str  # as pip names it
    wanted_by: str | None = None  # what of the job asks for it; None: no job was given
    version: str | None = None
    error: str | None = None
    output: tuple[str, ...] = ()


class DeepSum(msgspec.Struct, frozen=True, kw_only=True):
    """An all-reduce of so many bytes: seconds for one, and how many of its sums were wrong."""

    bytes: int
    seconds: float
    wrong: int = 0


class DeepRank(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank saw, as far as it came: started, imported, joined, adding, done."""

    rank: int
    local_rank: int = 0
    host: str = ""  # as the rank's own host calls itself
    device: str = ""  # the GPU's name; empty for a rank on the processor
    interface: str = ""  # GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME as the rank has it
    at: str = ""
    seconds: float = 0.0  # from its start to this point
    adding: int | None = None  # bytes of the all-reduce that it was in
    too_long: int | None = None  # bytes of the one that was left out, because it would have taken too long
    sums: tuple[DeepSum, ...] = ()


class DeepOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank (None: torchrun itself) printed: its first and last lines."""

    rank: int | None = None
    lines: tuple[str, ...] = ()


class DeepCollective(msgspec.Struct, frozen=True, kw_only=True):
    """An all-reduce through torchrun as this host saw it, over its own ranks or over all of the job's."""

    scope: str  # host | job
    backend: str = ""  # nccl | gloo
    world_size: int = 0
    hosts: tuple[str, ...] = ()
    address: str = ""  # where the ranks met
    ranks: tuple[DeepRank, ...] = ()  # of this host
    expected: tuple[int, ...] = ()  # the ranks that this host should have
    seconds: float = 0.0
    error: str | None = None  # how it ended here, where that was not well
    first: bool = False  # this host was the first at which it went wrong
    not_tried: str | None = None  # why it was not begun
    output: tuple[DeepOutput, ...] = ()  # where it went wrong anywhere


class DeepFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of `--deep`: torch, GPUs and collectives tried for real, each in a process with a time limit."""

    steps: tuple[DeepStep, ...] = ()
    torch: DeepTorch | None = None
    gpus: tuple[DeepGpu, ...] = ()
    copies: tuple[DeepCopy, ...] = ()
    imports: tuple[DeepImport, ...] = ()
    collectives: tuple[DeepCollective, ...] = ()
    lost: str | None = None  # how the host went away in the middle, or why nothing could be started on it

    def collective(self, scope: str) -> DeepCollective | None:
        """The all-reduce over the host's ranks (`host`) or all ranks (`job`); None when there was none to try."""
        return next((each for each in self.collectives if each.scope == scope), None)


class ExtensionBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of torch's extension cache: an op that torch.utils.cpp_extension built there, or is to build."""

    name: str  # below the cache: "py311_cu128/cpu_adam"
    path: str
    built: bool = False  # a shared library lies there
    native: bool = False  # its build.ninja asks for the instructions of the host that builds it (-march=native)
    lock_age_seconds: float | None = None  # of the file called `lock`; None: there is none
    lock_holders: tuple[int, ...] = ()  # this host's processes that have it open


class ExtensionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """torch's cache of extensions that are built at first use.

    `lock_kind` says how the installed torch guards a build: `file`, a file whose being there is the lock (FileBaton; a
    killed build leaves it), or `flock`, a lock of the kernel's on a file that stays (torch 2.14). None: no torch.
    """

    folder: str
    exists: bool = False
    filesystem: str = ""
    source: str = ""  # the device or export
    environment: str | None = None  # the folder in it that this Python and torch use: "py311_cu128"; None: itself
    lock_kind: str | None = None
    builds: tuple[ExtensionBuild, ...] = ()


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The session that a command gets on the host: the login shell around it, and what systemd-logind does with it.

    `printed` is what the login shell wrote to standard output before the command began, at most 2,000 characters;
    `setup` are the job's setup lines, which have all been run without a failure before the probe.
    """

    shell: str = ""  # the user's login shell
    shell_seconds: float | None = None  # from its start to the command's; None where that cannot be told
    printed: str = ""
    setup: tuple[str, ...] = ()
    logind: bool = False  # systemd-logind keeps track of sessions here
    login_session: str | None = None  # what of logind's this session is in: "12", "user@1000"; None: nothing
    remove_ipc: bool | None = None  # RemoveIPC=: shared memory of a user without a session is removed
    kill_user_processes: bool | None = None  # KillUserProcesses=
    lingers: bool = False  # the user counts as logged in for good


class InputEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder right below a path of the job. `digest` covers names and sizes, and small files' content."""

    name: str
    files: int
    total_bytes: int
    digest: str = ""


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's folder holds, as transformers reads it. Weights are not read, only their headers or ends."""

    model_type: str | None = None  # of config.json
    dtype: str | None = None
    tokenizer_class: str | None = None  # of tokenizer_config.json
    tokenizer_files: tuple[str, ...] = ()
    weights: str = ""  # safetensors | bin | gguf; empty: none
    weights_bytes: int = 0
    largest_bytes: int = 0
    shards: int = 0
    missing: tuple[str, ...] = ()  # shards that the index names
    cut_off: tuple[str, ...] = ()  # weights whose own header, or missing end, says that they are not whole
    broken: tuple[str, ...] = ()  # config.json or an index that is not JSON
    adapter: bool = False  # adapter_config.json is there
    sizes: dict[str, bool | int | float | str] = {}  # of config.json: what memory and time depend on
    parameters: int | None = None  # that the safetensors headers count; None where they are not all there


class InputPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path that the job names, as it is on this host. With `complete` false the walk was given up: lower bounds.

    `kind` is file, folder, missing, other, or unknown with an `error` (a mount that hangs).
    """

    path: str  # as the job has it
    role: str  # model | data | output | log
    at: str  # where that is on this host
    kind: str
    error: str | None = None
    nearest: str = ""  # the deepest part of the way that is there
    blocked: str | None = None  # the folder on the way that this user may not enter
    readable: bool = True
    writable: bool = True
    files: int = 0
    total_bytes: int = 0
    complete: bool = True
    digest: str = ""
    entries: tuple[InputEntry, ...] = ()  # the first 200
    unreadable: tuple[str, ...] = ()  # names inside that this user may not read or enter, the first 20
    unreadable_count: int = 0
    pointers: tuple[str, ...] = ()  # Git-LFS pointers in the place of files, the first 20
    checkpoints: tuple[str, ...] = ()  # folders and files in an output folder that a run left to go on from
    newest: float | None = None  # the newest of these, seconds since the epoch
    model: ModelFiles | None = None


class InputFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The paths that the job names. Empty when the probe was asked about no job."""

    paths: tuple[InputPath, ...] = ()

    def find(self, path: str) -> InputPath | None:
        """What was learnt about a path, as the job has it; None when the probe was not asked about it."""
        return next((found for found in self.paths if found.path == path), None)


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """One section of a probe's answer, as it came: a value or an error, and what it cost."""

    value: Any = None
    error: str | None = None
    seconds: float = 0.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that was learnt about one host, as stored: `--save-facts` writes it, `--facts` reads it."""

    schema: str = SCHEMA
    host: str
    origin: str = ""  # recorded on what, or composed from what
    probe_version: str = ""
    recorded_at: str = ""  # ISO 8601, UTC
    sections: dict[str, Section] = {}


class _Fact(Generic[T]):
    """A typed section of :class:`HostFacts`; reading it may raise :class:`FactUnavailable`."""

    def __init__(self, kind: type[T], gathered: bool = True) -> None:
        self.kind = kind
        self.gathered = gathered  # by every probe; others are there when they were asked for

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, host: None, owner: type) -> _Fact[T]: ...
    @overload
    def __get__(self, host: HostFacts, owner: type) -> T: ...
    def __get__(self, host: HostFacts | None, owner: type) -> _Fact[T] | T:
        if host is None:
            return self
        return host.read(self.name, self.kind)


class HostFacts:
    """The facts of one host. Attributes are sections; reading one that was not learnt raises FactUnavailable."""

    os = _Fact(OsFacts)
    python = _Fact(PythonFacts)
    packages = _Fact(PackageFacts)
    torch = _Fact(TorchFacts)
    nccl = _Fact(NcclFacts)
    gpu = _Fact(GpuFacts)
    driver = _Fact(DriverFacts)
    pci = _Fact(PciFacts)
    kernel_log = _Fact(KernelLogFacts)
    cuda = _Fact(CudaFacts)
    network = _Fact(NetworkFacts)
    infiniband = _Fact(InfinibandFacts)
    limits = _Fact(LimitFacts)
    shm = _Fact(ShmFacts)
    disk = _Fact(DiskFacts)
    memory = _Fact(MemoryFacts)
    cpu = _Fact(CpuFacts)
    environment = _Fact(EnvironmentFacts)
    container = _Fact(ContainerFacts)
    compilers = _Fact(CompilerFacts)
    bitsandbytes = _Fact(BitsandbytesFacts)
    requirements = _Fact(RequirementFacts)
    binaries = _Fact(BinaryFacts)
    deepspeed = _Fact(DeepspeedFacts)
    extensions = _Fact(ExtensionFacts)
    session = _Fact(SessionFacts)
    inputs = _Fact(InputFacts)
    peers = _Fact(PeerFacts, gathered=False)
    deep = _Fact(DeepFacts, gathered=False)

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._typed: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The host's name as the hostfile has it."""
        return self.snapshot.host

    def read(self, section: str, kind: type[T]) -> T:
        """The typed value of a section.

        Raises:
            FactUnavailable: the section is missing, failed on the host, or has another shape than this version reads.
        """
        if section in self._typed:
            value: T = self._typed[section]
            return value
        raw = self.snapshot.sections.get(section)
        if raw is None:
            raise FactUnavailable(section, "the probe did not report it")
        if raw.error is not None:
            raise FactUnavailable(section, raw.error)
        try:
            value = msgspec.convert(raw.value, kind)
        except msgspec.ValidationError as error:
            raise FactUnavailable(section, f"not in the form this version reads: {error}") from None
        self._typed[section] = value
        return value

    @classmethod
    def sections(cls) -> tuple[str, ...]:
        """The names of the sections that every probe gathers, in the order of the class."""
        return tuple(name for name, value in vars(cls).items() if isinstance(value, _Fact) and value.gathered)
