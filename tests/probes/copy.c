/* Writes standard input to standard output, byte for byte. */
#include <windows.h>

int main(void) {
    static char buffer[65536];
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE), out = GetStdHandle(STD_OUTPUT_HANDLE);
    DWORD length, done, written;
    while (ReadFile(in, buffer, sizeof buffer, &length, NULL) && length > 0) {
        for (done = 0; done < length; done += written) {
            if (!WriteFile(out, buffer + done, length - done, &written, NULL)) return 1;
        }
    }
    return 0;
}
