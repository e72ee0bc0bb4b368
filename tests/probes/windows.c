/* A Windows program that does what the tests of Windows containers ask: one word, one thing. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

static BOOL WINAPI on_event(DWORD event) {
    printf("event %lu\n", event);
    fflush(stdout);
    if (event == CTRL_CLOSE_EVENT) ExitProcess(7);
    return TRUE;
}

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "";
    if (!strcmp(word, "flush")) {
        HKEY key;
        if (RegCreateKeyA(HKEY_LOCAL_MACHINE, "Software\\Flushed", &key)) return 1;
        if (RegSetValueExA(key, "v", 0, REG_SZ, (const BYTE *)"kept", 5)) return 2;
        if (RegFlushKey(key)) return 3;
        printf("flushed\n");
        fflush(stdout);
        Sleep(INFINITE);
    }
    if (!strcmp(word, "crash")) {
        printf("before\n");
        fflush(stdout);
        *(volatile int *)8 = 1;
    }
    if (!strcmp(word, "memory")) {
        MEMORYSTATUSEX status = {sizeof status};
        GlobalMemoryStatusEx(&status);
        printf("%llu\n", status.ullTotalPhys >> 20);
        return 0;
    }
    if (!strcmp(word, "events")) {
        SetConsoleCtrlHandler(on_event, TRUE);
        printf("ready\n");
        fflush(stdout);
        Sleep(INFINITE);
    }
    if (!strcmp(word, "lock")) {
        HANDLE file = CreateFileA("C:\\lock", GENERIC_READ | GENERIC_WRITE, 7, NULL, OPEN_ALWAYS, 0, NULL);
        long(WINAPI * lock)(HANDLE, HANDLE, void *, void *, void *, LARGE_INTEGER *, LARGE_INTEGER *, ULONG *, BOOLEAN, BOOLEAN) =
            (void *)GetProcAddress(GetModuleHandleA("ntdll.dll"), "NtLockFile");
        LARGE_INTEGER offset = {0}, length;
        length.QuadPart = 10;
        struct { void *status; ULONG_PTR information; } block = {(void *)1, 1};
        long result = lock(file, NULL, NULL, NULL, &block, &offset, &length, NULL, TRUE, TRUE);
        printf("%lx %p\n", result, block.status);
        return 0;
    }
    return 0;
}
