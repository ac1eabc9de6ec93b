/* The GPUs of the stand-in and the text file that describes them.
 *
 * The file is $DSDOCTOR_FAKE_NVML, or /etc/dsdoctor-test/fake_nvml.conf: one "KEY VALUE" a line, # begins a comment.
 *   driver, nvml   version strings                      cuda   CUDA version of the driver, 12020 for 12.2
 *   init           code of nvmlInit: 0, 9 driver not loaded, 18 library and kernel module differ, ...
 *   kernel         version of the kernel module: not read here, /proc/driver/nvidia/version is made from it
 *   gpu NAME       begins a GPU; the lines after it are about it:
 *     uuid, bus, serial                                 texts
 *     compute        8.0                                compute capability
 *     p2p, topology  one number a GPU, in their order: nvmlGpuP2PStatus_t, nvmlGpuTopologyLevel_t
 *     process        PID MIB                            a compute process that holds memory (16 at most)
 *     error          FUNCTION CODE                      that function answers with that code (8 at most)
 *     lacks          FUNCTION                           the library of that driver has no such function: code 13
 *     and the numbers of NUMBERS below; -1 means "not supported" where that table says so
 * An unknown key or a bad value makes nvmlInit fail with 999 and a line on standard error.
 */
#ifndef DSDOCTOR_GPUS_H
#define DSDOCTOR_GPUS_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int u32;
typedef unsigned long long u64;

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { MAX_GPUS = 16, MAX_PROCESSES = 16, MAX_ERRORS = 8, MAX_NVLINKS = 36, TEXT = 96 };

typedef struct {
    char name[TEXT], uuid[TEXT], bus[TEXT], serial[TEXT];
    int compute_major, compute_minor;
    long long brand, memory_mib, used_mib, reserved_mib, pci_device;
    long long generation, generation_max, generation_card, width, width_max;
    long long ecc, ecc_corrected, ecc_uncorrected, ecc_volatile_uncorrected, remapped, remap_pending, remap_failed;
    long long retired_pages, retirement_pending;
    long long temperature, power_mw, power_limit_mw, power_default_mw, utilization, throttle, clock_mhz, clock_max_mhz;
    long long pstate, compute_mode, persistence, display, mig, mig_instances;
    long long nvlinks, nvlinks_up, nvlinks_to_switch, fabric_state, fabric_status, recovery_action, lost;
    int p2p[MAX_GPUS], topology[MAX_GPUS];
    struct { u32 pid; u64 bytes; } processes[MAX_PROCESSES];
    struct { char function[TEXT]; int code; } errors[MAX_ERRORS];
    int process_count, error_count;
} Gpu;

static struct { const char *key; size_t offset; long long initial; } NUMBERS[] = {
#define NUMBER(field, initial) { #field, offsetof(Gpu, field), initial }
    NUMBER(memory_mib, 0), NUMBER(used_mib, 0), NUMBER(reserved_mib, 0), NUMBER(pci_device, 0),
    NUMBER(brand, 0),          /* nvmlBrandType_t: 2 Tesla, 5 GeForce, 14 NVIDIA */
    NUMBER(generation, 4), NUMBER(generation_max, 4), NUMBER(width, 16), NUMBER(width_max, 16),
    NUMBER(generation_card, -1), /* -1: the same as generation_max */
    NUMBER(ecc, -1),           /* -1 none, 0 off, 1 on */
    NUMBER(ecc_corrected, 0), NUMBER(ecc_uncorrected, 0), NUMBER(ecc_volatile_uncorrected, 0),
    NUMBER(remapped, -1),      /* rows remapped after uncorrectable errors; -1: before Ampere */
    NUMBER(remap_pending, 0), NUMBER(remap_failed, 0),
    NUMBER(retired_pages, -1), /* pages retired after double-bit errors; -1: from Ampere on */
    NUMBER(retirement_pending, 0),
    NUMBER(temperature, 35), NUMBER(power_mw, 40000), NUMBER(power_limit_mw, 250000), NUMBER(utilization, 0),
    NUMBER(power_default_mw, -1), /* -1: the same as power_limit_mw */
    NUMBER(pstate, 0),
    NUMBER(throttle, 1),       /* bits of nvmlClocksEventReasons; 1 is "idle" */
    NUMBER(clock_mhz, 210), NUMBER(clock_max_mhz, 1410),
    NUMBER(compute_mode, 0), NUMBER(persistence, 0), NUMBER(display, 0),
    NUMBER(mig, -1),           /* -1 none, 0 off, 1 on */
    NUMBER(mig_instances, 0),
    NUMBER(nvlinks, 0), NUMBER(nvlinks_up, 0),
    NUMBER(nvlinks_to_switch, 0), /* 1: they lead to an NVSwitch */
    NUMBER(fabric_state, -1),  /* -1: before Hopper */
    NUMBER(fabric_status, 0),
    NUMBER(recovery_action, -1), /* -1: before driver 570 */
    NUMBER(lost, 0),           /* 1: fallen off the bus */
};
#define NUMBER_COUNT (sizeof NUMBERS / sizeof *NUMBERS)

static Gpu gpus[MAX_GPUS];
static int gpu_count, started, init_code, cuda_version;
static char driver_version[TEXT], nvml_version[TEXT];

/* --- the file */

static int put_text(char *target, const char *value) { return snprintf(target, TEXT, "%s", value) < TEXT; }

static int put_number(long long *target, const char *value) {
    char *end;
    *target = strtoll(value, &end, 0);
    return end != value && *end == 0;
}

static int put_row(int *row, char *value) {
    int count = 0;
    for (char *word = strtok(value, " "); word; word = strtok(NULL, " ")) {
        if (count == MAX_GPUS) return 0;
        row[count++] = atoi(word);
    }
    return count > 0;
}

static int begin_gpu(const char *name) {
    if (gpu_count == MAX_GPUS) return 0;
    Gpu *gpu = &gpus[gpu_count];
    memset(gpu, 0, sizeof *gpu);
    for (size_t i = 0; i < NUMBER_COUNT; i++) *(long long *)((char *)gpu + NUMBERS[i].offset) = NUMBERS[i].initial;
    for (int peer = 0; peer < MAX_GPUS; peer++) gpu->topology[peer] = 50; /* NVML_TOPOLOGY_SYSTEM */
    snprintf(gpu->uuid, TEXT, "GPU-00000000-0000-0000-0000-%012d", gpu_count);
    snprintf(gpu->bus, TEXT, "00000000:%02X:00.0", 0x17 + 0x20 * gpu_count);
    snprintf(gpu->serial, TEXT, "%013d", gpu_count);
    gpu_count++;
    return put_text(gpu->name, name);
}

static int put_process(Gpu *gpu, const char *value) {
    u64 mib;
    int at = gpu->process_count;
    if (at == MAX_PROCESSES || sscanf(value, "%u %llu", &gpu->processes[at].pid, &mib) != 2) return 0;
    gpu->processes[at].bytes = mib << 20;
    gpu->process_count++;
    return 1;
}

static int put_error(Gpu *gpu, const char *value) {
    int at = gpu->error_count;
    if (at == MAX_ERRORS || sscanf(value, "%95s %d", gpu->errors[at].function, &gpu->errors[at].code) != 2) return 0;
    gpu->error_count++;
    return 1;
}

static int put_lack(Gpu *gpu, const char *value) {
    int at = gpu->error_count;
    if (at == MAX_ERRORS || !put_text(gpu->errors[at].function, value)) return 0;
    gpu->errors[at].code = FUNCTION_NOT_FOUND;
    gpu->error_count++;
    return 1;
}

static int put_gpu_line(Gpu *gpu, const char *key, char *value) {
    if (!strcmp(key, "uuid")) return put_text(gpu->uuid, value);
    if (!strcmp(key, "bus")) return put_text(gpu->bus, value);
    if (!strcmp(key, "serial")) return put_text(gpu->serial, value);
    if (!strcmp(key, "compute")) return sscanf(value, "%d.%d", &gpu->compute_major, &gpu->compute_minor) == 2;
    if (!strcmp(key, "p2p")) return put_row(gpu->p2p, value);
    if (!strcmp(key, "topology")) return put_row(gpu->topology, value);
    if (!strcmp(key, "process")) return put_process(gpu, value);
    if (!strcmp(key, "error")) return put_error(gpu, value);
    if (!strcmp(key, "lacks")) return put_lack(gpu, value);
    for (size_t i = 0; i < NUMBER_COUNT; i++)
        if (!strcmp(key, NUMBERS[i].key)) return put_number((long long *)((char *)gpu + NUMBERS[i].offset), value);
    return 0;
}

static int put_line(const char *key, char *value) {
    long long number;
    if (!strcmp(key, "gpu")) return begin_gpu(value);
    if (gpu_count) return put_gpu_line(&gpus[gpu_count - 1], key, value);
    if (!strcmp(key, "driver")) return put_text(driver_version, value);
    if (!strcmp(key, "nvml")) return put_text(nvml_version, value);
    if (!strcmp(key, "kernel")) return 1;
    if (strcmp(key, "cuda") && strcmp(key, "init")) return 0;
    if (!put_number(&number, value)) return 0;
    *(strcmp(key, "cuda") ? &init_code : &cuda_version) = (int)number;
    return 1;
}

static int load(void) {
    const char *given = getenv("DSDOCTOR_FAKE_NVML"), *path = given ? given : "/etc/dsdoctor-test/fake_nvml.conf";
    FILE *file = fopen(path, "r");
    char line[512];
    gpu_count = init_code = cuda_version = 0;
    if (!file) return DRIVER_NOT_LOADED;
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        line[strcspn(line, "#\r\n")] = 0;
        char *key = line + strspn(line, " "), *value = key + strcspn(key, " ");
        for (char *end = key + strlen(key); end > key && end[-1] == ' ';) *--end = 0;
        if (!*key) continue;
        if (*value) *value++ = 0;
        value += strspn(value, " ");
        if (*value && put_line(key, value)) continue;
        fprintf(stderr, "fake_nvml: %s:%d: not understood: %s %s\n", path, number, key, value);
        init_code = UNKNOWN;
        break;
    }
    fclose(file);
    return init_code;
}

#endif
