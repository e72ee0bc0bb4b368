/* A Windows program that prints the machine's SID, a line for each place that tells it: `place=SID`; before that random bytes
 * and the time in milliseconds since 1970, as they are at its first instruction. */
#include <stdio.h>
#include <string.h>
#include <windows.h>
#include <sddl.h>
#include <ntsecapi.h>
#include <tlhelp32.h>

static void show(const char *place, PSID sid) {
    char *text = NULL;
    if (sid && IsValidSid(sid) && ConvertSidToStringSidA(sid, &text)) printf("%s=%s\n", place, text);
    else printf("%s=error %lu\n", place, GetLastError());
}

/* A name's SID, and that SID's name. */
static void name(const char *place, const char *account) {
    BYTE sid[SECURITY_MAX_SID_SIZE];
    char domain[256], back[256], machine[256];
    DWORD size = sizeof sid, length = sizeof domain, own = sizeof machine;
    SID_NAME_USE use, again;
    if (!LookupAccountNameA(NULL, account, sid, &size, domain, &length, &use)) {
        printf("%s=error %lu\n", place, GetLastError());
        return;
    }
    show(place, sid);
    DWORD count = sizeof back;
    length = sizeof domain;
    GetComputerNameA(machine, &own);
    const char *bare = strrchr(account, '\\') ? strrchr(account, '\\') + 1 : account;
    BOOL found = LookupAccountSidA(NULL, sid, back, &count, domain, &length, &again);
    BOOL same = use == SidTypeDomain ? !*back : !_stricmp(back, bare);
    if (!found || again != use || !same || strcmp(domain, machine)) printf("%s=back %s %s\n", place, domain, back);
}

static void token(const char *place, HANDLE process) {
    BYTE buffer[4096];
    DWORD size;
    char text[64];
    HANDLE token;
    if (!OpenProcessToken(process, TOKEN_QUERY, &token)) {
        printf("%s=error %lu\n", place, GetLastError());
        return;
    }
    GetTokenInformation(token, TokenUser, buffer, sizeof buffer, &size);
    sprintf(text, "%s-user", place);
    show(text, ((TOKEN_USER *)buffer)->User.Sid);
    GetTokenInformation(token, TokenPrimaryGroup, buffer, sizeof buffer, &size);
    sprintf(text, "%s-group", place);
    show(text, ((TOKEN_PRIMARY_GROUP *)buffer)->PrimaryGroup);
    GetTokenInformation(token, TokenDefaultDacl, buffer, sizeof buffer, &size);
    ACL *dacl = ((TOKEN_DEFAULT_DACL *)buffer)->DefaultDacl;
    ACCESS_ALLOWED_ACE *ace;
    sprintf(text, "%s-dacl", place);
    if (dacl && GetAce(dacl, 1, (void **)&ace)) show(text, &ace->SidStart);
    CloseHandle(token);
}

int main(void) {
    HKEY key;
    BYTE value[4096];
    DWORD size = sizeof value, kind, i;
    char text[256];
    FILETIME now;
    BOOLEAN (WINAPI *draw)(void *, ULONG);

    GetSystemTimeAsFileTime(&now);
    draw = (void *)GetProcAddress(LoadLibraryA("advapi32.dll"), "SystemFunction036");
    draw(value, 16);
    printf("random=");
    for (i = 0; i < 16; i++) printf("%02x", value[i]);
    ULONGLONG ticks = ((ULONGLONG)now.dwHighDateTime << 32 | now.dwLowDateTime) - 116444736000000000ULL;
    printf("\nclock=%llu\n", ticks / 10000);

    if (RegOpenKeyA(HKEY_LOCAL_MACHINE, "SAM\\SAM\\Domains\\Account", &key) ||
        RegQueryValueExA(key, "V", NULL, &kind, value, &size) || kind != REG_BINARY || size < 24)
        printf("sam=none\n");
    else
        show("sam", value + size - 24);

    LSA_OBJECT_ATTRIBUTES attributes = {sizeof attributes};
    LSA_HANDLE policy;
    POLICY_ACCOUNT_DOMAIN_INFO *account;
    LsaOpenPolicy(NULL, &attributes, POLICY_VIEW_LOCAL_INFORMATION, &policy);
    if (LsaQueryInformationPolicy(policy, PolicyAccountDomainInformation, (void **)&account)) printf("lsa=error\n");
    else show("lsa", account->DomainSid);

    /* Not in every base. */
    HMODULE network = LoadLibraryA("netapi32.dll");
    DWORD (WINAPI *modals)(LPCWSTR, DWORD, LPBYTE *) = network ? (void *)GetProcAddress(network, "NetUserModalsGet") : NULL;
    struct { LPWSTR name; PSID sid; } *info;
    if (modals && !modals(NULL, 2, (LPBYTE *)&info)) show("modals", info->sid);

    char machine[64];
    size = sizeof machine;
    GetComputerNameA(machine, &size);
    name("computer", machine);
    const char *accounts[] = {"Administrator", "guest", "DefaultAccount", "WDAGUtilityAccount", "None"};
    for (i = 0; i < sizeof accounts / sizeof *accounts; i++) name(accounts[i], accounts[i]);
    sprintf(text, "%s\\Administrator", machine);
    name("qualified", text);
    SID_NAME_USE use;
    DWORD none = sizeof value, length = sizeof text;
    BOOL found = LookupAccountNameA(NULL, "ELSEWHERE\\Administrator", value, &none, text, &length, &use);
    printf("elsewhere=error %lu\n", found ? 0 : GetLastError());

    PSID sid;
    if (ConvertStringSidToSidA("LA", &sid)) show("sddl", sid);
    token("own", GetCurrentProcess());
    if (RegOpenKeyA(HKEY_USERS, NULL, &key)) printf("hive=error\n");
    for (i = 0; !RegEnumKeyA(key, i, text, sizeof text); i++)
        if (!strncmp(text, "S-1-5-21-", 9)) printf("hive=%s\n", text);

    /* Of those that an administrator may ask. */
    PROCESSENTRY32 entry = {sizeof entry};
    HANDLE processes = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    for (BOOL more = Process32First(processes, &entry); more; more = Process32Next(processes, &entry)) {
        HANDLE process = OpenProcess(PROCESS_QUERY_INFORMATION, FALSE, entry.th32ProcessID);
        sprintf(text, "%s", entry.szExeFile);
        if (process) token(text, process);
        CloseHandle(process);
    }
    return 0;
}
