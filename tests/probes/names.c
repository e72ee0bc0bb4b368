// Prints what the names of its arguments mean, an address a line; after -r, what an address is called; after -d, the
// machine's name servers.
#include <winsock2.h>
#include <ws2tcpip.h>
#include <iphlpapi.h>
#include <stdio.h>
#include <string.h>

static int servers(void)
{
    static char buffer[16384];
    FIXED_INFO *info = (FIXED_INFO *)buffer;
    ULONG size = sizeof(buffer);
    IP_ADDR_STRING *server;

    if (GetNetworkParams(info, &size)) return 1;
    for (server = &info->DnsServerList; server; server = server->Next) puts(server->IpAddress.String);
    return 0;
}

int main(int argc, char **argv)
{
    WSADATA data;
    int i, reverse = argc > 1 && !strcmp(argv[1], "-r");

    if (WSAStartup(MAKEWORD(2, 2), &data)) return 1;
    if (argc > 1 && !strcmp(argv[1], "-d")) return servers();
    for (i = 1 + reverse; i < argc; i++)
    {
        struct addrinfo hints = {0}, *list;
        char text[256] = "";

        hints.ai_family = AF_INET;
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_flags = reverse ? AI_NUMERICHOST : 0;
        if (getaddrinfo(argv[i], NULL, &hints, &list))
        {
            puts("none");
            continue;
        }
        if (getnameinfo(list->ai_addr, (int)list->ai_addrlen, text, sizeof(text), NULL, 0,
                        reverse ? NI_NAMEREQD : NI_NUMERICHOST))
            strcpy(text, "unnamed");
        puts(text);
        freeaddrinfo(list);
    }
    return 0;
}
