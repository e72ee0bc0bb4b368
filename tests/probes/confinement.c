/* A hostile Windows program: by Windows names and by raw Linux system calls it tries what it must not be able to do.
 * Prints "held <what>" or "BREACH <what>" for each attempt. Arguments: a host file, the id of a host process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define SYS(n, ...) call(n, __VA_ARGS__)

static void say(const char *what, int held) {
    printf("%s %s\n", held ? "held" : "BREACH", what);
    fflush(stdout);
}

static int opens(const char *name) {
    HANDLE file = CreateFileA(name, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) return 0;
    CloseHandle(file);
    return 1;
}

static int linux_opens(const char *path, long flags) {
    int fd = (int)SYS(2, (long)(size_t)path, flags, 0, 0, 0);
    if (fd < 0) return 0;
    SYS(3, fd, 0, 0, 0, 0);
    return 1;
}

static void windows_path(char *to, const char *prefix, const char *path) {
    strcpy(to, prefix);
    char *p = to + strlen(to);
    for (; *path; path++) *p++ = *path == '/' ? '\\' : *path;
    *p = 0;
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "memory")) {
        for (int i = 0; i < 2048; i++) {
            char *block = VirtualAlloc(NULL, 1 << 20, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
            if (!block) { printf("held memory\n"); return 0; }
            memset(block, 1, 1 << 20);
        }
        printf("BREACH memory\n");
        return 0;
    }
    if (count == 2 && !strcmp(words[1], "sleep")) { Sleep(60000); return 0; }
    if (count == 2 && !strcmp(words[1], "processes")) {
        for (int i = 0; i < 300; i++) {
            STARTUPINFOA startup = {sizeof startup};
            PROCESS_INFORMATION process;
            char line[300];
            snprintf(line, sizeof line, "\"%s\" sleep", words[0]);
            if (!CreateProcessA(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &process)) {
                printf("held processes\n");
                return 0;
            }
            CloseHandle(process.hThread);
            if (WaitForSingleObject(process.hProcess, 0) == WAIT_OBJECT_0) { printf("held processes\n"); return 0; }
            CloseHandle(process.hProcess);
        }
        printf("BREACH processes\n");
        return 0;
    }
    if (count < 3) return 2;
    const char *secret = words[1];
    long host_process = atol(words[2]);
    char path[1024], name[1024];

    windows_path(path, "\\\\?\\unix", secret);
    say("host file by \\\\?\\unix", !opens(path));
    windows_path(path, "\\\\?\\unix\\proc\\1\\root", secret);
    say("host file by \\\\?\\unix\\proc\\1\\root", !opens(path));
    windows_path(path, "Z:", secret);
    say("host file by Z:", !opens(path));
    say("host file by open(2)", !linux_opens(secret, 0));
    snprintf(name, sizeof name, "/../../../../../..%s", secret);
    say("host file by ..", !linux_opens(name, 0));
    say("a drive Z:", GetDriveTypeA("Z:\\") == DRIVE_NO_ROOT_DIR);

    snprintf(name, sizeof name, "/proc/%ld/cmdline", host_process);
    say("host process in /proc", !linux_opens(name, 0));
    say("signal to a host process", SYS(62, host_process, 0, 0, 0, 0) < 0);
    say("ptrace of a host process", SYS(101, 16, host_process, 0, 0, 0) < 0);
    say("ptrace of init's supervisor", SYS(101, 16, 0, 0, 0, 0) < 0);

    say("mount(2) of proc", SYS(165, (long)"proc", (long)"/mnt", (long)"proc", 0, 0) < 0);
    say("bind mount", SYS(165, (long)"/", (long)"/mnt", 0, 4096, 0) < 0);
    say("umount2(2)", SYS(166, (long)"/proc", 2, 0, 0, 0) < 0);
    say("pivot_root(2)", SYS(155, (long)"/", (long)"/mnt", 0, 0, 0) < 0);
    say("unshare(2) of user and mount namespaces", SYS(272, 0x10000000 | 0x20000, 0, 0, 0, 0) < 0);
    say("setns(2)", SYS(308, 0, 0, 0, 0, 0) < 0);
    say("mknod(2) of a disk", SYS(133, (long)"/tmp/disk", 0060600, 0x800, 0, 0) < 0);
    say("init_module(2)", SYS(175, 0, 0, 0, 0, 0) < 0);
    say("bpf(2)", SYS(321, 0, 0, 0, 0, 0) < 0);
    say("keyctl(2)", SYS(250, 0, 0, 0, 0, 0) < 0);
    say("reboot(2)", SYS(169, 0xfee1dead, 672274793, 0x1234567, 0, 0) < 0);
    say("sethostname(2)", SYS(170, (long)"x", 1, 0, 0, 0) < 0);
    say("sysrq-trigger", !linux_opens("/proc/sysrq-trigger", 1));
    say("core_pattern", !linux_opens("/proc/sys/kernel/core_pattern", 1));
    say("/proc/kcore", !linux_opens("/proc/kcore", 0));
    say("/dev/mem", !linux_opens("/dev/mem", 0));
    say("a block device by \\\\.\\unix", !opens("\\\\?\\unix\\dev\\vda") && !opens("\\\\?\\unix\\dev\\sda"));
    say("cgroup release_agent", !linux_opens("/sys/fs/cgroup/release_agent", 1));
    say("writing Wine's own files", !linux_opens("/usr/lib/wine/wine64", 2));
    say("the container engine's socket", !opens("\\\\?\\unix\\run\\silo\\silo.sock"));

    int fd = (int)SYS(2, (long)"/proc/self/status", 0, 0, 0, 0);
    static char status[8192];
    long length = fd < 0 ? 0 : SYS(0, fd, (long)status, sizeof status - 1, 0, 0);
    status[length > 0 ? length : 0] = 0;
    say("capabilities", strstr(status, "CapEff:\t0000000000000000") && strstr(status, "CapBnd:\t0000000000000000"));
    say("new privileges", strstr(status, "NoNewPrivs:\t1") != NULL);
    say("system calls", strstr(status, "Seccomp:\t2") != NULL);
    return 0;
}
