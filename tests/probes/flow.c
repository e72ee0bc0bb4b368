/* Sends or receives at full speed for a while, and says what came when. The same program for Linux and for Windows.
 *
 * flow wait; flow send|receive tcp|udp ADDRESS PORT MILLISECONDS [BITS A SECOND, udp send]. It is always this side that
 * connects. The receiver says one byte, and only then does the other side send: what it has seen since is all there was. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#endif

/* Payload of a full frame. */
enum { DATAGRAM = 1472, PIECE = 65536 };
static char piece[PIECE];

/* Microseconds. */
static uint64_t now(void)
{
#ifdef _WIN32
    LARGE_INTEGER count, each;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&each);
    return count.QuadPart / each.QuadPart * 1000000 + count.QuadPart % each.QuadPart * 1000000 / each.QuadPart;
#else
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000ull + at.tv_nsec / 1000;
#endif
}

static void pause_ms(int ms)
{
#ifdef _WIN32
    Sleep(ms);
#else
    usleep(ms * 1000);
#endif
}

#ifdef _WIN32
typedef SOCKET end;
#else
typedef int end;
#endif

static void patience(end s, int ms)
{
#ifdef _WIN32
    DWORD limit = ms;
#else
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};
#endif
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, (void *)&limit, sizeof limit);
}

/* Says what has come once in a while, and in the end. */
static void receive(end s, int udp, uint64_t time)
{
    uint64_t bytes = 0, told = 0, begin = now(), at = 0;
    patience(s, udp ? 200 : 5000);
    send(s, "g", 1, 0);
    while (at < time) {
        int n = recv(s, piece, PIECE, 0);
        at = now() - begin;
        if (n > 0)
            bytes += n;
        else if (!udp)
            break;
        else if (!bytes)
            send(s, "g", 1, 0);
        if (at >= told + 50000 || at >= time) {
            printf("%llu %llu\n", (unsigned long long)at, (unsigned long long)bytes);
            told = at;
        }
    }
}

static void transmit(end s, int udp, uint64_t time, uint64_t rate)
{
    char byte;
    if (udp) {
        patience(s, 200);
        for (int tries = 0; tries < 50; tries++) {
            send(s, "h", 1, 0);
            if (recv(s, &byte, 1, 0) == 1)
                break;
        }
    } else if (recv(s, &byte, 1, 0) != 1)
        return;
    uint64_t begin = now(), sent = 0, at;
    while ((at = now() - begin) < time) {
        if (!udp) {
            if (send(s, piece, PIECE, 0) <= 0)
                return;
        } else if (sent * 8 > at * rate / 1000000)
            pause_ms(1);
        else {
            /* Nobody listening, no room: what is not sent is lost, as anything else of it may be. */
            send(s, piece, DATAGRAM, 0);
            sent += DATAGRAM;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "wait")) {
        for (;;)
            pause_ms(1000);
    }
    if (argc < 6)
        return 2;
#ifdef _WIN32
    WSADATA data;
    WSAStartup(MAKEWORD(2, 2), &data);
#else
    signal(SIGPIPE, SIG_IGN);
#endif
    int udp = !strcmp(argv[2], "udp"), size = 4 << 20;
    end s = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    struct sockaddr_in to;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = inet_addr(argv[3]);
    to.sin_port = htons(atoi(argv[4]));
    if (udp)
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, (void *)&size, sizeof size);
    if (connect(s, (struct sockaddr *)&to, sizeof to)) {
        perror("connect");
        return 1;
    }
    uint64_t time = strtoull(argv[5], 0, 10) * 1000;
    if (!strcmp(argv[1], "receive"))
        receive(s, udp, time);
    else
        transmit(s, udp, time, argc > 6 ? strtoull(argv[6], 0, 10) : 1000000000);
    fflush(stdout);
    return 0;
}
