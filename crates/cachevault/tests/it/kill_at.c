/* Kills its process at the n-th call that makes something durable or visible, counted over all
 * threads. Loaded by LD_PRELOAD; n is in KILL_AT, and each call is one line in KILL_LOG. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long calls;

static void count(const char *name) {
    const char *at = getenv("KILL_AT"), *log = getenv("KILL_LOG");
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (log) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd >= 0) {
            if (write(fd, name, strlen(name)) < 0 || write(fd, "\n", 1) < 0) abort();
            close(fd);
        }
    }
    if (at && n == atol(at)) kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { count("fsync"); return REAL(fsync)(fd); }
int fdatasync(int fd) { count("fdatasync"); return REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { count("rename"); return REAL(rename)(from, to); }
int unlink(const char *path) { count("unlink"); return REAL(unlink)(path); }
int unlinkat(int fd, const char *path, int flags) { count("unlinkat"); return REAL(unlinkat)(fd, path, flags); }
int rmdir(const char *path) { count("rmdir"); return REAL(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { count("mkdir"); return REAL(mkdir)(path, mode); }
