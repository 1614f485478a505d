/* Makes the n-th call that makes something durable or visible go wrong, counted over all threads.
 * Loaded by LD_PRELOAD.
 *
 * To die: KILL_AT is n, and the process is killed instead of the call. Each call is one line in
 * KILL_LOG.
 *
 * To fail: FAIL_CONTROL is a file with a `struct control`, which its writer may change while the
 * process runs. The call fails once, with an error, and calls go well from then on. Here writes and
 * whatever makes files count too, all below the folder FAIL_UNDER. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    /* Which call fails, from 1 on, and its error; none while it is 0. */
    atomic_long at, error;
    /* Calls since the writer set it to 0, and how many of them failed. */
    atomic_long calls, failed;
    /* The call that failed. */
    char name[32];
};

static atomic_long calls;
static struct control *control;
static const char *under;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAIL_CONTROL");
    under = getenv("FAIL_UNDER");
    if (!path || !under) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR);
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || found == MAP_FAILED) abort();
    control = found;
    close(fd);
}

/* Counts a call that may kill. */
static void count(const char *name) {
    const char *at = getenv("KILL_AT"), *log = getenv("KILL_LOG");
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (log) {
        /* Not by our own functions. */
        int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd >= 0) {
            dprintf(fd, "%s\n", name);
            close(fd);
        }
    }
    if (at && n == atol(at)) kill(getpid(), SIGKILL);
}

static int is_ours(const char *path) {
    return control && path && strncmp(path, under, strlen(under)) == 0;
}

/* Counts a call that may fail; whether it does. */
static int fails(const char *name) {
    long n = atomic_fetch_add(&control->calls, 1) + 1;
    if (n != atomic_load(&control->at)) return 0;
    strncpy(control->name, name, sizeof control->name - 1);
    atomic_fetch_add(&control->failed, 1);
    errno = atomic_load(&control->error);
    return 1;
}

static int path_fails(const char *name, const char *path) { return is_ours(path) && fails(name); }

static int fd_fails(const char *name, int fd) {
    char link[32], path[4096];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return is_ours(path) && fails(name);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Those that kill or fail. */
#define BY_FD(name, type, parameters, arguments)                                                   \
    type name parameters {                                                                         \
        count(#name);                                                                              \
        return fd_fails(#name, fd) ? -1 : REAL(name) arguments;                                    \
    }
#define BY_PATH(name, type, parameters, arguments)                                                 \
    type name parameters {                                                                         \
        count(#name);                                                                              \
        return path_fails(#name, path) ? -1 : REAL(name) arguments;                                \
    }

BY_FD(fsync, int, (int fd), (fd))
BY_FD(fdatasync, int, (int fd), (fd))
BY_PATH(rename, int, (const char *path, const char *to), (path, to))
BY_PATH(unlink, int, (const char *path), (path))
BY_FD(unlinkat, int, (int fd, const char *path, int flags), (fd, path, flags))
BY_PATH(rmdir, int, (const char *path), (path))
BY_PATH(mkdir, int, (const char *path, mode_t mode), (path, mode))

/* Those that only fail. */
#define FAILS_BY_FD(name, type, parameters, arguments)                                             \
    type name parameters { return fd_fails(#name, fd) ? -1 : REAL(name) arguments; }

FAILS_BY_FD(write, ssize_t, (int fd, const void *bytes, size_t n), (fd, bytes, n))
FAILS_BY_FD(writev, ssize_t, (int fd, const struct iovec *parts, int n), (fd, parts, n))
FAILS_BY_FD(pwrite, ssize_t, (int fd, const void *bytes, size_t n, off_t at), (fd, bytes, n, at))
FAILS_BY_FD(pwrite64, ssize_t, (int fd, const void *bytes, size_t n, off64_t at), (fd, bytes, n, at))
FAILS_BY_FD(ftruncate, int, (int fd, off_t size), (fd, size))
FAILS_BY_FD(ftruncate64, int, (int fd, off64_t size), (fd, size))

int link(const char *path, const char *to) {
    return path_fails("link", path) ? -1 : REAL(link)(path, to);
}

/* Opening fails where it makes the file. */
#define OPENS(name)                                                                                \
    int name(const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                  \
        va_end(rest);                                                                              \
        if (flags & O_CREAT && path_fails(#name, path)) return -1;                                 \
        return REAL(name)(path, flags, mode);                                                      \
    }

OPENS(open)
OPENS(open64)
