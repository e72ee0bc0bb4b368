/* Runs into a limit and says how far it came. The same program for Linux and for Windows. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>
#endif

static double wall(void)
{
#ifdef _WIN32
    return GetTickCount64() / 1e3;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
#endif
}

static double used(void)
{
#ifdef _WIN32
    FILETIME a, b, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &a, &b, &kernel, &user);
    uint64_t k = (uint64_t)kernel.dwHighDateTime << 32 | kernel.dwLowDateTime;
    uint64_t u = (uint64_t)user.dwHighDateTime << 32 | user.dwLowDateTime;
    return (k + u) / 1e7;
#else
    struct rusage all;
    getrusage(RUSAGE_SELF, &all);
    return all.ru_utime.tv_sec + all.ru_stime.tv_sec + (all.ru_utime.tv_usec + all.ru_stime.tv_usec) / 1e6;
#endif
}

/* Until somebody writes a line or goes. */
static void stay(void)
{
    fflush(stdout);
    getchar();
}

/* Takes so many pieces of 64 KiB, and says after each 16 how many. */
static int memory(long pieces)
{
    for (long i = 1; i <= pieces; i++) {
        char *piece = malloc(65536);
        if (!piece) {
            printf("refused\n");
            return 0;
        }
        memset(piece, 1, 65536);
        if (i % 16 == 0) {
            printf("%ld\n", i);
            fflush(stdout);
        }
    }
    printf("all\n");
    stay();
    return 0;
}

/* Computes for so many milliseconds; hundredths of a percent of one processor that it got. */
static int cpu(long ms)
{
    double begin = wall(), before = used();
    volatile unsigned long n = 0;
    while (wall() - begin < ms / 1e3)
        for (int i = 0; i < 100000; i++)
            n++;
    printf("%d\n", (int)((used() - before) / (wall() - begin) * 10000));
    return 0;
}

#ifdef _WIN32
static DWORD WINAPI idle(void *none)
{
    Sleep(INFINITE);
    return 0;
}
static DWORD WINAPI burn(void *none)
{
    volatile unsigned long n = 0;
    for (;;)
        n++;
}
static int begin_thread(LPTHREAD_START_ROUTINE what)
{
    return CreateThread(0, 65536, what, 0, STACK_SIZE_PARAM_IS_A_RESERVATION, 0) != 0;
}
static long processors(void)
{
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    return system.dwNumberOfProcessors;
}
#else
static void *idle(void *none)
{
    pause();
    return 0;
}
static void *burn(void *none)
{
    volatile unsigned long n = 0;
    for (;;)
        n++;
}
static int begin_thread(void *(*what)(void *))
{
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    return pthread_create(&thread, &small, what, 0) == 0;
}
static long processors(void) { return sysconf(_SC_NPROCESSORS_ONLN); }
#endif

/* Makes threads until no more can be had; how many there are with the first. */
static int tasks(long most)
{
    long n = 1;
    while (n < most && begin_thread(idle))
        n++;
    printf("%ld\n", n);
    stay();
    return 0;
}

#ifdef _WIN32
typedef HANDLE file;
static file make(const char *path)
{
    return CreateFileA(path, GENERIC_WRITE, 0, 0, CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, 0);
}
static long put(file to, const void *bytes, long count)
{
    DWORD n = 0;
    return WriteFile(to, bytes, count, &n, 0) ? (long)n : -1;
}
static int sync_file(file to) { return FlushFileBuffers(to); }
static uint64_t room(const char *path)
{
    ULARGE_INTEGER free = {0};
    GetDiskFreeSpaceExA("C:\\", &free, 0, 0);
    return free.QuadPart;
}
#else
typedef int file;
static file make(const char *path) { return open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644); }
static long put(file to, const void *bytes, long count) { return write(to, bytes, count); }
static int sync_file(file to) { return fsync(to) == 0; }
static uint64_t room(const char *path)
{
    struct statvfs all;
    statvfs("/", &all);
    return (uint64_t)all.f_bavail * all.f_frsize;
}
#endif

static char piece[1 << 20];

/* Fills the disk: room before, bytes written. */
static int fill(const char *path)
{
    uint64_t before = room(path), written = 0;
    file to = make(path);
    memset(piece, 1, sizeof piece);
    for (long n; (n = put(to, piece, 65536)) > 0;)
        written += n;
    printf("%llu %llu\n", (unsigned long long)before, (unsigned long long)written);
    fflush(stdout);
    return 0;
}

/* Writes so many pieces, each on the disk before the next; bytes a second. */
static int synced(const char *path, long size, long pieces)
{
    file to = make(path);
    memset(piece, 1, sizeof piece);
    double begin = wall();
    for (long i = 0; i < pieces; i++)
        if (put(to, piece, size) != size || !sync_file(to)) {
            printf("failed\n");
            return 1;
        }
    double took = wall() - begin;
    printf("%.0f\n", pieces * (double)size / (took > 0.001 ? took : 0.001));
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    long n = argc > 2 ? strtol(argv[argc - 1], 0, 10) : 0;
    if (!strcmp(what, "memory"))
        return memory(n);
    if (!strcmp(what, "cpu"))
        return cpu(n);
    if (!strcmp(what, "pair"))
        /* The same of two threads. */
        return begin_thread(burn) ? cpu(n) : 1;
    if (!strcmp(what, "processors"))
        return printf("%ld\n", processors()) < 0;
    if (!strcmp(what, "wait")) {
        stay();
        return 0;
    }
    if (!strcmp(what, "tasks"))
        return tasks(n);
    if (!strcmp(what, "fill"))
        return fill(argv[2]);
    if (!strcmp(what, "synced"))
        return synced(argv[2], 65536, n);
    if (!strcmp(what, "slabs"))
        /* What a file system adds is little of it. */
        return synced(argv[2], sizeof piece, n);
    return 2;
}
