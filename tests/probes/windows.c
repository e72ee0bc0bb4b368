/* A Windows program that does what the tests of Windows containers ask: one word, one thing. */
#include <stdio.h>
#include <string.h>
#include <windows.h>
#include <tlhelp32.h>

static BOOL WINAPI on_event(DWORD event) {
    printf("event %lu\n", event);
    fflush(stdout);
    if (event == CTRL_CLOSE_EVENT) ExitProcess(7);
    return TRUE;
}

/* What this process is, and what it may do: one word a line, errors as Windows numbers them. */
static void rights(void) {
    SID_IDENTIFIER_AUTHORITY authority = {SECURITY_NT_AUTHORITY};
    BYTE buffer[4096];
    DWORD size, i;
    PSID admins;
    BOOL member = TRUE, listed = FALSE;
    HANDLE token, file, process;
    HKEY key;
    AllocateAndInitializeSid(&authority, 2, 32, 544, 0, 0, 0, 0, 0, 0, &admins);
    CheckTokenMembership(NULL, admins, &member);
    OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token);
    GetTokenInformation(token, TokenGroups, buffer, sizeof buffer, &size);
    TOKEN_GROUPS *groups = (TOKEN_GROUPS *)buffer;
    for (i = 0; i < groups->GroupCount; i++) listed |= EqualSid(groups->Groups[i].Sid, admins);
    printf("administrator %d %d\n", member, listed);
    GetTokenInformation(token, TokenIntegrityLevel, buffer, sizeof buffer, &size);
    printf("integrity %lx\n", *GetSidSubAuthority(((TOKEN_MANDATORY_LABEL *)buffer)->Label.Sid, 0));
    GetTokenInformation(token, TokenPrivileges, buffer, sizeof buffer, &size);
    printf("few-privileges %d\n", ((TOKEN_PRIVILEGES *)buffer)->PrivilegeCount < 4);
    GetTokenInformation(token, TokenElevation, buffer, sizeof buffer, &size);
    printf("elevated %lu\n", *(DWORD *)buffer);
    printf("machine-open %ld\n", RegOpenKeyExA(HKEY_LOCAL_MACHINE, "Software", 0, KEY_WRITE, &key));
    printf("machine-read %ld\n", RegOpenKeyExA(HKEY_LOCAL_MACHINE, "Software", 0, KEY_READ, &key));
    printf("machine-create %ld\n", RegCreateKeyA(HKEY_LOCAL_MACHINE, "Software\\Mine", &key));
    LONG set = RegCreateKeyA(HKEY_LOCAL_MACHINE, "Software\\Microsoft", &key);
    if (!set) set = RegSetValueExA(key, "mine", 0, REG_SZ, (const BYTE *)"x", 2);
    printf("machine-set %ld\n", set);
    set = RegCreateKeyA(HKEY_CURRENT_USER, "Software\\Mine\\Deep", &key);
    if (!set) set = RegSetValueExA(key, "mine", 0, REG_SZ, (const BYTE *)"x", 2);
    if (!set) set = RegDeleteKeyA(HKEY_CURRENT_USER, "Software\\Mine\\Deep");
    printf("user-set %ld\n", set);
    const char *places[] = {"C:\\Windows\\System32\\mine", "C:\\Program Files\\mine", "C:\\Users\\ContainerAdministrator\\mine",
                            "\\\\?\\unix\\prefix\\mine", "%USERPROFILE%\\mine", "%TEMP%\\mine", "C:\\mine"};
    for (i = 0; i < sizeof places / sizeof *places; i++) {
        char path[MAX_PATH];
        ExpandEnvironmentStringsA(places[i], path, sizeof path);
        file = CreateFileA(path, GENERIC_WRITE, 7, NULL, CREATE_ALWAYS, FILE_FLAG_DELETE_ON_CLOSE, NULL);
        printf("%s %lu\n", places[i], file == INVALID_HANDLE_VALUE ? GetLastError() : 0);
        CloseHandle(file);
    }
    char own[MAX_PATH];
    ExpandEnvironmentStringsA("%TEMP%\\own", own, sizeof own);
    CloseHandle(CreateFileA(own, GENERIC_WRITE, 7, NULL, CREATE_ALWAYS, 0, NULL));
    printf("move-there %lu\n", MoveFileA(own, "C:\\Windows\\System32\\own") ? 0 : GetLastError());
    printf("make-folder %lu\n", CreateDirectoryA("C:\\Windows\\folder", NULL) ? 0 : GetLastError());
    printf("replace %lu\n", CopyFileA(own, "C:\\Windows\\System32\\sc.exe", FALSE) ? 0 : GetLastError());
    DeleteFileA(own);
    printf("delete %lu\n", DeleteFileA("C:\\Windows\\System32\\systeminfo.exe") ? 0 : GetLastError());
    PROCESSENTRY32 entry = {sizeof entry};
    HANDLE list = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    for (BOOL more = Process32First(list, &entry); more; more = Process32Next(list, &entry))
        if (!_stricmp(entry.szExeFile, "services.exe")) {
            process = OpenProcess(PROCESS_TERMINATE, FALSE, entry.th32ProcessID);
            printf("end-services %lu\n", process ? 0 : GetLastError());
        }
    HWND window = CreateWindowA("STATIC", "w", 0, 0, 0, 100, 100, NULL, NULL, NULL, NULL);
    printf("window %d screen %d\n", window != NULL, GetSystemMetrics(SM_CXSCREEN) > 0);
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
    if (!strcmp(word, "rights")) rights();
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
    if (!strcmp(word, "size")) {
        /* The console's size, and each further one that it says by itself, until it is 77 columns wide. */
        HANDLE in = GetStdHandle(STD_INPUT_HANDLE), out = GetStdHandle(STD_OUTPUT_HANDLE);
        SetConsoleMode(in, ENABLE_WINDOW_INPUT);
        for (;;) {
            CONSOLE_SCREEN_BUFFER_INFO info;
            INPUT_RECORD record;
            DWORD count;
            GetConsoleScreenBufferInfo(out, &info);
            printf("size=%dx%d/%dx%d.\r\n", info.dwSize.X, info.dwSize.Y, info.srWindow.Right - info.srWindow.Left + 1,
                   info.srWindow.Bottom - info.srWindow.Top + 1);
            fflush(stdout);
            if (info.dwSize.X == 77) return 5;
            do {
                if (!ReadConsoleInputA(in, &record, 1, &count)) return 1;
            } while (record.EventType != WINDOW_BUFFER_SIZE_EVENT);
        }
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
