/* A stand-in for libnvidia-ml.so.1 that takes its GPUs from a text file, so that the real pynvml can be tested
 * without a driver.
 *
 * Build:  gcc -O1 -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 mocknvml.c -lpthread
 *         -DnvmlX=hidden_nvmlX leaves the symbol nvmlX out (an older driver).
 * Use:    LD_LIBRARY_PATH=<folder of the library> MOCK_NVML=<file> python ...
 *
 * The file is read again at every call, so a test can change the machine under a running program. One record a
 * line, key=value; values may be "quoted". Memory in MiB, percent, degrees Celsius, watts:
 *
 *   sys  driver=580.95.05 cuda=13000 procdir=/run/x     procdir/PID holds lines "gpuindex MiB": a process claims memory
 *   gpu  name="NVIDIA L4" uuid=GPU-.. total=23034 reserved=450 used=0 util=0 temp=35 power=30 limit=72 cc=8.9
 *        bus=0000:01:00.0 numa=0 nvlink=0 mig=0 mode=0   nvlink=N: N lanes to a switch; mode: nvmlComputeMode_t
 *   mig  gpu=0 uuid=MIG-.. total=20096 used=0 gi=1 ci=0 slot=0 name="..."
 *   proc gpu=0 pid=1234 used=2048 [keep=1] [gi=1]        dead pids vanish unless keep=1; used=-1: not told
 *   link a=0 b=1 lanes=4                                 NVLink lanes that join two GPUs directly
 *   topo a=0 b=1 level=10                                10 one switch, 20 several, 30 host bridge, 40 node, 50 system
 *   fail fn=nvmlDeviceGetMemoryInfo code=15 [gpu=1]      an injected error: 3 not supported, 4 no permission, 15 GPU is lost
 *
 * A GPU's used memory is its used= and all its live processes. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

enum {
  OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
  GPU_LOST = 15, VERSION_MISMATCH = 25
};
#define MAX_DEVICES 64
#define MAX_PROCESSES 512
#define MAX_RECORDS 64
#define MAX_LANES 18
#define NOT_AVAILABLE (~0ULL)
#define MIB(n) ((u64)(n) << 20)

typedef unsigned int u32;
typedef unsigned long long u64;

typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
typedef struct { u32 version, sensor; int celsius; } Temperature1;
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { u32 pid; u64 used; u32 gpu_instance, compute_instance; } ProcessInfo;

typedef struct Device {
  int index, is_mig, parent, slot, gi, ci, util, temp, power, limit, cc_major, cc_minor, numa, nvlink, mig_mode, compute_mode;
  char name[96], uuid[96], bus[32];
  u64 total, reserved, used;
} Device, *Handle;
typedef struct { int gpu, gi; u32 pid; u64 used; } Process;
typedef struct { int a, b, value; } Pair;
typedef struct { char fn[64]; int code, gpu; } Failure;

static Device gpus[MAX_DEVICES], migs[MAX_DEVICES];
static Process processes[MAX_PROCESSES];
static Pair links[MAX_RECORDS], topology[MAX_RECORDS];
static Failure failures[MAX_RECORDS];
static int n_gpus, n_migs, n_processes, n_links, n_topology, n_failures, initialised, cuda;
static char driver[80], procdir[512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the file ---- */

static int text(const char *line, const char *key, char *out, size_t size) {
  size_t length = strlen(key);
  for (const char *p = line; (p = strstr(p, key)); p += length) {
    if (p[length] != '=' || p == line || (p[-1] != ' ' && p[-1] != '\t')) continue;
    const char *value = p + length + 1;
    char end = ' ';
    if (*value == '"') { end = '"'; value++; }
    size_t i = 0;
    while (value[i] && value[i] != end && value[i] != '\n' && i < size - 1) { out[i] = value[i]; i++; }
    out[i] = 0;
    return 1;
  }
  return 0;
}

static long number(const char *line, const char *key, long otherwise) {
  char value[64];
  return text(line, key, value, sizeof value) ? atol(value) : otherwise;
}

static void add_gpu(const char *line) {
  if (n_gpus >= MAX_DEVICES) return;
  Device *g = &gpus[n_gpus];
  char cc[32];
  memset(g, 0, sizeof *g);
  g->index = n_gpus;
  g->parent = -1;
  if (!text(line, "name", g->name, sizeof g->name)) strcpy(g->name, "NVIDIA MOCK GPU");
  if (!text(line, "uuid", g->uuid, sizeof g->uuid)) snprintf(g->uuid, sizeof g->uuid, "GPU-00000000-0000-4000-8000-%012d", n_gpus);
  if (!text(line, "bus", g->bus, sizeof g->bus)) snprintf(g->bus, sizeof g->bus, "0000:%02X:00.0", n_gpus + 1);
  g->total = MIB(number(line, "total", 24576));
  g->reserved = MIB(number(line, "reserved", 450));
  g->used = MIB(number(line, "used", 0));
  g->util = number(line, "util", 0);
  g->temp = number(line, "temp", 35);
  g->power = number(line, "power", 30);
  g->limit = number(line, "limit", 300);
  g->numa = number(line, "numa", 0);
  g->nvlink = number(line, "nvlink", 0);
  g->mig_mode = number(line, "mig", 0);
  g->compute_mode = number(line, "mode", 0);
  g->cc_major = 9;
  if (text(line, "cc", cc, sizeof cc)) sscanf(cc, "%d.%d", &g->cc_major, &g->cc_minor);
  n_gpus++;
}

static void add_mig(const char *line) {
  int parent = number(line, "gpu", 0);
  if (n_migs >= MAX_DEVICES || parent < 0 || parent >= n_gpus) return;
  int slot = 0;
  for (int i = 0; i < n_migs; i++) slot += migs[i].parent == parent;
  Device *m = &migs[n_migs];
  *m = gpus[parent];
  m->is_mig = 1;
  m->parent = parent;
  m->index = n_migs;
  m->slot = number(line, "slot", slot);
  m->total = MIB(number(line, "total", 20096));
  m->reserved = 0;
  m->used = MIB(number(line, "used", 0));
  m->gi = number(line, "gi", slot + 1);
  m->ci = number(line, "ci", 0);
  if (!text(line, "uuid", m->uuid, sizeof m->uuid)) snprintf(m->uuid, sizeof m->uuid, "MIG-00000000-0000-4000-8000-%012d", n_migs);
  text(line, "name", m->name, sizeof m->name);
  gpus[parent].mig_mode = 1;
  n_migs++;
}

static void add_process(int gpu, u32 pid, long mib, int keep, int gi) {
  if (n_processes >= MAX_PROCESSES || gpu < 0 || gpu >= n_gpus) return;
  if (!keep && kill((pid_t)pid, 0) && errno == ESRCH) return;
  processes[n_processes++] = (Process){gpu, gi, pid, mib < 0 ? NOT_AVAILABLE : MIB(mib)};
}

static void add_pair(Pair *pairs, int *n, const char *line, const char *key) {
  if (*n < MAX_RECORDS) pairs[(*n)++] = (Pair){number(line, "a", 0), number(line, "b", 0), number(line, key, 0)};
}

static void add_failure(const char *line) {
  if (n_failures >= MAX_RECORDS || !text(line, "fn", failures[n_failures].fn, sizeof failures[0].fn)) return;
  failures[n_failures].code = number(line, "code", 999);
  failures[n_failures++].gpu = number(line, "gpu", -1);
}

static void read_procdir(void) {
  DIR *folder = procdir[0] ? opendir(procdir) : NULL;
  struct dirent *entry;
  while (folder && (entry = readdir(folder))) {
    u32 pid = (u32)atoi(entry->d_name);
    char path[1024];
    if (!pid) continue;
    snprintf(path, sizeof path, "%s/%u", procdir, pid);
    FILE *file = fopen(path, "r");
    int gpu;
    long mib;
    while (file && fscanf(file, "%d %ld", &gpu, &mib) == 2) add_process(gpu, pid, mib, 0, -1);
    if (file) fclose(file);
  }
  if (folder) closedir(folder);
}

static int record(const char *line, const char *kind) {
  size_t length = strlen(kind);
  return !strncmp(line, kind, length) && strchr(" \t\r\n", line[length]);
}

static void load(void) {
  const char *path = getenv("MOCK_NVML");
  char line[1024];
  n_gpus = n_migs = n_processes = n_links = n_topology = n_failures = 0;
  strcpy(driver, "580.95.05");
  cuda = 13000;
  procdir[0] = 0;
  FILE *file = path ? fopen(path, "r") : NULL;
  while (file && fgets(line, sizeof line, file)) {
    if (record(line, "sys")) {
      text(line, "driver", driver, sizeof driver);
      cuda = number(line, "cuda", cuda);
      text(line, "procdir", procdir, sizeof procdir);
    } else if (record(line, "gpu")) add_gpu(line);
    else if (record(line, "mig")) add_mig(line);
    else if (record(line, "proc")) add_process(number(line, "gpu", 0), (u32)number(line, "pid", 0), number(line, "used", 0), number(line, "keep", 0), number(line, "gi", -1));
    else if (record(line, "link")) add_pair(links, &n_links, line, "lanes");
    else if (record(line, "topo")) add_pair(topology, &n_topology, line, "level");
    else if (record(line, "fail")) add_failure(line);
  }
  if (file) fclose(file);
  read_procdir();
  for (int i = 0; i < n_processes; i++)
    if (processes[i].used != NOT_AVAILABLE) gpus[processes[i].gpu].used += processes[i].used;
}

/* ---- entering and leaving a call ---- */

static int injected(const char *fn, int gpu) {
  for (int i = 0; i < n_failures; i++)
    if (!strcmp(failures[i].fn, fn) && (failures[i].gpu < 0 || failures[i].gpu == gpu)) return failures[i].code;
  return OK;
}

/* Holds the lock when it returns OK. */
static int enter(const char *fn, Handle h) {
  int result = OK;
  pthread_mutex_lock(&lock);
  if (initialised <= 0) result = UNINITIALIZED;
  else {
    load();
    if (h && (h->is_mig ? h->index >= n_migs : h->index >= n_gpus)) result = GPU_LOST;
    else result = injected(fn, h ? (h->is_mig ? h->parent : h->index) : -2);
  }
  if (result) pthread_mutex_unlock(&lock);
  return result;
}
static int leave(int result) { pthread_mutex_unlock(&lock); return result; }
static int put(char *out, u32 size, const char *value) {
  if (strlen(value) + 1 > size) return INSUFFICIENT_SIZE;
  strcpy(out, value);
  return OK;
}
#define ENTER(h) do { int entered = enter(__func__, h); if (entered) return entered; } while (0)
#define DEVICE_VALUE(fn, type, value) \
  int fn(Handle h, type *out) { if (!h || !out) return INVALID_ARGUMENT; ENTER(h); *out = (value); return leave(OK); }

/* ---- the library and the system ---- */

int nvmlInitWithFlags(u32 flags) {
  (void)flags;
  pthread_mutex_lock(&lock);
  load();
  int result = injected("nvmlInitWithFlags", -2);
  if (!result) initialised++;
  return leave(result);
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
  pthread_mutex_lock(&lock);
  if (initialised <= 0) return leave(UNINITIALIZED);
  initialised--;
  return leave(OK);
}
const char *nvmlErrorString(int code) {
  switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case 9: return "Driver Not Loaded";
    case 13: return "Function Not Found";
    case GPU_LOST: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}
int nvmlSystemGetDriverVersion(char *out, u32 size) { ENTER(NULL); return leave(put(out, size, driver)); }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { ENTER(NULL); *out = cuda; return leave(OK); }

/* ---- handles and names ---- */

int nvmlDeviceGetCount_v2(u32 *out) { ENTER(NULL); *out = (u32)n_gpus; return leave(OK); }
int nvmlDeviceGetHandleByIndex_v2(u32 index, Handle *out) {
  ENTER(NULL);
  if (index >= (u32)n_gpus) return leave(INVALID_ARGUMENT);
  *out = &gpus[index];
  return leave(injected("nvmlDeviceGetHandleByIndex_v2", (int)index));
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *out) {
  ENTER(NULL);
  for (int i = 0; i < n_gpus; i++) if (!strcmp(gpus[i].uuid, uuid)) { *out = &gpus[i]; return leave(OK); }
  for (int i = 0; i < n_migs; i++) if (!strcmp(migs[i].uuid, uuid)) { *out = &migs[i]; return leave(OK); }
  return leave(NOT_FOUND);
}
int nvmlDeviceGetName(Handle h, char *out, u32 size) { if (!h) return INVALID_ARGUMENT; ENTER(h); return leave(put(out, size, h->name)); }
int nvmlDeviceGetUUID(Handle h, char *out, u32 size) { if (!h) return INVALID_ARGUMENT; ENTER(h); return leave(put(out, size, h->uuid)); }
static void fill_pci(Pci *out, const char *bus) {
  memset(out, 0, sizeof *out);
  sscanf(bus, "%x:%x:%x", &out->domain, &out->bus, &out->device);
  snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", out->domain & 0xffff, out->bus & 255, out->device & 31);
  snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", out->domain, out->bus, out->device);
}
int nvmlDeviceGetPciInfo_v3(Handle h, Pci *out) { if (!h) return INVALID_ARGUMENT; ENTER(h); fill_pci(out, h->bus); return leave(OK); }
int nvmlDeviceGetCudaComputeCapability(Handle h, int *major, int *minor) {
  if (!h) return INVALID_ARGUMENT;
  ENTER(h);
  *major = h->cc_major;
  *minor = h->cc_minor;
  return leave(OK);
}

/* ---- memory and load ---- */

/* Version 1 counts the reserved memory as used; version 2 tells it apart. */
int nvmlDeviceGetMemoryInfo(Handle h, u64 *out) {
  if (!h) return INVALID_ARGUMENT;
  ENTER(h);
  u64 used = h->used + h->reserved;
  if (used > h->total) used = h->total;
  out[0] = h->total;
  out[1] = h->total - used;
  out[2] = used;
  return leave(OK);
}
int nvmlDeviceGetMemoryInfo_v2(Handle h, Memory2 *out) {
  if (!h) return INVALID_ARGUMENT;
  if (out->version != (sizeof(Memory2) | 2u << 24)) return VERSION_MISMATCH;
  ENTER(h);
  u64 used = h->used + h->reserved > h->total ? h->total - h->reserved : h->used;
  out->total = h->total;
  out->reserved = h->reserved;
  out->used = used;
  out->free = h->total - used - h->reserved;
  return leave(OK);
}
int nvmlDeviceGetUtilizationRates(Handle h, u32 *out) {
  if (!h) return INVALID_ARGUMENT;
  ENTER(h);
  if (h->is_mig || h->mig_mode) return leave(NOT_SUPPORTED);
  out[0] = (u32)h->util;
  out[1] = 0;
  return leave(OK);
}
int nvmlDeviceGetTemperature(Handle h, u32 sensor, u32 *out) {
  if (!h || sensor) return INVALID_ARGUMENT;
  ENTER(h);
  *out = (u32)h->temp;
  return leave(OK);
}
int nvmlDeviceGetTemperatureV(Handle h, Temperature1 *out) {
  if (!h) return INVALID_ARGUMENT;
  if (out->version != (sizeof(Temperature1) | 1u << 24)) return VERSION_MISMATCH;
  ENTER(h);
  out->celsius = h->temp;
  return leave(OK);
}
DEVICE_VALUE(nvmlDeviceGetPowerUsage, u32, (u32)h->power * 1000)
DEVICE_VALUE(nvmlDeviceGetEnforcedPowerLimit, u32, (u32)h->limit * 1000)
DEVICE_VALUE(nvmlDeviceGetComputeMode, u32, (u32)h->compute_mode)
DEVICE_VALUE(nvmlDeviceGetPowerManagementLimit, u32, (u32)h->limit * 1000)

/* ---- MIG ---- */

DEVICE_VALUE(nvmlDeviceGetMaxMigDeviceCount, u32, h->mig_mode ? 7 : 0)
DEVICE_VALUE(nvmlDeviceIsMigDeviceHandle, u32, (u32)h->is_mig)
int nvmlDeviceGetMigMode(Handle h, u32 *current, u32 *pending) {
  if (!h) return INVALID_ARGUMENT;
  ENTER(h);
  *current = *pending = (u32)h->mig_mode;
  return leave(OK);
}
int nvmlDeviceGetMigDeviceHandleByIndex(Handle h, u32 slot, Handle *out) {
  if (!h) return INVALID_ARGUMENT;
  ENTER(h);
  for (int i = 0; i < n_migs; i++)
    if (migs[i].parent == h->index && migs[i].slot == (int)slot) { *out = &migs[i]; return leave(OK); }
  return leave(NOT_FOUND);
}
int nvmlDeviceGetGpuInstanceId(Handle h, u32 *out) { if (!h || !h->is_mig) return INVALID_ARGUMENT; ENTER(h); *out = (u32)h->gi; return leave(OK); }
int nvmlDeviceGetComputeInstanceId(Handle h, u32 *out) { if (!h || !h->is_mig) return INVALID_ARGUMENT; ENTER(h); *out = (u32)h->ci; return leave(OK); }

/* ---- processes: the first call, with no room, asks for the count ---- */

int nvmlDeviceGetComputeRunningProcesses_v3(Handle h, u32 *count, ProcessInfo *out) {
  if (!h || !count) return INVALID_ARGUMENT;
  ENTER(h);
  u32 n = 0, room = out ? *count : 0;
  for (int i = 0; i < n_processes; i++) {
    if (processes[i].gpu != (h->is_mig ? h->parent : h->index) || (h->is_mig && processes[i].gi != h->gi)) continue;
    if (n < room) out[n] = (ProcessInfo){processes[i].pid, processes[i].used, (u32)processes[i].gi, ~0u};
    n++;
  }
  *count = n;
  return leave(n > room ? INSUFFICIENT_SIZE : OK);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle h, u32 *count, ProcessInfo *out) {
  (void)out;
  if (!h || !count) return INVALID_ARGUMENT;
  ENTER(h);
  *count = 0;
  return leave(OK);
}

/* ---- how GPUs reach each other ---- */

static int between(const Pair *pairs, int n, int a, int b, int otherwise) {
  for (int i = 0; i < n; i++)
    if ((pairs[i].a == a && pairs[i].b == b) || (pairs[i].a == b && pairs[i].b == a)) return pairs[i].value;
  return otherwise;
}
/* The GPU at the far end of a lane: an index, -1 for a switch, -2 for a lane that is not connected. */
static int far_end(Handle h, int lane) {
  int first = 0;
  for (int i = 0; i < n_links; i++) {
    if (links[i].a != h->index && links[i].b != h->index) continue;
    if (lane < first + links[i].value) return links[i].a == h->index ? links[i].b : links[i].a;
    first += links[i].value;
  }
  return lane < first + h->nvlink ? -1 : -2;
}
int nvmlDeviceGetTopologyCommonAncestor(Handle a, Handle b, u32 *out) {
  if (!a || !b) return INVALID_ARGUMENT;
  ENTER(a);
  *out = a == b ? 0 : (u32)between(topology, n_topology, a->index, b->index, a->numa == b->numa ? 40 : 50);
  return leave(OK);
}
int nvmlDeviceGetP2PStatus(Handle a, Handle b, u32 what, u32 *out) {
  if (!a || !b || what > 4) return INVALID_ARGUMENT;
  ENTER(a);
  int joined = between(links, n_links, a->index, b->index, 0) > 0 || (a->nvlink && b->nvlink);
  *out = what == 2 && !joined ? 5 : 0;
  return leave(OK);
}
int nvmlDeviceGetNvLinkState(Handle h, u32 lane, u32 *out) {
  if (!h || lane >= MAX_LANES) return INVALID_ARGUMENT;
  ENTER(h);
  if (far_end(h, 0) == -2) return leave(NOT_SUPPORTED);
  *out = far_end(h, (int)lane) != -2;
  return leave(OK);
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(Handle h, u32 lane, Pci *out) {
  if (!h || lane >= MAX_LANES) return INVALID_ARGUMENT;
  ENTER(h);
  int peer = far_end(h, (int)lane);
  if (peer == -2) return leave(NOT_SUPPORTED);
  fill_pci(out, peer == -1 ? "0000:FE:00.0" : gpus[peer].bus);
  return leave(OK);
}
