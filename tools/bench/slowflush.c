/* Makes each flush of a program longer: fsync, fdatasync and syncfs return some milliseconds late.
 *
 *     gcc -O2 -shared -fPIC -o slowflush.so slowflush.c
 *     SLOWFLUSH_MS=5 LD_PRELOAD=./slowflush.so PROGRAM
 *
 * flush.py builds and loads it. Unlike strace it does not slow the other system calls of the program.
 * It reaches each program that calls the flushes of a shared C library.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct timespec delay;

__attribute__((constructor)) static void read_delay(void) {
    const char *text = getenv("SLOWFLUSH_MS");
    long milliseconds = text ? atol(text) : 0;
    delay.tv_sec = milliseconds / 1000;
    delay.tv_nsec = milliseconds % 1000 * 1000000L;
}

static int late(long result) {
    nanosleep(&delay, NULL);
    return (int)result;
}

int fsync(int file) { return late(syscall(SYS_fsync, file)); }

int fdatasync(int file) { return late(syscall(SYS_fdatasync, file)); }

int syncfs(int file) { return late(syscall(SYS_syncfs, file)); }
