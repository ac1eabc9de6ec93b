"""The GPUs, their driver, their place on the PCI bus, their errors."""

from __future__ import annotations

import msgspec


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
