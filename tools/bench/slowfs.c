/* Shows a directory below a mount point, read-only, and answers each call after some milliseconds.
 *
 *     gcc -O2 -o slowfs slowfs.c $(pkg-config --cflags --libs fuse3)
 *     SLOWFS_ROOT=/archive SLOWFS_MS=2 ./slowfs -f -o max_threads=256 MOUNT_POINT
 *
 * latency.py builds and mounts it. The kernel remembers names and attributes for a second. So a new file
 * costs three calls (look-up, open, read), and so does a directory (look-up, two listings). close is none.
 */
#define FUSE_USE_VERSION 314
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *root;
static struct timespec delay;

static void wait_as_a_server(void) { nanosleep(&delay, NULL); }

static int whole(char *out, const char *path) {
    return snprintf(out, PATH_MAX, "%s%s", root, path) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int slow_getattr(const char *path, struct stat *stat, struct fuse_file_info *info) {
    char real[PATH_MAX];
    (void)info;
    wait_as_a_server();
    if (whole(real, path)) return -ENAMETOOLONG;
    return lstat(real, stat) ? -errno : 0;
}

static int slow_open(const char *path, struct fuse_file_info *info) {
    char real[PATH_MAX];
    wait_as_a_server();
    if (whole(real, path)) return -ENAMETOOLONG;
    int fd = open(real, O_RDONLY);
    if (fd < 0) return -errno;
    info->fh = (uint64_t)fd;
    return 0;
}

static int slow_read(const char *path, char *buffer, size_t size, off_t offset, struct fuse_file_info *info) {
    (void)path;
    wait_as_a_server();
    ssize_t got = pread((int)info->fh, buffer, size, offset);
    return got < 0 ? -errno : (int)got;
}

static int slow_release(const char *path, struct fuse_file_info *info) {
    (void)path;
    return close((int)info->fh);
}

static int slow_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                        struct fuse_file_info *info, enum fuse_readdir_flags flags) {
    char real[PATH_MAX];
    (void)offset, (void)info, (void)flags;
    wait_as_a_server();
    if (whole(real, path)) return -ENAMETOOLONG;
    DIR *directory = opendir(real);
    if (!directory) return -errno;
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat stat = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
        if (fill(buffer, entry->d_name, &stat, 0, 0)) break;
    }
    closedir(directory);
    return 0;
}

static void *slow_init(struct fuse_conn_info *connection, struct fuse_config *config) {
    (void)connection;
    config->use_ino = 1;
    config->entry_timeout = config->attr_timeout = 1;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = slow_init, .getattr = slow_getattr, .open = slow_open, .read = slow_read,
    .release = slow_release, .readdir = slow_readdir,
};

int main(int argc, char **argv) {
    const char *milliseconds = getenv("SLOWFS_MS");
    root = getenv("SLOWFS_ROOT");
    if (!root || !milliseconds) return fprintf(stderr, "SLOWFS_ROOT and SLOWFS_MS have to be set\n"), 2;
    delay.tv_nsec = (long)(atof(milliseconds) * 1e6);
    return fuse_main(argc, argv, &operations, NULL);
}
