/* Runs a fuzzer's entry point over files and folders of inputs: the committed corpus is replayed in every
 * test run, with any compiler. An empty or missing corpus is a failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static long run_path(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        perror(path);
        return -1;
    }
    if (S_ISDIR(st.st_mode)) {
        DIR *dir = opendir(path);
        struct dirent *entry;
        long total = 0;

        if (dir == NULL) {
            perror(path);
            return -1;
        }
        while ((entry = readdir(dir)) != NULL) {
            char child[4096];
            long n;

            if (entry->d_name[0] == '.')
                continue;
            snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
            n = run_path(child);
            if (n < 0) {
                closedir(dir);
                return -1;
            }
            total += n;
        }
        closedir(dir);
        return total;
    }

    FILE *f = fopen(path, "rb");
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);

    if (f == NULL || data == NULL || fread(data, 1, size, f) != size) {
        perror(path);
        exit(1);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

int main(int argc, char **argv)
{
    long total = 0;

    for (int i = 1; i < argc; i++) {
        long n = run_path(argv[i]);

        if (n < 0)
            return 1;
        total += n;
    }
    printf("%ld inputs replayed\n", total);
    return total > 0 ? 0 : 1;
}
