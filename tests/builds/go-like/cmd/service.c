#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *name = "nobody";
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--name")) name = argv[i + 1];
    printf("hello %s from %s\n", name, VERSION);
    return 0;
}
