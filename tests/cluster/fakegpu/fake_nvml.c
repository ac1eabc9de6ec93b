/* A stand-in for NVIDIA's management library, libnvidia-ml.so.1: it answers from a text file.
 *
 * It makes a host without a GPU look as if it had some, so that the real callers (nvidia-ml-py, ctypes) go their real
 * way through dlopen, structures and error codes. Its figures are what the file says; no answer has been compared with
 * a real card. Function names, structures, and codes are those of nvml.h as nvidia-ml-py 13.615.71 declares them;
 * which code a function gives when follows NVIDIA's NVML API reference.
 *
 *   gcc -O1 -Wall -Wextra -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fake_nvml.c
 */
#include "gpus.h"

/* --- what every function does first */

static Gpu *gpu_of(void *handle) {
    Gpu *gpu = handle;
    return gpu >= gpus && gpu < gpus + gpu_count ? gpu : NULL;
}

static int check(void *handle, const char *function) {
    Gpu *gpu = gpu_of(handle);
    if (!started) return UNINITIALIZED;
    if (!gpu) return INVALID_ARGUMENT;
    if (gpu->lost) return GPU_IS_LOST;
    for (int i = 0; i < gpu->error_count; i++)
        if (!strcmp(gpu->errors[i].function, function)) return gpu->errors[i].code;
    return SUCCESS;
}

#define GPU_OR_RETURN(gpu, handle) \
    int code_ = check(handle, __func__); \
    if (code_) return code_; \
    Gpu *gpu = handle; \
    (void)gpu
#define SUPPORTED_OR_RETURN(value) if ((value) < 0) return NOT_SUPPORTED

static int give_text(char *target, u32 size, const char *text) {
    if (!target) return INVALID_ARGUMENT;
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return SUCCESS;
}

/* --- the library */

int nvmlInitWithFlags(u32 flags) {
    (void)flags;
    int code = load();
    if (code == SUCCESS) started++;
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return started ? (started--, SUCCESS) : UNINITIALIZED; }

const char *nvmlErrorString(int code) {
    static const struct { int code; const char *text; } TEXTS[] = {
        {0, "Success"}, {1, "Uninitialized"}, {2, "Invalid Argument"}, {3, "Not Supported"},
        {4, "Insufficient Permissions"}, {6, "Not Found"}, {7, "Insufficient Size"}, {9, "Driver Not Loaded"},
        {10, "Timeout"}, {13, "Function Not Found"}, {15, "GPU is lost"}, {16, "GPU requires reset"},
        {17, "The operating system has blocked the request"}, {18, "RM has detected an NVML/RM version mismatch."},
    };
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) if (TEXTS[i].code == code) return TEXTS[i].text;
    return "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *text, u32 size) {
    return started ? give_text(text, size, driver_version) : UNINITIALIZED;
}
int nvmlSystemGetNVMLVersion(char *text, u32 size) { return give_text(text, size, nvml_version); }
int nvmlSystemGetCudaDriverVersion(int *version) { return *version = cuda_version, SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = cuda_version, SUCCESS; }

/* --- finding a GPU */

int nvmlDeviceGetCount_v2(u32 *count) { return started ? (*count = (u32)gpu_count, SUCCESS) : UNINITIALIZED; }
int nvmlDeviceGetCount(u32 *count) { return nvmlDeviceGetCount_v2(count); }

int nvmlDeviceGetHandleByIndex_v2(u32 index, void **handle) {
    if (!started) return UNINITIALIZED;
    if (index >= (u32)gpu_count) return INVALID_ARGUMENT;
    *handle = &gpus[index];
    return check(*handle, __func__);
}
int nvmlDeviceGetHandleByIndex(u32 index, void **handle) { return nvmlDeviceGetHandleByIndex_v2(index, handle); }

static int find(size_t offset, const char *wanted, void **handle) {
    if (!started) return UNINITIALIZED;
    for (int i = 0; i < gpu_count; i++) {
        if (strcmp((char *)&gpus[i] + offset, wanted)) continue;
        *handle = &gpus[i];
        return gpus[i].lost ? GPU_IS_LOST : SUCCESS;
    }
    return NOT_FOUND;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { return find(offsetof(Gpu, uuid), uuid, handle); }
int nvmlDeviceGetHandleBySerial(const char *serial, void **h) { return find(offsetof(Gpu, serial), serial, h); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) { return find(offsetof(Gpu, bus), bus, handle); }

/* --- one GPU: texts and numbers */

#define GIVES_TEXT(function, field) \
    int function(void *handle, char *text, u32 size) { \
        GPU_OR_RETURN(gpu, handle); \
        return give_text(text, size, gpu->field); \
    }
GIVES_TEXT(nvmlDeviceGetName, name)
GIVES_TEXT(nvmlDeviceGetUUID, uuid)
GIVES_TEXT(nvmlDeviceGetSerial, serial)

#define GIVES(type, function, expression) \
    int function(void *handle, type *value) { \
        GPU_OR_RETURN(gpu, handle); \
        *value = (type)(expression); \
        return SUCCESS; \
    }
GIVES(u32, nvmlDeviceGetIndex, gpu - gpus)
GIVES(u32, nvmlDeviceGetMinorNumber, gpu - gpus)
GIVES(u32, nvmlDeviceGetCurrPcieLinkGeneration, gpu->generation)
GIVES(u32, nvmlDeviceGetMaxPcieLinkGeneration, gpu->generation_max)
GIVES(u32, nvmlDeviceGetGpuMaxPcieLinkGeneration,
      gpu->generation_card < 0 ? gpu->generation_max : gpu->generation_card)
GIVES(u32, nvmlDeviceGetCurrPcieLinkWidth, gpu->width)
GIVES(u32, nvmlDeviceGetMaxPcieLinkWidth, gpu->width_max)
GIVES(u32, nvmlDeviceGetPowerUsage, gpu->power_mw)
GIVES(u32, nvmlDeviceGetPowerManagementLimit, gpu->power_limit_mw)
GIVES(u32, nvmlDeviceGetEnforcedPowerLimit, gpu->power_limit_mw)
GIVES(u32, nvmlDeviceGetPowerManagementDefaultLimit,
      gpu->power_default_mw < 0 ? gpu->power_limit_mw : gpu->power_default_mw)
GIVES(u32, nvmlDeviceGetBrand, gpu->brand)
GIVES(u32, nvmlDeviceGetPerformanceState, gpu->pstate)
GIVES(u32, nvmlDeviceGetDisplayActive, gpu->display)
GIVES(u64, nvmlDeviceGetCurrentClocksThrottleReasons, gpu->throttle)
GIVES(u64, nvmlDeviceGetCurrentClocksEventReasons, gpu->throttle)
GIVES(int, nvmlDeviceGetComputeMode, gpu->compute_mode)
GIVES(int, nvmlDeviceGetPersistenceMode, gpu->persistence)
GIVES(u32, nvmlDeviceIsMigDeviceHandle, 0)

#define GIVES_WITH_SELECTOR(function, expression) \
    int function(void *handle, int selector, u32 *value) { \
        (void)selector; \
        GPU_OR_RETURN(gpu, handle); \
        *value = (u32)(expression); \
        return SUCCESS; \
    }
GIVES_WITH_SELECTOR(nvmlDeviceGetTemperature, gpu->temperature)
GIVES_WITH_SELECTOR(nvmlDeviceGetClockInfo, gpu->clock_mhz)
GIVES_WITH_SELECTOR(nvmlDeviceGetMaxClockInfo, gpu->clock_max_mhz)

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    GPU_OR_RETURN(gpu, handle);
    *major = gpu->compute_major;
    *minor = gpu->compute_minor;
    return SUCCESS;
}

typedef struct { u32 gpu, memory; } Utilization;
int nvmlDeviceGetUtilizationRates(void *handle, Utilization *rates) {
    GPU_OR_RETURN(gpu, handle);
    *rates = (Utilization){(u32)gpu->utilization, 0};
    return SUCCESS;
}

typedef struct { u64 total, free, used; } Memory;
int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    GPU_OR_RETURN(gpu, handle);
    u64 total = (u64)gpu->memory_mib << 20, used = (u64)(gpu->used_mib + gpu->reserved_mib) << 20;
    *memory = (Memory){total, total - used, used}; /* version 1 counts what the driver reserves as used */
    return SUCCESS;
}

typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory2 *memory) {
    GPU_OR_RETURN(gpu, handle);
    if (memory->version != (sizeof(Memory2) | 2u << 24)) return 25; /* argument version mismatch */
    u64 total = (u64)gpu->memory_mib << 20, used = (u64)gpu->used_mib << 20, reserved = (u64)gpu->reserved_mib << 20;
    *memory = (Memory2){memory->version, total, reserved, total - used - reserved, used};
    return SUCCESS;
}

typedef struct { char legacy[16]; u32 domain, bus, device, pci_device, subsystem; char id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(void *handle, Pci *pci) {
    GPU_OR_RETURN(gpu, handle);
    memset(pci, 0, sizeof *pci);
    if (sscanf(gpu->bus, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) != 3) return UNKNOWN;
    pci->pci_device = (u32)gpu->pci_device << 16 | 0x10DE;
    snprintf(pci->id, sizeof pci->id, "%.31s", gpu->bus);
    u32 domain = pci->domain & 0xFFFF, bus = pci->bus & 0xFF, device = pci->device & 0xFF;
    snprintf(pci->legacy, sizeof pci->legacy, "%04X:%02X:%02X.0", domain, bus, device);
    return SUCCESS;
}

/* --- errors in memory, MIG */

int nvmlDeviceGetEccMode(void *handle, u32 *current, u32 *pending) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->ecc);
    *current = *pending = (u32)gpu->ecc;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, u64 *count) {
    GPU_OR_RETURN(gpu, handle);
    if (gpu->ecc != 1) return NOT_SUPPORTED; /* off, too: nothing counts */
    long long uncorrected = counter ? gpu->ecc_uncorrected : gpu->ecc_volatile_uncorrected;
    *count = (u64)(type ? uncorrected : gpu->ecc_corrected);
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(void *handle, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->remapped);
    if (gpu->mig == 1 && gpu->mig_instances) return NOT_SUPPORTED;
    *corrected = 0;
    *uncorrected = (u32)gpu->remapped;
    *pending = (u32)gpu->remap_pending;
    *failed = (u32)gpu->remap_failed;
    return SUCCESS;
}

int nvmlDeviceGetRetiredPages(void *handle, int cause, u32 *count, u64 *addresses) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->retired_pages);
    u32 room = *count, pages = cause == 1 ? (u32)gpu->retired_pages : 0; /* 1: double-bit errors */
    *count = pages;
    if (!addresses) return pages ? INSUFFICIENT_SIZE : SUCCESS;
    if (room < pages) return INSUFFICIENT_SIZE;
    for (u32 i = 0; i < pages; i++) addresses[i] = 0x1000ull * (i + 1);
    return SUCCESS;
}

int nvmlDeviceGetRetiredPagesPendingStatus(void *handle, u32 *pending) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->retired_pages);
    *pending = (u32)gpu->retirement_pending;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, u32 *current, u32 *pending) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->mig);
    *current = *pending = (u32)gpu->mig;
    return SUCCESS;
}
GIVES(u32, nvmlDeviceGetMaxMigDeviceCount, gpu->mig < 0 ? 0 : 7)
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, u32 index, void **mig) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->mig);
    if (gpu->mig == 0 || index >= gpu->mig_instances) return NOT_FOUND;
    *mig = handle; /* what can be asked of an instance is not imitated */
    return SUCCESS;
}

/* --- GPUs among each other */

int nvmlDeviceGetNvLinkState(void *handle, u32 link, int *active) {
    GPU_OR_RETURN(gpu, handle);
    if (!gpu->nvlinks) return NOT_SUPPORTED;
    if (link >= MAX_NVLINKS || link >= gpu->nvlinks) return INVALID_ARGUMENT;
    *active = link < gpu->nvlinks_up;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(void *handle, u32 link, int *type) {
    enum { TO_GPU, TO_IBM_NPU, TO_SWITCH };
    GPU_OR_RETURN(gpu, handle);
    if (!gpu->nvlinks) return NOT_SUPPORTED;
    if (link >= gpu->nvlinks_up) return INVALID_ARGUMENT;
    *type = gpu->nvlinks_to_switch ? TO_SWITCH : TO_GPU;
    return SUCCESS;
}

typedef struct { unsigned char uuid[16]; u32 status, clique; unsigned char state; } Fabric;
typedef struct { u32 version; unsigned char uuid[16]; u32 status, clique; unsigned char state; u32 health; } Fabric2;
_Static_assert(sizeof(Fabric) == 28 && sizeof(Fabric2) == 36 && sizeof(Memory2) == 40, "as in nvml.h");
int nvmlDeviceGetGpuFabricInfo(void *handle, Fabric *fabric) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->fabric_state);
    *fabric = (Fabric){{0}, (u32)gpu->fabric_status, 0, (unsigned char)gpu->fabric_state};
    return SUCCESS;
}
int nvmlDeviceGetGpuFabricInfoV(void *handle, Fabric2 *fabric) {
    GPU_OR_RETURN(gpu, handle);
    SUPPORTED_OR_RETURN(gpu->fabric_state);
    if (fabric->version != (sizeof(Fabric2) | 2u << 24)) return 25; /* argument version mismatch */
    *fabric = (Fabric2){fabric->version, {0}, (u32)gpu->fabric_status, 0, (unsigned char)gpu->fabric_state, 0};
    return SUCCESS;
}

typedef struct { u32 field, scope; long long time, latency; u32 type, code; u64 value; } Field;
_Static_assert(sizeof(Field) == 40, "as in nvml.h");
int nvmlDeviceGetFieldValues(void *handle, int count, Field *fields) {
    enum { RECOVERY_ACTION = 230 };
    GPU_OR_RETURN(gpu, handle);
    for (int i = 0; i < count; i++) {
        int known = fields[i].field == RECOVERY_ACTION && gpu->recovery_action >= 0;
        fields[i].code = known ? SUCCESS : NOT_SUPPORTED;
        fields[i].value = known ? (u64)gpu->recovery_action : ~0ull;
    }
    return SUCCESS;
}

int nvmlDeviceGetP2PStatus(void *handle, void *other, int capability, int *status) {
    enum { READ, WRITE, NVLINK, ATOMICS, PCI };
    GPU_OR_RETURN(gpu, handle);
    Gpu *peer = gpu_of(other);
    if (!peer || capability < READ || capability > PCI) return INVALID_ARGUMENT;
    if (capability == NVLINK) *status = gpu->nvlinks_up ? 0 : 5; /* NVML_P2P_STATUS_NOT_SUPPORTED */
    else *status = capability == ATOMICS ? 5 : gpu->p2p[peer - gpus];
    return SUCCESS;
}

int nvmlDeviceGetTopologyCommonAncestor(void *handle, void *other, int *level) {
    GPU_OR_RETURN(gpu, handle);
    Gpu *peer = gpu_of(other);
    if (!peer || peer == gpu) return INVALID_ARGUMENT;
    *level = gpu->topology[peer - gpus];
    return SUCCESS;
}

int nvmlDeviceGetTopologyNearestGpus(void *handle, int level, u32 *count, void **handles) {
    GPU_OR_RETURN(gpu, handle);
    u32 found = 0;
    for (int i = 0; i < gpu_count; i++) {
        if (&gpus[i] == gpu || gpu->topology[i] != level) continue;
        if (handles && found < *count) handles[found] = &gpus[i];
        found++;
    }
    *count = found;
    return SUCCESS;
}

/* --- processes */

typedef struct { u32 pid; u64 bytes; u32 gpu_instance, compute_instance; } Process;
typedef struct { u32 pid; u64 bytes; } Process1;

static int give_processes(Gpu *gpu, u32 *count, void *table, int version) {
    u32 room = *count;
    *count = (u32)gpu->process_count;
    if (room < *count) return INSUFFICIENT_SIZE;
    for (u32 i = 0; i < *count && table; i++) {
        u32 pid = gpu->processes[i].pid;
        u64 bytes = gpu->processes[i].bytes;
        if (version == 1) ((Process1 *)table)[i] = (Process1){pid, bytes};
        else ((Process *)table)[i] = (Process){pid, bytes, ~0u, ~0u};
    }
    return SUCCESS;
}

#define GIVES_PROCESSES(function, version) \
    int function(void *handle, u32 *count, void *table) { \
        GPU_OR_RETURN(gpu, handle); \
        return give_processes(gpu, count, table, version); \
    }
GIVES_PROCESSES(nvmlDeviceGetComputeRunningProcesses, 1)
GIVES_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, 2)
GIVES_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, 3)

#define GIVES_NO_PROCESSES(function) \
    int function(void *handle, u32 *count, void *table) { \
        (void)table; \
        GPU_OR_RETURN(gpu, handle); \
        return *count = 0, SUCCESS; \
    }
GIVES_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
GIVES_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)
