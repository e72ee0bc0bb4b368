/* What a Windows program is told of the job that its container is, of its machine, and of jobs of its own. */
#define _WIN32_WINNT 0x0a00
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <psapi.h>

typedef ULONGLONG u64;

/* JobObjectCpuRateControlInformation, which older headers lack. */
enum { CPU_RATE = 15 };
typedef struct { DWORD flags, rate; } Rate;

static DWORD times_of(HANDLE job, u64 *user, u64 *kernel) {
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION all;
    memset(&all, 0xaa, sizeof all);
    if (!QueryInformationJobObject(job, JobObjectBasicAccountingInformation, &all, sizeof all, NULL)) return 0;
    *user = all.TotalUserTime.QuadPart / 10000;
    *kernel = all.TotalKernelTime.QuadPart / 10000;
    return all.TotalProcesses;
}

static DWORD user_time(HANDLE process) {
    FILETIME made, ended, kernel, user = {0};
    GetProcessTimes(process, &made, &ended, &kernel, &user);
    return user.dwLowDateTime / 10000;
}

static void spin(DWORD milliseconds) {
    while (user_time(GetCurrentProcess()) < milliseconds)
        for (volatile int i = 0; i < 1000000; i++) {}
}

static void tell(void) {
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits;
    JOBOBJECT_BASIC_LIMIT_INFORMATION basic;
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION all;
    Rate rate = {9, 9};
    BOOL in = FALSE;
    DWORD length = 0;
    memset(&limits, 0xaa, sizeof limits);
    memset(&basic, 0xaa, sizeof basic);
    printf("in-job=%d", IsProcessInJob(GetCurrentProcess(), NULL, &in) ? in : -1);
    if (QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &limits, sizeof limits, &length))
        printf(" flags=%lx job-memory=%llu processes=%lu", limits.BasicLimitInformation.LimitFlags,
               (u64)limits.JobMemoryLimit, limits.BasicLimitInformation.ActiveProcessLimit);
    if (length != sizeof limits) printf(" length=%lu", length);
    if (QueryInformationJobObject(NULL, JobObjectBasicLimitInformation, &basic, sizeof basic, NULL))
        printf(" basic-flags=%lx basic-processes=%lu", basic.LimitFlags, basic.ActiveProcessLimit);
    if (QueryInformationJobObject(NULL, CPU_RATE, &rate, sizeof rate, NULL))
        printf(" rate-flags=%lx rate=%lu", rate.flags, rate.rate);
    /* Those that run, this process among them, and no more than have ever run. While a process comes or goes, two
     * questions have two answers. */
    DWORD size = 8 + 1000 * sizeof(ULONG_PTR), tries = 50, needed, i, here, pids[1000];
    JOBOBJECT_BASIC_PROCESS_ID_LIST *list = calloc(1, size);
    BOOL right = FALSE;
    while (!right && tries--) {
        QueryInformationJobObject(NULL, JobObjectBasicProcessIdList, list, size, NULL);
        QueryInformationJobObject(NULL, JobObjectBasicAccountingInformation, &all, sizeof all, NULL);
        EnumProcesses(pids, sizeof pids, &needed);
        for (i = here = 0; i < list->NumberOfProcessIdsInList; i++) here += list->ProcessIdList[i] == GetCurrentProcessId();
        right = here == 1 && list->NumberOfProcessIdsInList == needed / sizeof *pids &&
                all.ActiveProcesses == needed / sizeof *pids && all.TotalProcesses >= all.ActiveProcesses;
        if (!right) Sleep(100);
    }
    printf(" processes-right=%d", right);
    free(list);
    MEMORYSTATUSEX memory = {.dwLength = sizeof memory};
    GlobalMemoryStatusEx(&memory);
    SYSTEM_INFO system, native;
    GetSystemInfo(&system);
    GetNativeSystemInfo(&native);
    DWORD_PTR own = 0, all_of = 0;
    GetProcessAffinityMask(GetCurrentProcess(), &own, &all_of);
    DWORD at, threads = 0;
    size = 0;
    GetLogicalProcessorInformationEx(RelationProcessorCore, NULL, &size);
    char *cpus = malloc(size);
    GetLogicalProcessorInformationEx(RelationProcessorCore, (void *)cpus, &size);
    for (at = 0; at < size; at += ((SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX *)(cpus + at))->Size)
        threads += __builtin_popcountll(((SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX *)(cpus + at))->Processor.GroupMask[0].Mask);
    free(cpus);
    ULARGE_INTEGER disk;
    GetDiskFreeSpaceExA("C:\\", NULL, &disk, NULL);
    printf(" memory=%llu available-right=%d page-file-right=%d system=%lu native=%lu active=%lu affinity=%d logical=%lu disk=%llu\n",
           memory.ullTotalPhys, memory.ullAvailPhys > 0 && memory.ullAvailPhys < memory.ullTotalPhys,
           memory.ullTotalPageFile >= memory.ullTotalPhys, system.dwNumberOfProcessors, native.dwNumberOfProcessors,
           GetActiveProcessorCount(0), __builtin_popcountll(own), threads, disk.QuadPart >> 20);
    fflush(stdout);
}

static HANDLE child(const char *word, DWORD flags, DWORD *error) {
    char line[MAX_PATH + 32];
    STARTUPINFOA startup = {.cb = sizeof startup};
    PROCESS_INFORMATION process;
    GetModuleFileNameA(NULL, line, MAX_PATH);
    strcat(line, word);
    *error = 0;
    if (!CreateProcessA(NULL, line, NULL, NULL, TRUE, flags, NULL, NULL, &startup, &process)) {
        *error = GetLastError();
        return NULL;
    }
    CloseHandle(process.hThread);
    return process.hProcess;
}

static HANDLE job_with(DWORD flags, DWORD processes, u64 memory) {
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    HANDLE job = CreateJobObjectA(NULL, NULL);
    limits.BasicLimitInformation.LimitFlags = flags;
    limits.BasicLimitInformation.ActiveProcessLimit = processes;
    limits.JobMemoryLimit = memory;
    if (!SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits))
        printf("setting limits failed: %lu\n", GetLastError());
    return job;
}

/* Jobs of its own, as node, browsers and build tools have them. */
static void nested(void) {
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits;
    DWORD error, code;
    BOOL in;
    u64 user = 0, kernel = 0;
    HANDLE job = job_with(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_ACTIVE_PROCESS | JOB_OBJECT_LIMIT_JOB_MEMORY,
                          2, 123 << 20);
    HANDLE one = child(" sleep", CREATE_SUSPENDED, &error);
    printf("assigned=%d", AssignProcessToJobObject(job, one));
    IsProcessInJob(one, job, &in);
    printf(" in-it=%d", in);
    IsProcessInJob(GetCurrentProcess(), job, &in);
    printf(" self=%d", in);
    memset(&limits, 0xaa, sizeof limits);
    QueryInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits, NULL);
    printf(" flags=%lx memory=%llu processes=%lu", limits.BasicLimitInformation.LimitFlags, (u64)limits.JobMemoryLimit >> 20,
           limits.BasicLimitInformation.ActiveProcessLimit);
    Rate rate = {9, 9};
    QueryInformationJobObject(job, CPU_RATE, &rate, sizeof rate, NULL);
    printf(" rate=%lu,%lu", rate.flags, rate.rate);
    /* The last handle's end is the processes'. */
    CloseHandle(job);
    printf(" ended=%d", WaitForSingleObject(one, 20000) == WAIT_OBJECT_0);
    /* One process of its own, and no more. */
    job = job_with(JOB_OBJECT_LIMIT_ACTIVE_PROCESS, 2, 0);
    printf(" joined=%d", AssignProcessToJobObject(job, GetCurrentProcess()));
    QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &limits, sizeof limits, NULL);
    printf(" own=%lx,%lu", limits.BasicLimitInformation.LimitFlags, limits.BasicLimitInformation.ActiveProcessLimit);
    one = child(" spin", 0, &error);
    HANDLE two = child(" spin", 0, &error);
    printf(" first=%d second=%lu", one != NULL && two == NULL, error);
    WaitForSingleObject(one, 60000);
    GetExitCodeProcess(one, &code);
    DWORD total = times_of(job, &user, &kernel);
    printf(" code=%lu total=%lu times=%d,%d", code, total, user >= 190, user_time(one) >= 190 && user_time(one) < 2000);
    /* With its end there is room for another. */
    one = child(" spin", 0, &error);
    printf(" third=%d", one != NULL);
    WaitForSingleObject(one, 60000);
    printf("\n");
    fflush(stdout);
}

/* A process may ask to break away: out of the container there is no way, and no error. */
static void away(void) {
    DWORD error;
    BOOL in = FALSE;
    HANDLE one = child(" sleep", CREATE_BREAKAWAY_FROM_JOB | CREATE_SUSPENDED, &error);
    printf("error=%lu in-container=%d\n", error, IsProcessInJob(one, NULL, &in) && in);
    TerminateProcess(one, 0);
}

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "tell";
    char line[64];
    if (!strcmp(word, "tell")) tell();
    else if (!strcmp(word, "nested")) nested();
    else if (!strcmp(word, "away")) away();
    else if (!strcmp(word, "sleep")) Sleep(600000);
    else if (!strcmp(word, "spin")) spin(200);
    else if (!strcmp(word, "times")) {
        /* What this process uses, the container has used. */
        u64 user = 0, kernel = 0, before, unused;
        times_of(NULL, &before, &unused);
        spin(user_time(GetCurrentProcess()) + 500);
        times_of(NULL, &user, &kernel);
        printf("user=%lld kernel=%d\n", (long long)(user - before), kernel > 0);
    } else if (!strcmp(word, "allocate")) {
        /* What is used is not available. */
        MEMORYSTATUSEX before = {.dwLength = sizeof before}, after = {.dwLength = sizeof after};
        GlobalMemoryStatusEx(&before);
        memset(VirtualAlloc(NULL, 64 << 20, MEM_COMMIT, PAGE_READWRITE), 1, 64 << 20);
        Sleep(1100);
        GlobalMemoryStatusEx(&after);
        u64 less = (before.ullAvailPhys - after.ullAvailPhys) >> 20;
        printf("less=%d\n", less >= 60 && less <= 80);
    } else if (!strcmp(word, "ask")) {
        while (fgets(line, sizeof line, stdin)) {
            /* GlobalMemoryStatusEx says the same for a second. */
            Sleep(1100);
            tell();
        }
    }
    return 0;
}
