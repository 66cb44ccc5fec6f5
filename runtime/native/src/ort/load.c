#define _GNU_SOURCE /* RTLD_NODELETE, versionsort */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../poyoedge.h"
#include "runtime.h"

static int refuse(char *why, size_t why_size, const char *path, const char *problem) {
    if (why_size)
        snprintf(why, why_size, "%s: expected ONNX Runtime 1.%d or newer, got %s", path, PE_ORT_API,
                 problem);
    return POYOEDGE_ENVIRONMENT;
}

/* EM_ of elf.h. */
static const char *architecture(unsigned machine) {
    switch (machine) {
    case 3: return "x86";
    case 40: return "32-bit Arm";
    case 62: return "x86-64";
    case 183: return "aarch64";
    case 243: return "RISC-V";
    default: return "another machine";
    }
}

static unsigned machine_of(const char *path) {
    unsigned char head[20] = {0};
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    size_t n = fread(head, 1, sizeof head, file);
    fclose(file);
    if (n < sizeof head || memcmp(head, "\177ELF", 4) != 0) return 0;
    unsigned first = head[18], second = head[19];
    return head[5] == 2 ? first << 8 | second : second << 8 | first;
}

#if defined(__x86_64__)
#define OWN_MACHINE 62u
#elif defined(__aarch64__)
#define OWN_MACHINE 183u
#else
#define OWN_MACHINE 0u
#endif

static int is_library(const struct dirent *entry) {
    return strncmp(entry->d_name, "libonnxruntime.so", 17) == 0;
}

/* The newest library in a folder. */
static bool in_folder(const char *folder, char *path, size_t size) {
    struct dirent **found = NULL;
    int n = scandir(folder, &found, is_library, versionsort);
    if (n > 0) snprintf(path, size, "%s/%s", folder, found[n - 1]->d_name);
    for (int i = 0; i < n; i++)
        free(found[i]);
    free(found);
    return n > 0;
}

static int open_library(pe_ort *ort, const char *path, char *why, size_t why_size) {
    /* It stays loaded: its threads and destructors outlive what a program can know of. */
    int how = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    static const char *const names[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
    char inside[4096], problem[512];
    struct stat about;
    for (int i = 0; !path && !ort->library && i < 2; i++)
        ort->library = dlopen(names[i], how);
    if (!path) {
        if (ort->library) return POYOEDGE_OK;
        return refuse(why, why_size, "libonnxruntime.so.1",
                      "none where the loader looks; name its file in options.onnxruntime");
    }
    if (stat(path, &about) != 0) return refuse(why, why_size, path, strerror(errno));
    if (S_ISDIR(about.st_mode)) {
        if (!in_folder(path, inside, sizeof inside))
            return refuse(why, why_size, path, "a folder without libonnxruntime.so");
        path = inside;
    } else if (!strchr(path, '/')) { /* dlopen takes such a name for one that the loader knows */
        snprintf(inside, sizeof inside, "./%s", path);
        path = inside;
    }
    unsigned machine = machine_of(path), own = OWN_MACHINE;
    if (!machine) return refuse(why, why_size, path, "a file that is no library");
    if (own && machine != own) {
        snprintf(problem, sizeof problem, "one for %s on %s", architecture(machine),
                 architecture(own));
        return refuse(why, why_size, path, problem);
    }
    ort->library = dlopen(path, how);
    if (ort->library) return POYOEDGE_OK;
    snprintf(problem, sizeof problem, "one that cannot be loaded: %s", dlerror());
    return refuse(why, why_size, path, problem);
}

static int take_api(pe_ort *ort, const char *path, char *why, size_t why_size) {
    const pe_ort_base *(*get_base)(void);
    void *symbol = dlsym(ort->library, "OrtGetApiBase");
    if (!symbol) return refuse(why, why_size, path, "a library of something else");
    memcpy(&get_base, &symbol, sizeof get_base);
    const pe_ort_base *base = get_base();
    snprintf(ort->version, sizeof ort->version, "%s", base->GetVersionString());
    ort->base = base;
    ort->api = base->GetApi(PE_ORT_API);
    if (!ort->api) return refuse(why, why_size, path, ort->version);
    OrtStatus *status = ort->api->CreateEnv(PE_ORT_LOG_ERROR, "poyoedge", &ort->env);
    if (!status)
        status = ort->api->CreateCpuMemoryInfo(PE_ORT_DEVICE_ALLOCATOR, PE_ORT_MEMORY_DEFAULT,
                                               &ort->memory);
    if (!status) return POYOEDGE_OK;
    if (why_size)
        snprintf(why, why_size, "ONNX Runtime %s: %s", ort->version,
                 ort->api->GetErrorMessage(status));
    ort->api->ReleaseStatus(status);
    return POYOEDGE_ENVIRONMENT;
}

int pe_ort_load(pe_ort *ort, const char *path, char *why, size_t why_size) {
    *ort = (pe_ort){0};
    int code = open_library(ort, path, why, why_size);
    if (code == POYOEDGE_OK)
        code = take_api(ort, path ? path : "libonnxruntime.so.1", why, why_size);
    if (code != POYOEDGE_OK) pe_ort_unload(ort);
    return code;
}

int pe_ort_load_kernels(pe_ort *ort, const char *path, char *why, size_t why_size) {
    static const char expected[] = "expected poyo_edge_kernels.so for this machine";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void *symbol = library ? dlsym(library, "RegisterCustomOps") : NULL;
    bool ours = symbol && dlsym(library, "poyo_edge_kernels_version");
    if (ours)
        memcpy(&ort->add_kernels, &symbol, sizeof ort->add_kernels);
    else if (why_size)
        snprintf(why, why_size, "kernels: %s: %s, got %s", path, expected,
                 library ? "a library of something else" : dlerror());
    if (library) dlclose(library); /* it stays: RTLD_NODELETE */
    return ours ? POYOEDGE_OK : POYOEDGE_ENVIRONMENT;
}

void pe_ort_unload(pe_ort *ort) {
    if (ort->memory) ort->api->ReleaseMemoryInfo(ort->memory);
    if (ort->env) ort->api->ReleaseEnv(ort->env);
    if (ort->library) dlclose(ort->library);
    *ort = (pe_ort){0};
}
